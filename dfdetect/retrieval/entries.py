"""Entries of an index, kept in little memory."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

UNKNOWN = -1  # Label of an unlabeled image; for others see `labels`.


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Metadata of one embedded image, or of one head in it.

    Attributes:
        id: Name, unique in an index.
        label: Label of `labels`, or `UNKNOWN`.
        source: Path of the image or record of a data set, for display.
        group: Name of its group, such as a video, or "".
        digest: SHA-256 of the bytes of the image, in hexadecimal.
        box: Box of the head in the format of `boxes`; empty if the whole image is
            embedded.
        thumbnail: A small JPEG, or b"".
    """

    id: str
    label: int = UNKNOWN
    source: str = ""
    group: str = ""
    digest: str = ""
    box: tuple[float, ...] = ()
    thumbnail: bytes = dataclasses.field(default=b"", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry found by a search.

    Attributes:
        entry: The entry.
        value: Cosine similarity to the query, or Euclidean distance.
    """

    entry: Entry
    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Exclusion:
    """The entries that a search leaves out: those that meet any of the conditions.

    Attributes:
        id: The entry of this id; "" for no such condition.
        group: All entries of this group, likewise.
        digest: All entries of this digest, likewise.
        kept_label: All entries of other labels than this; None for no such condition.
    """

    id: str = ""
    group: str = ""
    digest: str = ""
    kept_label: int | None = None

    def meets(self, entry: Entry) -> bool:
        """Returns whether an entry is left out."""
        if self.kept_label not in (None, entry.label):
            return True
        return any(text and text == getattr(entry, name) for name, text in self.texts())

    def texts(self) -> tuple[tuple[str, str], ...]:
        """Returns names and values of the conditions on texts."""
        return (("id", self.id), ("group", self.group), ("digest", self.digest))


_TEXTS = ("id", "source", "group", "digest")


class EntryTable(Sequence[Entry]):
    """Entries as columns, a third of the memory of as many objects.

    Equal texts are kept once: a source is often the id as well, and the heads of an
    image have the same source, group and digest.

    Args:
        entries: The entries; iterated over once.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        places: dict[str, int] = {}
        labels, texts, boxes, thumbnails = [], [], [], []
        for entry in entries:
            labels.append(entry.label)
            texts.append(
                [places.setdefault(getattr(entry, x), len(places)) for x in _TEXTS]
            )
            boxes.append(entry.box or (np.nan,) * 4)
            thumbnails.append(entry.thumbnail)
        encoded = [_encode(text) for text in places]
        self._blob = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._labels = np.array(labels, np.int32)
        self._texts = np.array(texts, np.int32).reshape(-1, len(_TEXTS))
        self._boxes = np.array(boxes, np.float64).reshape(-1, 4)
        if np.isnan(self._boxes).all():
            self._boxes = self._boxes[:0].copy()
        self._thumbnails = thumbnails if any(thumbnails) else []

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> "tuple[Entry, ...]": ...
    def __getitem__(self, place: int | slice) -> "Entry | tuple[Entry, ...]":
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        place = range(len(self))[place]  # Raises an IndexError.
        box = self._boxes[place].tolist() if len(self._boxes) else [np.nan]
        return Entry(
            **{
                name: self._read_text(text)
                for name, text in zip(_TEXTS, self._texts[place].tolist(), strict=True)
            },
            label=int(self._labels[place]),
            box=() if np.isnan(box[0]) else tuple(box),
            thumbnail=self._thumbnails[place] if self._thumbnails else b"",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, more: "EntryTable") -> "EntryTable":
        """Returns a table of these entries and `more`."""
        both = (self, more)
        joined = EntryTable()
        joined._blob = self._blob + more._blob
        joined._ends = np.append(self._ends, self._ends[-1] + more._ends[1:])
        joined._labels = np.append(self._labels, more._labels)
        shifted = more._texts + np.int32(len(self._ends) - 1)
        joined._texts = np.concatenate([self._texts, shifted])
        if any(len(table._boxes) for table in both):
            joined._boxes = np.concatenate([table._fill_boxes() for table in both])
        if any(table._thumbnails for table in both):
            joined._thumbnails = [
                *(self._thumbnails or [b""] * len(self)),
                *(more._thumbnails or [b""] * len(more)),
            ]
        return joined

    def iterate_ids(self) -> Iterator[str]:
        """Yields the ids."""
        for place in self._texts[:, 0].tolist():
            yield self._read_text(place)

    def mark_excluded(self, exclusions: Sequence[Exclusion]) -> np.ndarray:
        """Says which entries each exclusion leaves out, bool `[E, N]`."""
        marks = np.zeros((len(exclusions), len(self)), bool)
        wanted: dict[str, set[str]] = {}
        for exclusion in exclusions:
            for name, text in exclusion.texts():
                if text:
                    wanted.setdefault(name, set()).add(text)
        codes = {name: self._find_codes(name, texts) for name, texts in wanted.items()}
        for mark, exclusion in zip(marks, exclusions, strict=True):
            if exclusion.kept_label is not None:
                mark |= self._labels != exclusion.kept_label
            for name, text in exclusion.texts():
                for code in codes.get(name, {}).get(text, ()):
                    mark |= self._texts[:, _TEXTS.index(name)] == code
        return marks

    def _find_codes(self, name: str, wanted: set[str]) -> dict[str, list[int]]:
        """Finds the numbers of texts in a column; joined tables may have two of one."""
        found: dict[str, list[int]] = {}
        for code in np.unique(self._texts[:, _TEXTS.index(name)]).tolist():
            text = self._read_text(code)
            if text in wanted:
                found.setdefault(text, []).append(code)
        return found

    @property
    def labels(self) -> np.ndarray:
        """Labels, int32 `[N]`."""
        return self._labels

    def _fill_boxes(self) -> np.ndarray:
        return self._boxes if len(self._boxes) else np.full((len(self), 4), np.nan)

    def _read_text(self, place: int) -> str:
        encoded = self._blob[self._ends[place] : self._ends[place + 1]]
        return encoded.decode(errors="surrogatepass")


def build_table(entries: Sequence[Entry | str], count: int | None = None) -> EntryTable:
    """Checks entries, or ids of entries that are nothing else, and joins them.

    Args:
        entries: The entries; a table stays as it is.
        count: How many there must be; any number by default.

    Raises:
        ValueError: There are more or fewer, or two have one id.
    """
    if count is not None and len(entries) != count:
        raise ValueError(
            f"entries must be as many as embeddings, {count}, got {len(entries)}."
        )
    if isinstance(entries, EntryTable):
        return entries
    known = [Entry(x) if isinstance(x, str) else x for x in entries]
    seen: set[str] = set()
    for entry in known:
        if entry.id in seen:
            raise ValueError(f"ids must differ, got {entry.id!r} twice.")
        seen.add(entry.id)
    return EntryTable(known)


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # File names need not be UTF-8.
