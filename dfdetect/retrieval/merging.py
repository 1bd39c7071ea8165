"""Builds one index of many parts: other indexes, or shards of embeddings.

The embeddings lie in a file beside the index while it is built, mapped into memory, so
that only entries and what the searcher itself needs must fit. ScaNN keeps a copy of
the float32 embeddings for reordering, in memory: 4 bytes a value, 60 GB for ten million
of 1,488 values, which a search from disk by brute force does not need.
"""

import dataclasses
import io
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfdetect import files
from dfdetect.pipeline import embedding
from dfdetect.retrieval import embedding_rows, index_building, storage, tuning
from dfdetect.retrieval.entries import Entry
from dfdetect.retrieval.index import Index


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of an index.

    Attributes:
        name: Where it is, for messages.
        embedding: See `Index`.
        read: Returns the embeddings `[N, D]`, of any float type, and N entries.
        without_heads: Ids of images that were read and have no head.
    """

    name: str
    embedding: dict[str, Any]
    read: Callable[[], tuple[np.ndarray, Sequence[Entry]]]
    without_heads: Sequence[str] = ()


def open_index(directory: str) -> Part:
    """Opens an index as a part.

    Raises:
        ValueError: The folder is not an index, or is damaged.
    """
    described = storage.read_manifest(directory)

    def read() -> tuple[np.ndarray, Sequence[Entry]]:
        searcher, entries = storage.load(directory, thumbnails=True)[0].snapshot()
        assert searcher is not None  # `storage.save` refuses an empty index.
        return searcher.rows, entries

    return Part(directory, described["embedding"], read)


def open_shard(path: str, read_file: Callable[[str], bytes] = files.read) -> Part:
    """Opens a shard of embeddings, see `corpora.embedding_shards`, as a part.

    Args:
        path: The shard.
        read_file: Reads a file.

    Raises:
        OSError: It cannot be read.
        ValueError: The file is not a shard.
    """

    def unpack() -> tuple[np.ndarray, list[Entry], dict[str, Any]]:
        try:
            return index_building.unpack(io.BytesIO(read_file(path)))
        except ValueError as error:
            raise ValueError(f"{path} is not a shard of embeddings: {error}") from error

    _, _, more = unpack()
    if "embedding" not in more:
        raise ValueError(f"{path} does not say which embedding it has.")
    without_heads = more.get(index_building.WITHOUT_HEADS, ())
    return Part(path, more["embedding"], lambda: unpack()[:2], without_heads)


def merge(
    parts: Sequence[Part],
    output: str,
    *,
    searcher: str = "auto",
    target_recall: float = tuning.DEFAULT_RECALL,
    say: Callable[[str], None] = lambda line: None,
) -> Index:
    """Builds and saves an index of parts.

    Args:
        parts: At least one; of entries of the same id, the last one stays, and of the
            heads of an image those of the last part that has it.
        output: Folder of the index; an older index stays until this one is complete.
        searcher: See `Index`.
        target_recall: See `Index`.
        say: Prints a line.

    Raises:
        FileExistsError: The folder exists and is not an index.
        ValueError: The parts have different embeddings, or no entry.
    """
    output = os.path.abspath(output)
    storage.check_destination(output)
    for part in parts[1:]:
        _check_same(parts[0], part)
    kept = _choose(parts)
    number = sum(len(rows) for rows, _ in kept)
    if not number:
        raise ValueError("no image could be embedded, so that no index is written.")
    dimension = parts[0].embedding["dimension"]
    parent, name = os.path.split(output)
    os.makedirs(parent, exist_ok=True)
    aside = os.path.join(parent, f".{name}.{secrets.token_hex(8)}.rows")
    try:
        joined = np.lib.format.open_memmap(
            aside, "w+", np.dtype(np.float32), (number, dimension)
        )
        start = 0
        for part, (rows, _) in zip(parts, kept, strict=True):
            chosen = np.asarray(part.read()[0][rows], np.float32)
            # float16 has moved them off the unit sphere.
            joined[start : start + len(rows)] = embedding_rows.scale_to_unit(chosen)
            start += len(rows)
        index = Index(
            joined,
            [entry for _, entries in kept for entry in entries],
            searcher=searcher,
            target_recall=target_recall,
            embedding=parts[0].embedding,
            say=say,
        )
        storage.save(index, output)
    finally:
        if os.path.exists(aside):
            os.remove(aside)
    return index


def _choose(parts: Sequence[Part]) -> list[tuple[list[int], list[Entry]]]:
    """Chooses the rows of each part that stay, with their entries."""
    of_heads = parts[0].embedding.get("unit") == "heads"
    read = [part.read()[1] for part in parts]
    last: dict[str, tuple[int, int]] = {}
    last_part: dict[str, int] = {}  # By image.
    for i, (part, entries) in enumerate(zip(parts, read, strict=True)):
        last_part.update(dict.fromkeys(part.without_heads, i))
        for row, entry in enumerate(entries):
            last[entry.id] = i, row
            last_part[index_building.name_image(entry.id, of_heads)] = i
    kept = []
    for i, entries in enumerate(read):
        rows = [
            row
            for row, entry in enumerate(entries)
            if last[entry.id] == (i, row)
            and last_part[index_building.name_image(entry.id, of_heads)] == i
        ]
        kept.append((rows, [entries[j] for j in rows]))
    return kept


def _check_same(first: Part, other: Part) -> None:
    try:
        embedding.check(other.embedding, first.embedding)
        embedding.check_unit(other.embedding, first.embedding)
    except ValueError as error:
        raise ValueError(f"{other.name} beside {first.name}: {error}") from error
