"""Saves and loads an index as a folder, written atomically and verified when read.

It contains `manifest.json` (of kind "index": counts, searcher, the embedding model, and
size and SHA-256 of each other file), `embeddings.npy` (float32 `[N, D]`),
`entries.jsonl` (a JSON line for each row), `thumbnails.bin` (a title, then concatenated
JPEGs) and, for ScaNN, `scann/`, which knows all rows or, if a few were added later, the
first.
"""

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from dfdetect import files, manifest
from dfdetect.retrieval import amended, familiarity, searchers, tuning
from dfdetect.retrieval.entries import Entry, EntryTable
from dfdetect.retrieval.index import Index

# Format 1 has no settings of projection and recall, and every row is ScaNN's.
FORMAT, _READ_FORMATS = 2, (1, 2)

# Without it the file would be taken for the first of its JPEGs, as by `detect FOLDER`;
# those of earlier versions have none.
_TITLE = b"dfdetect thumbnails\n"
_EMBEDDINGS, _ENTRIES, _THUMBNAILS = "embeddings.npy", "entries.jsonl", "thumbnails.bin"
_SCANN = "scann"
_FIELDS = [
    field.name for field in dataclasses.fields(Entry) if field.name != "thumbnail"
]


def save(index: Index, directory: str) -> None:
    """Writes an index, replacing an older one.

    Args:
        index: The index, not empty.
        directory: A new folder, or an index, which stays until this one is complete.

    Raises:
        FileExistsError: The folder exists and is not an index.
        ValueError: The index is empty.
    """
    directory = os.path.abspath(directory)
    check_destination(directory)
    searcher, entries = index.snapshot()
    if searcher is None:
        raise ValueError("an index must have entries to be saved, got none.")
    parent, name = os.path.split(directory)
    os.makedirs(parent, exist_ok=True)
    aside = os.path.join(parent, f".{name}.{secrets.token_hex(4)}.tmp")
    try:
        os.makedirs(aside)
        np.save(os.path.join(aside, _EMBEDDINGS), searcher.rows)
        _write_entries(aside, entries)
        if searcher.describe()["name"] == _SCANN:
            os.makedirs(os.path.join(aside, _SCANN))
            searcher.save(os.path.join(aside, _SCANN))
        described = {
            "kind": "index",
            "format": FORMAT,
            "count": len(entries),
            "dimension": index.dimension,
            "metric": index.metric,
            "searcher": searcher.describe(),
            "wanted_searcher": index.kind,
            "target_recall": index.target_recall,
            "embedding": index.embedding,
            "familiarity": (
                familiarity.compute_quantiles(index) if index.metric == "cosine" else []
            ),
            "files": _account(aside),
            "versions": manifest.collect_versions(),
        }
        manifest.write(aside, described)
        files.replace_folder(aside, directory, f"{aside}.older")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_destination(directory: str) -> None:
    """Checks that an index can be written to a folder.

    Raises:
        FileExistsError: The folder exists and is not an index.
    """
    if os.path.lexists(directory):
        try:
            manifest.read(directory, "index")
        except (OSError, ValueError) as error:
            raise FileExistsError(
                f"{directory} exists and is not an index; name a new folder."
            ) from error


def read_manifest(directory: str) -> dict[str, Any]:
    """Reads the manifest of an index.

    Raises:
        ValueError: The folder is not an index, or has another format.
    """
    try:
        described = manifest.read(directory, "index")
    except OSError as error:
        raise ValueError(
            f"{directory} is not a dfdetect index: {error.strerror}: {error.filename}."
        ) from error
    if described["format"] not in _READ_FORMATS:
        raise ValueError(
            f"format of {directory} must be one of {_READ_FORMATS}, got "
            f"{described['format']!r}."
        )
    return described


