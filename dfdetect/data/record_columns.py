"""What the records of a prepared split say, in a file of columns beside its shards.

`datasets/prepare.py` writes it; a split without one, or with one that does not fit its
shards any more, is read once and the file made anew: beside the shards where that is
writable, else in the user's cache. From then on a start maps it into memory, and reads
no byte of the shards.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import array_file, coded_texts, column_building, records
from dfdetect.media import headers

_FORMAT = 2  # Files of others are made anew.
_ABOUT = "about"  # The array that says what a file was made from, as JSON.
_PLACES = ("starts", "offset", "length", "checksum")
_CODES, _NAMES, _ENDS = "codes/", "names/", "ends/"
_FILES_AT_ONCE = 16


class Columns:
    """Columns of the records of a split, in the order of their files.

    Args:
        arrays: See `column_building.build`; texts are in `codes/`, `names/` and
            `ends/`, see `coded_texts.pack`.
        paths: Paths of the shards.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], paths: Sequence[str]) -> None:
        self._arrays, self.paths = arrays, list(paths)
        self._texts = {
            name.removeprefix(_CODES): coded_texts.CodedTexts(
                codes, functools.partial(self._unpack, name.removeprefix(_CODES))
            )
            for name, codes in arrays.items()
            if name.startswith(_CODES)
        }

    def __len__(self) -> int:
        return len(self._arrays["offset"])

    def __contains__(self, name: str) -> bool:
        return name in self._arrays or name in self._texts

    def is_text(self, name: str) -> bool:
        """Whether a column is one of texts."""
        return name in self._texts

    def numbers(self, name: str) -> np.ndarray:
        """Returns a column of numbers, memory-mapped."""
        return self._arrays[name]

    def texts(self, name: str) -> coded_texts.CodedTexts:
        """Returns a column of texts."""
        return self._texts[name]

    def kinds(self) -> tuple[str, ...]:
        """Returns the kinds of the image files, those of `headers.SIGNATURES`."""
        found = np.unique(self.numbers("kind"))
        names = enumerate(headers.SIGNATURES, start=1)
        return tuple(name for number, name in names if number in found)

    def _unpack(self, name: str) -> list[str]:
        return coded_texts.unpack(
            self._arrays[_NAMES + name], self._arrays[_ENDS + name]
        )


def open_columns(builder: tfds.core.DatasetBuilder, split: str) -> Columns:
    """Opens the columns of a split; reads all of it if there are none that fit.

    Raises:
        ValueError: A shard is missing, cut short or changed.
    """
    shards = records.list_shards(builder, split)
    sizes = _measure(builder, shards)
    paths = [path for path, _ in shards]
    own = _path_beside(builder, split)
    cached = _path_in_cache(own)
    for path in (own, cached):
        about = _describe(builder, shards, sizes, with_times=path == cached)
        found = _load(path, about, _stamp(path))
        if found is not None:
            return Columns(found, paths)
    arrays = _pack(column_building.build(builder, split))
    for path in (own, cached):
        about = _describe(builder, shards, sizes, with_times=path == cached)
        try:
            array_file.write(path, {_ABOUT: _encode(about), **arrays})
        except OSError:
            continue
        found = _load(path, about, _stamp(path))
        if found is not None:
            return Columns(found, paths)
    return Columns(arrays, paths)


def write_columns(builder: tfds.core.DatasetBuilder) -> None:
    """Makes the columns of all splits of a data set that has none that fit.

    Raises:
        ValueError: A shard is missing, cut short or changed.
    """
    for split in builder.info.splits:
        open_columns(builder, split)


def forget() -> None:
    """Forgets what this process has opened, as if it had just started."""
    _load_known.cache_clear()


def _path_beside(builder: tfds.core.DatasetBuilder, split: str) -> str:
    return os.path.join(os.fspath(builder.data_path), f"columns-{split}.npz")


def _path_in_cache(path: str) -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    whole = path if array_file.is_remote(path) else os.path.abspath(path)
    name = hashlib.sha256(whole.encode()).hexdigest()[:32]
    folder = os.path.join(os.path.expanduser(base), "dfdetect", "columns")
    return os.path.join(folder, f"{name}.npz")


def _measure(
    builder: tfds.core.DatasetBuilder, shards: Sequence[tuple[str, int | None]]
) -> list[tuple[int, int]]:
    """Sizes in bytes and times of change in nanoseconds of the shards."""

    def measure(path: str) -> tuple[int, int]:
        try:
            found = tf.io.gfile.stat(path)
        except tf.errors.OpError as error:
            raise ValueError(
                records.describe_damage(builder, path, str(error.message))
            ) from error
        return found.length, found.mtime_nsec

    with concurrent.futures.ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return list(pool.map(measure, (path for path, _ in shards)))


def _describe(
    builder: tfds.core.DatasetBuilder,
    shards: Sequence[tuple[str, int | None]],
    sizes: Sequence[tuple[int, int]],
    with_times: bool,
) -> dict[str, Any]:
    """Describes what columns are made from; those that say the same are the same.

    Beside the shards the times do not count, as a copy of all is as good; in the cache
    they do, as other shards may have taken the place of those of before.
    """
    return {
        "format": _FORMAT,
        "fields": column_building.list_fields(builder),
        "fingerprint": dict(builder.info.metadata or {}).get("fingerprint"),
        "shards": [
            [os.path.basename(path), count, *(size if with_times else size[:1])]
            for (path, count), size in zip(shards, sizes, strict=True)
        ],
    }


def _encode(about: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)


def _stamp(path: str) -> tuple[int, int] | None:
    """Size and time of change of a file; None where there is none."""
    try:
        found = tf.io.gfile.stat(path)
    except tf.errors.OpError:
        return None
    return found.length, found.mtime_nsec


def _load(
    path: str, about: Mapping[str, Any], stamp: tuple[int, int] | None
) -> dict[str, np.ndarray] | None:
    """Loads a file of columns; None if it is not there, is damaged, or does not fit."""
    if stamp is None:
        return None
    return _load_known(path, _encode(about).tobytes(), stamp)


@functools.lru_cache(maxsize=32)
def _load_known(
    path: str, about: bytes, stamp: tuple[int, int]
) -> dict[str, np.ndarray] | None:
    # By its stamp, so that a file is checked once in a process, unless it changes.
    local = path
    try:
        if array_file.is_remote(path):
            local = f"{_path_in_cache(path)}.{stamp[0]}.{stamp[1]}"
            if not os.path.exists(local):
                os.makedirs(os.path.dirname(local), exist_ok=True)
                aside = f"{local}.{os.getpid()}.tmp"
                tf.io.gfile.copy(path, aside, overwrite=True)
                os.replace(aside, local)
        arrays = array_file.read(local)
    except (array_file.DamagedError, OSError, tf.errors.OpError):
        return None
    found = arrays.get(_ABOUT)
    if found is None or found.tobytes() != about:
        return None
    fields = [f"field/{name}" for name in json.loads(about)["fields"]]
    there = {name.removeprefix(_CODES) for name in arrays}
    return arrays if there.issuperset([*_PLACES, *fields]) else None


def _pack(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a file of columns."""
    arrays = {}
    for name, column in columns.items():
        if isinstance(column, coded_texts.CodedTexts):
            arrays[_CODES + name] = column.codes
            content, ends = coded_texts.pack(column.names)
            arrays[_NAMES + name], arrays[_ENDS + name] = content, ends
        else:
            arrays[name] = column
    return arrays
