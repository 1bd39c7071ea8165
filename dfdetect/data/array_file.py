"""Named arrays in one file that is memory-mapped: an uncompressed `.npz` of NumPy.

`numpy.load` reads it as well. When a file is opened, the CRC-32 of every array is
compared, so that one that was cut short or changed is noticed.
"""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO

import numpy as np
import tensorflow as tf

from dfdetect import files

_BLOCK = 2**22  # Bytes.
_ENDING = ".npy"


class DamagedError(ValueError):
    """A file is not a file of arrays, or not what was written."""


def write(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays aside, then renames the file to `path`, local or remote.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    if not is_remote(path):
        with files.open_atomic(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
        return
    aside = f"{path}.{os.getpid()}.tmp"
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "arrays.npz")
        write(local, arrays)
        try:
            tf.io.gfile.copy(local, aside, overwrite=True)
            tf.io.gfile.rename(aside, path, overwrite=True)
        except tf.errors.OpError as error:
            raise OSError(f"{path}: {error.message}") from error


def is_remote(path: str) -> bool:
    """Whether a path is one that only `tf.io.gfile` reads, such as `gs://...`."""
    return "://" in path


def read(path: str) -> dict[str, np.ndarray]:
    """Maps the arrays of a local file into memory, read-only, after a check of them.

    The check reads the file once, in blocks that are not kept.

    Raises:
        DamagedError: It is not as it was written.
        OSError: It cannot be read.
    """
    arrays = {}
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED:
                    raise DamagedError(f"{path} must not be compressed.")
                start = _find_content(file, info)
                _check(file, start, info, path)
                name = info.filename.removesuffix(_ENDING)
                arrays[name] = _map(path, file, start)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path} is damaged ({error}).") from error
    return arrays


def _find_content(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the content of a member begins: after its header, name and extra field."""
    file.seek(info.header_offset)
    header = file.read(30)  # APPNOTE 4.3.7: the lengths are its last four bytes.
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no header of a member")
    name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    return info.header_offset + 30 + name + extra


def _check(file: IO[bytes], start: int, info: zipfile.ZipInfo, path: str) -> None:
    file.seek(start)
    left, checksum = info.file_size, 0
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise DamagedError(f"{path} is cut short.")
        checksum = zlib.crc32(block, checksum)
        left -= len(block)
    if checksum != info.CRC:
        raise DamagedError(f"{path} is damaged: {info.filename} was changed.")


def _map(path: str, file: IO[bytes], start: int) -> np.ndarray:
    file.seek(start)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(file)
    if 0 in shape:
        return np.zeros(shape, dtype)  # Nothing cannot be mapped.
    return np.memmap(path, dtype, "r", file.tell(), shape)