def load(
    directory: str,
    thumbnails: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Index, dict[str, Any]]:
    """Reads an index.

    Args:
        directory: Folder written by `save`.
        thumbnails: Whether to load the thumbnails.
        say: Called with messages for the user, such as that ScaNN is not installed.

    Returns:
        The index and its manifest.

    Raises:
        ValueError: The folder is not an index, has another format, or is damaged.
    """
    described = read_manifest(directory)
    for name, wanted in described["files"].items():
        if thumbnails or name != _THUMBNAILS:
            _check_file(os.path.join(directory, name), wanted)
    # Mapped: processes share the pages, and a search reads only what it compares.
    rows = np.load(
        os.path.join(directory, _EMBEDDINGS), mmap_mode="r", allow_pickle=False
    )
    shape = (described["count"], described["dimension"])
    if rows.shape != shape or rows.dtype != np.float32:
        raise ValueError(
            f"{_EMBEDDINGS} of {directory} must be float32 {list(shape)}, "
            f"got {rows.dtype} {list(rows.shape)}."
        )
    entries = EntryTable(_read_entries(directory, thumbnails))
    searcher = _searcher(directory, rows, described, say)
    index = Index.restore(
        searcher,
        entries,
        described["embedding"],
        described["wanted_searcher"],
        described.get("target_recall", tuning.DEFAULT_RECALL),
    )
    return index, described


def _searcher(
    directory: str,
    rows: np.ndarray,
    described: dict[str, Any],
    say: Callable[[str], None],
) -> searchers.Searcher:
    settings = dict(described["searcher"])
    name, metric = settings.pop("name"), described["metric"]
    if name == _SCANN:
        count = settings.pop("rows", len(rows))
        try:
            base = searchers.ScaNN(
                rows[:count],
                metric,
                searchers.ScaNNSettings(**settings),
                os.path.join(directory, _SCANN),
            )
            return base if count == len(rows) else amended.Amended(base, rows)
        except ImportError as error:
            say(f"{error}; comparing with all {len(rows):,} rows instead")
    return searchers.BruteForce(rows, metric)


def _write_entries(directory: str, entries: Iterable[Entry]) -> None:
    lines = os.path.join(directory, _ENTRIES)
    images = os.path.join(directory, _THUMBNAILS)
    with open(lines, "w", encoding="utf-8") as file, open(images, "wb") as small:
        small.write(_TITLE)
        for entry in entries:
            fields = {name: getattr(entry, name) for name in _FIELDS}
            fields["thumbnail_bytes"] = len(entry.thumbnail)
            # ASCII, because file names need not be UTF-8.
            file.write(json.dumps(fields) + "\n")
            small.write(entry.thumbnail)


def _read_entries(directory: str, thumbnails: bool) -> Iterator[Entry]:
    lines = os.path.join(directory, _ENTRIES)
    images = os.path.join(directory, _THUMBNAILS)
    with open(lines, encoding="utf-8") as file, open(images, "rb") as small:
        if small.read(len(_TITLE)) != _TITLE:
            small.seek(0)
        for line in file:
            fields = json.loads(line)
            count = fields.pop("thumbnail_bytes")
            thumbnail = small.read(count) if thumbnails else b""
            fields["box"] = tuple(fields["box"])
            yield Entry(**fields, thumbnail=thumbnail)


def _account(directory: str) -> dict[str, dict[str, Any]]:
    """Returns size and SHA-256 of each file in a folder, by relative path."""
    found = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, directory).replace(os.sep, "/")
            found[relative] = {
                "bytes": os.path.getsize(path),
                "sha256": files.sha256(path),
            }
    return dict(sorted(found.items()))


def _check_file(path: str, wanted: dict[str, Any]) -> None:
    try:
        size = os.path.getsize(path)
    except OSError as error:
        raise ValueError(f"the index is damaged: {path} is missing.") from error
    if size != wanted["bytes"]:
        raise ValueError(
            f"the index is damaged: {path} must have {wanted['bytes']} bytes, "
            f"got {size}."
        )
    if files.sha256(path) != wanted["sha256"]:
        raise ValueError(f"the index is damaged: {path} has other content.")
