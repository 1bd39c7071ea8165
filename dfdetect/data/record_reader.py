"""Reads serialized records from any places of many files, several at once."""

import concurrent.futures
import contextlib
import functools
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.data import array_file

_THREADS = 16  # Reads at once: a disk of many queues and an object store want them.
_MOST_OPEN = 256  # Files that a reader keeps open.


class RecordReader:
    """Reads records by file, offset and length; files stay open between reads.

    Args:
        paths: Paths of the files, local or remote.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)
        self._lock = threading.Lock()
        self._idle: dict[int, list[tf.io.gfile.GFile]] = {}
        self._num_open = 0

    def read(
        self,
        files: np.ndarray,
        offsets: np.ndarray,
        lengths: np.ndarray,
        checksums: np.ndarray,
    ) -> list[bytes]:
        """Reads records, in parallel and by their places in the files.

        Args:
            files: `[B]`, places of the files among `paths`.
            offsets: `[B]`, where the records begin, in bytes.
            lengths: `[B]`, their lengths in bytes.
            checksums: `[B]`, their CRC-32.

        Raises:
            ValueError: A record is not as it was; names file and offset.
        """
        order = np.lexsort([offsets, files])
        columns = (files, offsets, lengths, checksums)
        wanted = [*zip(*(column[order].tolist() for column in columns), strict=True)]
        size = -(-len(wanted) // _THREADS)
        parts = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        if len(parts) == 1:
            found = [self._read_part(parts[0])]
        else:
            found = list(_threads().map(self._read_part, parts))
        contents: list[bytes] = [b""] * len(wanted)
        read = (content for part in found for content in part)
        for place, content in zip(order.tolist(), read, strict=True):
            contents[place] = content
        return contents

    def _read_part(self, wanted: Sequence[tuple[int, int, int, int]]) -> list[bytes]:
        return [self._read_one(*one) for one in wanted]

    def _read_one(self, number: int, offset: int, length: int, checksum: int) -> bytes:
        path = self._paths[number]
        try:
            with self._borrow(number) as file:
                content = _read_at(file, offset, length)
        except (tf.errors.OpError, OSError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if zlib.crc32(content) != checksum:
            raise ValueError(
                f"{path} is damaged (the record at byte {offset} was changed); prepare "
                "the data set again."
            )
        return content

    @contextlib.contextmanager
    def _borrow(self, number: int) -> Iterator:
        """A file that no other thread uses meanwhile."""
        with self._lock:
            idle = self._idle.setdefault(number, [])
            file = idle.pop() if idle else None
            self._num_open -= file is not None
        path = self._paths[number]
        if file is None:
            remote = array_file.is_remote(path)
            file = tf.io.gfile.GFile(path, "rb") if remote else open(path, "rb", 0)
        yield file
        with self._lock:
            if keep := self._num_open < _MOST_OPEN:
                self._idle[number].append(file)
                self._num_open += 1
        if not keep:
            file.close()


def _read_at(file: Any, offset: int, length: int) -> bytes:
    if hasattr(file, "fileno"):
        # Not `seek` and `read`: one call, and without a buffer between.
        return os.pread(file.fileno(), length, offset)
    file.seek(offset)
    return file.read(length)


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(_THREADS, "read-records")
