"""Builds an index of images on disk, resuming after an interruption.

During the build, the folder `.<name>.unfinished` beside the index holds a part for each
batch and a journal, see `resumable`; it is deleted once the index is complete.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import cv2
import numpy as np
import tensorflow as tf

from dfdetect import console, iterators, resumable
from dfdetect.media import decode, drawing, file_kinds, source_files
from dfdetect.pipeline import embedding
from dfdetect.retrieval import storage, tuning
from dfdetect.retrieval.entries import UNKNOWN, Entry
from dfdetect.retrieval.index import Index

# Further value of packed embeddings: ids of the images read that have no head.
WITHOUT_HEADS = "without_heads"

_THUMBNAIL_QUALITY = 80
_CALLS_AT_ONCE = 2  # Calls of the graph that run at the same time.


@dataclasses.dataclass(frozen=True)
class IndexedImage:
    """An image to index.

    Attributes:
        id: Name, unique among the images.
        read: Returns the bytes of the file; if it raises an OSError, the image is
            reported and skipped.
        label: Label of `labels`, or `entries.UNKNOWN`.
        source: Where the image is, for display.
        group: Name of its group, or "".
    """

    id: str
    read: Callable[[], bytes]
    label: int = UNKNOWN
    source: str = ""
    group: str = ""


def build_index(
    images: Iterable[IndexedImage],
    total: int,
    *,
    origin: dict[str, Any],
    embedder: embedding.Embedder,
    output: str,
    say: Callable[[str], None],
    batch_size: int = 8,
    thumbnail_side: int = 96,
    searcher: str = "auto",
    target_recall: float = tuning.DEFAULT_RECALL,
    older: Index | None = None,
) -> Index:
    """Embeds images and saves an index of them, resuming an interrupted run.

    Args:
        images: The images, in the same order in each run.
        total: Number of images.
        origin: JSON description of the images; a resumed run must have the same.
        embedder: Embeds the images.
        output: Folder of the index; an older index stays until this one is complete.
        say: Prints a line.
        batch_size: Images at once, in two batches.
        thumbnail_side: Longest side of the thumbnails in pixels; 0 for none.
        searcher: See `Index`.
        target_recall: See `Index`.
        older: Index to extend, which is changed; entries with the ids of new ones, and
            all heads of images that are read, are replaced, and `searcher` and
            `target_recall` stay those that it has.

    Raises:
        ValueError: No image could be embedded, or `older` has another model, or is of
            heads and `embedder` of whole images or the reverse.
        OSError: See `storage.save` and `resumable.Output`.
    """
    output = os.path.abspath(output)
    storage.check_destination(output)
    if older is not None:
        embedding.check(older.embedding, embedder.describe())
        embedding.check_unit(older.embedding, embedder.describe())
    parent, name = os.path.split(output)
    work = os.path.join(parent, f".{name}.unfinished")
    settings = {
        "embedding": embedder.describe(),
        "origin": origin,
        "thumbnail_side": thumbnail_side,
        "adding": older is not None,
    }
    with resumable.Output(work, "summary.json", settings) as folder:
        _embed(
            images,
            total,
            embedder=embedder,
            folder=folder,
            say=say,
            batch_size=batch_size,
            thumbnail_side=thumbnail_side,
        )
        rows, entries, without_heads = _parts(folder, embedder.dimension)
        if older is not None:
            index = _add(older, rows, entries, without_heads)
        elif not entries:
            raise ValueError("no image could be embedded, so that no index is written.")
        else:
            index = Index(
                rows,
                entries,
                searcher=searcher,
                target_recall=target_recall,
                embedding=embedder.describe(),
                say=say,
            )
        storage.save(index, output)
    shutil.rmtree(work)
    return index


def encode_thumbnail(image: np.ndarray, box: np.ndarray, side: int) -> bytes:
    """Encodes a part of an image as a small JPEG; b"" if `side` is 0.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        box: `[4]` in the format of `dfdetect.boxes`.
        side: Longest side of the thumbnail in pixels.
    """
    if not side:
        return b""
    height, width = image.shape[:2]
    top, left, bottom, right = np.round(
        np.clip(box, 0, 1) * [height, width, height, width]
    ).astype(int)
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    scale = min(1.0, side / max(part.shape[:2]))
    size = tuple(max(1, round(length * scale)) for length in part.shape[1::-1])
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return drawing.encode_image(small, ".jpg", _THUMBNAIL_QUALITY)


def _embed(
    images: Iterable[IndexedImage],
    total: int,
    *,
    embedder: embedding.Embedder,
    folder: resumable.Output,
    say: Callable[[str], None],
    batch_size: int,
    thumbnail_side: int,
) -> None:
    done = sum(step["pictures"] for step in folder.steps())
    number = sum(1 for _ in folder.steps())

    def embed(batch: list[IndexedImage]) -> list[tuple[IndexedImage, EmbeddedImage]]:
        return list(embed_batch(batch, embedder, thumbnail_side))

    with console.Progress(total, say, noun="image", done=done) as shown:
        left = itertools.islice(images, done, None)
        # Two halves: while one is read and cropped, the models embed the other.
        halves = iterators.batched(left, max(batch_size // _CALLS_AT_ONCE, 1))
        # The graph is loaded in its first call: once is enough.
        first = map(embed, itertools.islice(halves, 1))
        others = iterators.parallel_map(embed, halves, min(batch_size, _CALLS_AT_ONCE))
        for batch in itertools.chain(first, others):
            rows: list[np.ndarray] = [np.zeros((0, embedder.dimension), np.float32)]
            entries: list[Entry] = []
            without_heads: list[str] = []
            for image, one in batch:
                if told := one.problem or one.warning:
                    say(f"{image.source!r}: {told}")
                shown.count(one.status)
                rows.append(one.embeddings)
                entries += one.entries
                if one.has_no_heads:
                    without_heads.append(image.id)
            path = f"part-{number:07d}.npz"
            more = {WITHOUT_HEADS: without_heads}
            folder.write(path, pack(np.concatenate(rows), entries, more))
            folder.append({"pictures": len(batch), "path": path})
            number += 1


@dataclasses.dataclass(frozen=True)
class EmbeddedImage:
    """What an image adds to an index.

    Attributes:
        status: One of `image_status.STATUS_NAMES`.
        problem: Why it adds nothing, or "".
        warning: What is to be known of what it adds, or "".
        embeddings: float32 `[K, D]`.
        entries: K entries.
    """

    status: str
    problem: str
    embeddings: np.ndarray
    entries: list[Entry]
    warning: str = ""

    @property
    def has_no_heads(self) -> bool:
        """Whether the image was read, and has no head to index."""
        return not self.problem and not self.entries


def name_image(id: str, of_heads: bool) -> str:
    """Returns the id of the image of an entry.

    Args:
        id: Id of the entry.
        of_heads: Whether the index is of heads.
    """
    return id.rpartition("#")[0] if of_heads else id


def embed_batch(
    batch: Sequence[IndexedImage], embedder: embedding.Embedder, thumbnail_side: int
) -> Iterator[tuple[IndexedImage, EmbeddedImage]]:
    """Reads and embeds a batch of images; yields each with what it adds to an index."""
    contents, problems = [], {}
    for place, image in enumerate(batch):
        try:
            contents.append(image.read())
        except OSError as error:
            problems[place] = error.strerror or str(error)
    found = iter(zip(contents, embedder(contents), strict=True))
    for place, image in enumerate(batch):
        if place in problems:
            none = embedder.mark_unreadable()
            yield (
                image,
                EmbeddedImage(none.status, problems[place], none.embeddings, []),
            )
            continue
        content, one = next(found)
        entries = list(_entries(image, content, one, embedder, thumbnail_side))
        problem = source_files.describe_unread(one.status, content)
        embeddings = np.asarray(one.embeddings, np.float32)
        warning = "" if problem else file_kinds.describe_animated(content, "indexed")
        yield image, EmbeddedImage(one.status, problem, embeddings, entries, warning)


def _entries(
    indexed: IndexedImage,
    content: bytes,
    embedded: embedding.Embedded,
    embedder: embedding.Embedder,
    thumbnail_side: int,
) -> Iterator[Entry]:
    if not len(embedded.boxes):
        return
    image = np.zeros((1, 1, 3), np.uint8)
    if thumbnail_side:
        image = decode.decode_at_once(tf.constant(content)).numpy()
    digest = hashlib.sha256(content).hexdigest()
    for head, box in enumerate(embedded.boxes):
        yield Entry(
            id=f"{indexed.id}#{head}" if embedder.of_heads else indexed.id,
            label=indexed.label,
            source=indexed.source,
            group=indexed.group,
            digest=digest,
            box=tuple(float(x) for x in box) if embedder.of_heads else (),
            thumbnail=encode_thumbnail(image, box, thumbnail_side),
        )


def pack(
    rows: np.ndarray, entries: list[Entry], more: Mapping[str, Any] | None = None
) -> bytes:
    """Packs embeddings with their entries into an NPZ file.

    Args:
        rows: `[N, D]`, float32 or float16.
        entries: N entries.
        more: Further values, as JSON; see `unpack`.
    """
    fields = [dataclasses.asdict(entry) for entry in entries]
    thumbnails = [field.pop("thumbnail") for field in fields]
    stream = io.BytesIO()
    np.savez(
        stream,
        rows=rows,
        entries=np.frombuffer(json.dumps(fields).encode(), np.uint8),
        thumbnails=np.frombuffer(b"".join(thumbnails), np.uint8),
        lengths=np.array([len(content) for content in thumbnails], np.int64),
        more=np.frombuffer(json.dumps(dict(more or {})).encode(), np.uint8),
    )
    return stream.getvalue()


def unpack(file: str | IO[bytes]) -> tuple[np.ndarray, list[Entry], dict[str, Any]]:
    """Reads what `pack` has packed.

    Returns:
        Rows, entries, and the further values.

    Raises:
        ValueError: The file is not such an NPZ file.
    """
    try:
        with np.load(file, allow_pickle=False) as part:
            thumbnails = part["thumbnails"].tobytes()
            ends = np.cumsum(part["lengths"])
            fields = json.loads(part["entries"].tobytes())
            entries = []
            for field, end, length in zip(fields, ends, part["lengths"], strict=True):
                field["box"] = tuple(field["box"])
                small = thumbnails[end - length : end]
                entries.append(Entry(**field, thumbnail=small))
            return part["rows"], entries, _decode_further(part)
    except (KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"no embeddings as `pack` writes them: {error}") from error


def unpack_further(file: str | IO[bytes]) -> dict[str, Any]:
    """Reads the further values alone, without the rest of what `pack` has packed.

    Raises:
        ValueError: The file is no NPZ file.
    """
    try:
        with np.load(file, allow_pickle=False) as part:
            return _decode_further(part)
    except (TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"no embeddings as `pack` writes them: {error}") from error


def _decode_further(part: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return json.loads(part["more"].tobytes() if "more" in part else b"{}")


def _parts(
    folder: resumable.Output, dimension: int
) -> tuple[np.ndarray, list[Entry], list[str]]:
    """Reads rows and entries, and the ids of the images that have no head."""
    rows = [np.zeros((0, dimension), np.float32)]
    entries: list[Entry] = []
    without_heads: list[str] = []
    for step in folder.steps():
        path = os.path.join(folder.folder, step["path"])
        more_rows, more_entries, further = unpack(path)
        rows.append(more_rows)
        entries += more_entries
        without_heads += further.get(WITHOUT_HEADS, [])
    return np.concatenate(rows), entries, without_heads


def _add(
    older: Index, rows: np.ndarray, entries: list[Entry], without_heads: list[str]
) -> Index:
    """Adds to an index; all entries of the same images are replaced."""
    of_heads = older.embedding.get("unit") == "heads"
    new = {name_image(entry.id, of_heads) for entry in entries}.union(without_heads)
    _, known = older.snapshot()
    if replaced := {
        id for id in known.iterate_ids() if name_image(id, of_heads) in new
    }:
        older.remove(replaced).result()
    if entries:
        older.add(rows, entries).result()
    return older
