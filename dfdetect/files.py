"""Reads files, writes them atomically, hashes them, and describes errors."""

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator

# 64 megapixels of uncompressed 16-bit RGBA. Anything larger is a device or disk image
# rather than an image, and would fill the memory.
MAX_BYTES = 512 * 2**20

_BLOCK = 2**20  # Bytes.

_ASIDE = re.compile(r"\.dfdetect\.[0-9a-f]{16}\.tmp")
# A file that is being written changes more often, whatever machine writes it.
_LEFT_AFTER = 3600.0  # Seconds.


def read(path: str) -> bytes:
    """Reads a file.

    Raises:
        OSError: The file cannot be read, or is larger than `MAX_BYTES`.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"larger than {MAX_BYTES >> 20} MiB")
    return content


@contextlib.contextmanager
def name_errors(path: str | os.PathLike) -> Iterator[None]:
    """Adds the file name to system errors that lack one, such as that of a full disk.

    Errors with a file name are unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def open_atomic(path: str) -> Iterator[io.BufferedWriter]:
    """Opens a temporary file for writing, and renames it to `path` when complete.

    Raises:
        OSError: The file cannot be written; names `path`, and nothing is left behind.
    """
    folder = os.path.dirname(path)
    # Threads, and processes on machines that share the folder, write at the same time.
    aside = os.path.join(folder, f".dfdetect.{secrets.token_hex(8)}.tmp")
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
    """Writes a file atomically: to a temporary file that is then renamed.

    Raises:
        OSError: The file cannot be written; names `path`, and nothing is left behind.
    """
    with open_atomic(path) as file:
        file.write(content)


def replace_folder(new: str, folder: str, old: str) -> None:
    """Renames `new` to `folder`; what was there stays if that fails.

    Args:
        new: A complete folder.
        folder: Path of a folder, a link to one, or nothing.
        old: A path beside it that is free, where what was there lies meanwhile.

    Raises:
        OSError: The folder cannot be replaced.
    """
    if not os.path.lexists(folder):
        os.rename(new, folder)
        return
    os.rename(folder, old)
    try:
        os.rename(new, folder)
    except BaseException:
        os.rename(old, folder)
        raise
    remove_folder(old)


def remove_folder(path: str) -> None:
    """Removes a folder, or a link to one but not what it leads to, as far as it can."""
    if os.path.islink(path):
        _remove(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: str) -> None:
    """Removes what killed processes of `open_atomic` have left in a folder, if any.

    Only files that have not changed for an hour: others may be in use.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _ASIDE.fullmatch(entry.name) and _is_left(entry):
                _remove(entry.path)


def _is_left(entry: os.DirEntry) -> bool:
    with contextlib.suppress(OSError):
        changed = entry.stat(follow_symlinks=False).st_mtime
        return entry.is_file() and time.time() - changed > _LEFT_AFTER
    return False


def write_all(file: io.RawIOBase, content: bytes) -> None:
    """Writes all of `content` to an unbuffered file, which may accept only a part.

    Raises:
        OSError: The file cannot be written.
    """
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]


def describe_error(error: OSError) -> str:
    """Describes an error for the user, with the name of the file if it is known."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return reason
    return f"{os.fsdecode(error.filename)!r}: {reason}"


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)


def sha256(path: str | os.PathLike) -> str:
    """Returns the SHA-256 digest of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
