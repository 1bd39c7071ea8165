"""Reads files from a folder or from the ZIP file as it was downloaded."""

import functools
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.media import file_kinds


def list_members(root: str | os.PathLike) -> list[str]:
    """Lists the names of all files in a folder or ZIP file, with slashes, sorted.

    Hidden files and what macOS adds to a ZIP file are left out.

    Raises:
        ValueError: `root` is a file but not a ZIP file.
    """
    root = os.fspath(root)
    if tf.io.gfile.isdir(root):
        names: Iterable[str] = (
            os.path.relpath(os.path.join(folder, name), root)
            for folder, _, listed in tf.io.gfile.walk(root)
            for name in listed
        )
    else:
        names = [name for name in _open_zip(root).namelist() if name[-1] != "/"]
    return sorted(name for name in names if not _is_hidden(name))


def read_member(root: str | os.PathLike, name: str) -> bytes:
    """Reads a file in a folder or ZIP file.

    Raises:
        ValueError: The file is damaged, or cannot be read.
    """
    root = os.fspath(root)
    try:
        if tf.io.gfile.isdir(root):
            return tfds.core.Path(root, name).read_bytes()
        return _open_zip(root).read(name)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot be read ({error})") from error


def read_head(root: str | os.PathLike, name: str) -> bytes:
    """Reads the first bytes of a file, for `file_kinds`; empty if unreadable."""
    try:
        with tf.io.gfile.GFile(os.path.join(os.fspath(root), name), "rb") as file:
            return file.read(file_kinds.HEAD_BYTES)
    except tf.errors.OpError:
        return b""


def hash_file(path: str | os.PathLike) -> bytes:
    """Computes the SHA-256 digest of a file of any size."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(os.fspath(path), "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()


@functools.lru_cache(maxsize=16)
def _open_zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(tf.io.gfile.GFile(path, "rb"))
    # TensorFlow's refuses to seek before the start of a file that is too short.
    except (zipfile.BadZipFile, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"{path} is not a ZIP file, or was not downloaded to its end."
        ) from error


def _is_hidden(name: str) -> bool:
    return any(part[0] == "." or part == "__MACOSX" for part in name.split("/") if part)
