"""Columns of texts that repeat: a number for each record, and each text once."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np


class CodedTexts:
    """`[N]` texts, kept as codes into a list of distinct ones.

    Indexing by a number gives a text, by an array another column of these records.

    Args:
        codes: `[N]`, unsigned integers, may be memory-mapped.
        names: The texts that the codes stand for, or a function that loads them when
            they are first asked for.
    """

    def __init__(
        self, codes: np.ndarray, names: Sequence[str] | Callable[[], Sequence[str]]
    ) -> None:
        self.codes = codes
        self._names = names

    @property
    def names(self) -> Sequence[str]:
        """The texts that the codes stand for; distinct, in no given order."""
        if callable(self._names):
            self._names = self._names()
        return self._names

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, place):
        if isinstance(place, int | np.integer):
            return self.names[int(self.codes[place])]
        return CodedTexts(self.codes[place], self._names)

    def to_array(self) -> np.ndarray:
        """All texts, `[N]` str: for few records only."""
        return np.array(self.names, str)[self.codes]

    def rename(self, old: str, new: str) -> "CodedTexts":
        """Replaces one of the texts by another, which may be there already."""
        if old not in self.names:
            return self
        names = list(self.names)
        place = names.index(old)
        if new not in names:
            names[place] = new
            return CodedTexts(self.codes, names)
        known = names.index(new)
        codes = np.where(self.codes == place, self.codes.dtype.type(known), self.codes)
        return CodedTexts(codes, names)


def encode(texts: "np.ndarray | CodedTexts") -> CodedTexts:
    """Codes an array of texts `[N]`; a column that is coded stays as it is."""
    if isinstance(texts, CodedTexts):
        return texts
    names, codes = np.unique(np.asarray(texts, str), return_inverse=True)
    return CodedTexts(codes.astype(smallest_unsigned(len(names))), names.tolist())


def repeat(text: str, count: int) -> CodedTexts:
    """A column of one text, which takes no memory."""
    return CodedTexts(np.broadcast_to(np.zeros((), np.uint8), count), [text])


def join(parts: Iterable[CodedTexts]) -> CodedTexts:
    """Joins columns, one after the other; codes are in the order of first use."""
    known: dict[str, int] = {}
    codes = []
    for part in parts:
        own = [known.setdefault(name, len(known)) for name in part.names]
        codes.append(np.array(own, np.uint32)[part.codes])
    joined = np.concatenate(codes) if codes else np.zeros(0, np.uint32)
    return CodedTexts(joined.astype(smallest_unsigned(len(known))), list(known))


def smallest_unsigned(count: int) -> type[np.unsignedinteger]:
    """The smallest type whose values number `count` things."""
    for dtype in (np.uint8, np.uint16):
        if count <= np.iinfo(dtype).max + 1:
            return dtype
    return np.uint32


def pack(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Packs texts as their UTF-8 bytes, uint8, and where each ends, `[M]` uint64."""
    encoded = [name.encode("utf-8") for name in names]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.uint64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def unpack(content: np.ndarray, ends: np.ndarray) -> list[str]:
    """The texts that `pack` packed."""
    whole, start, names = content.tobytes(), 0, []
    for end in ends.tolist():
        names.append(whole[start:end].decode("utf-8"))
        start = end
    return names
