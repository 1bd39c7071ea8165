"""Reads files, writes them aside and renames them, and says what went wrong."""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator

# 64 megapixels of 16-bit RGBA without compression. More is not an image but a device
# or a disk image, and would fill the memory.
MAX_BYTES = 512 * 2**20

_BLOCK = 2**20  # Bytes.


def read(path: str) -> bytes:
    """Reads a file.

    Raises:
        OSError: It cannot be read, or is larger than `MAX_BYTES`.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"larger than {MAX_BYTES >> 20} MiB")
    return content


@contextlib.contextmanager
def name_errors(path: str | os.PathLike) -> Iterator[None]:
    """Makes errors of the system that name no file name this one.

    The error of a full disk, say, names none. Errors about other files pass.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def replacing(path: str) -> Iterator[io.BufferedWriter]:
    """A file to write aside; renamed at the end, so that it is never seen half done.

    Raises:
        OSError: It cannot be written; names `path`, and nothing is left behind.
    """
    folder = os.path.dirname(path)
    aside = os.path.join(folder, f".dfdetect.{os.getpid()}.tmp")
    try:
        os.makedirs(folder or os.curdir, exist_ok=True)
        with name_errors(aside), open(aside, "wb") as file:
            yield file
        os.replace(aside, path)
    except OSError as error:
        _remove(aside)
        if error.errno is None or error.filename not in (aside, folder):
            raise
        raise OSError(error.errno, error.strerror, path) from error
    except BaseException:
        _remove(aside)
        raise


def write(path: str, content: bytes) -> None:
    """Writes a file aside and renames it, so that it is never seen half done.

    Raises:
        OSError: It cannot be written; names `path`, and nothing is left behind.
    """
    with replacing(path) as file:
        file.write(content)


def write_all(file: io.RawIOBase, content: bytes) -> None:
    """Writes to a file without a buffer, which may take less at once.

    Raises:
        OSError: It takes no more.
    """
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]


def describe_error(error: OSError) -> str:
    """What went wrong, in words for a person, behind the file's name if it is known."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return reason
    return f"{os.fsdecode(error.filename)!r}: {reason}"


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)


def sha256(path: str | os.PathLike) -> str:
    """The digest of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
