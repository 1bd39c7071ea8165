"""Finds, reads and writes files on this machine or on any file system of Apache Beam.

Paths without a scheme are this machine's own and are read as `dfdetect detect` reads
them, whatever bytes are in their names. URLs such as `gs://bucket/a.jpg` go through
Beam's `FileSystems`, which is imported for them only.
"""

import contextlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

from dfdetect import files
from dfdetect.media import file_kinds, source_files

_T = TypeVar("_T")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MAGIC = re.compile(r"[*?\[]")
_PAUSES = (1.0, 5.0)  # Seconds before the second and the third try.
_BLOCK = 2**20  # Bytes.


def is_url(path: str) -> bool:
    """Whether a path is on a file system of Beam rather than this machine's."""
    return bool(_URL.match(path))


def identify(path: str) -> str:
    """Shortens a path to what names the same file in each run: absolute, or a URL."""
    return path if is_url(path) else os.path.abspath(path)


def list_files(pattern: str, apart: str = "") -> Iterator[source_files.FoundFile]:
    """Yields the files that a pattern names, of any kind; hidden ones are left out.

    Args:
        pattern: A file, a folder, which is searched recursively, or a pattern, in which
            `**` stands for any number of folders.
        apart: A folder whose files are left out; "" for none.

    Raises:
        FileNotFoundError: Nothing matches.
        OSError: The file system cannot be listed.
    """
    if is_url(pattern):
        found = _list_urls(pattern, apart)
    else:
        is_local = apart and not is_url(apart)
        output = os.path.realpath(apart) if is_local else ""
        found = source_files.list_files(pattern, output)
    is_empty = True
    for one in found:
        is_empty = False
        yield one
    if is_empty:
        raise FileNotFoundError(f"no file matches {pattern}")


def _list_urls(pattern: str, apart: str) -> Iterator[source_files.FoundFile]:
    has_magic = bool(_MAGIC.search(pattern))
    paths = _match(pattern)
    if has_magic or pattern not in paths:
        folder = pattern.rstrip("/")
        paths = paths if has_magic else _match(f"{folder}/**")
        fixed = _MAGIC.split(pattern)[0] if has_magic else f"{folder}/"
        beginning = fixed.rfind("/") + 1
        # The pattern may name what is hidden.
        start = len(fixed) if fixed[beginning:].startswith(".") else beginning
        apart = f"{apart.rstrip('/')}/" if apart else ""
        for path in sorted(paths):
            is_hidden = path.endswith("/") or any(
                x.startswith(".") for x in path[start:].split("/")
            )
            if not is_hidden and not (apart and path.startswith(apart)):
                yield source_files.FoundFile(path, path.rsplit("/", 1)[-1])
    else:
        yield source_files.FoundFile(pattern, pattern.split("/")[-1], is_named=True)


def _match(pattern: str) -> list[str]:
    """Lists the URLs that match a pattern; none is not an error."""
    found = _try_thrice(lambda: _file_systems().match([pattern]))
    return [one.path for one in found[0].metadata_list]


def read(path: str) -> bytes:
    """Reads a file, of at most `files.MAX_BYTES`.

    Raises:
        OSError: It cannot be read, after three tries for a URL, or is larger.
    """
    if not is_url(path):
        return files.read(path)
    content = _try_thrice(lambda: _read_url(path, files.MAX_BYTES + 1))
    if len(content) > files.MAX_BYTES:
        raise OSError(f"larger than {files.MAX_BYTES >> 20} MiB")
    return content


def look_into(path: str, look: Callable[[IO[bytes]], _T]) -> _T:
    """Calls a function with an open file, of which it may read parts only.

    Args:
        path: The file, of any size.
        look: Called again, up to three times in all, if it fails for a URL.

    Raises:
        OSError: The file cannot be read.
    """
    if not is_url(path):
        with open(path, "rb") as file:
            return look(file)

    def try_once() -> _T:
        with _open_url(path) as file:
            return look(file)

    return _try_thrice(try_once)


def identify_kind(path: str) -> str:
    """Identifies the kind of a file as `file_kinds.identify_file` does."""
    if not is_url(path):
        return file_kinds.identify_file(path)
    try:
        head = _try_thrice(lambda: _read_url(path, file_kinds.HEAD_BYTES))
    except OSError:
        return file_kinds.UNKNOWN
    return file_kinds.identify_bytes(head)


@contextlib.contextmanager
def open_local(path: str) -> Iterator[str]:
    """Yields the path of a file on this machine: the file itself, or a copy for a URL.

    The copy lies in the folder of temporary files and is removed at the end.

    Raises:
        OSError: It cannot be read, after three tries for a URL, or not be copied.
    """
    if not is_url(path):
        yield path
        return
    suffix = os.path.splitext(path)[1]
    with tempfile.NamedTemporaryFile(prefix="dfdetect-", suffix=suffix) as copy:

        def fetch() -> None:
            copy.seek(0)
            copy.truncate()
            with _open_url(path) as file:
                shutil.copyfileobj(file, copy, _BLOCK)
            copy.flush()

        _try_thrice(fetch)
        yield copy.name


def write(path: str, content: bytes) -> None:
    """Writes a file aside and renames it, replacing an older one.

    Raises:
        OSError: It cannot be written.
    """
    if not is_url(path):
        files.write(path, content)
        return
    systems = _file_systems()
    aside = f"{path}.{secrets.token_hex(8)}.tmp"

    def put() -> None:
        with systems.create(aside, compression_type=_uncompressed()) as file:
            file.write(content)
        if systems.exists(path):  # Not all file systems rename onto another file.
            systems.delete([path])
        systems.rename([aside], [path])

    _try_thrice(put)


def exists(path: str) -> bool:
    """Whether there is a file."""
    if not is_url(path):
        return os.path.exists(path)
    return _try_thrice(lambda: _file_systems().exists(path))


def list_prefix(prefix: str) -> list[str]:
    """Lists the files whose paths begin with `prefix`, of one folder."""
    if is_url(prefix):
        return sorted(_match(f"{prefix}*"))
    folder, beginning = os.path.split(prefix)
    if not os.path.isdir(folder or os.curdir):
        return []
    names = sorted(os.listdir(folder or os.curdir))
    return [os.path.join(folder, name) for name in names if name.startswith(beginning)]


def _read_url(path: str, most: int) -> bytes:
    with _open_url(path) as file:
        return file.read(most)


def _open_url(path: str) -> Any:
    # Or Beam would unpack files by the endings of their names.
    return _file_systems().open(path, compression_type=_uncompressed())


def _file_systems() -> Any:
    from apache_beam.io import filesystems

    return filesystems.FileSystems


def _uncompressed() -> str:
    from apache_beam.io import filesystem

    return filesystem.CompressionTypes.UNCOMPRESSED


def _try_thrice(function: Callable[[], _T]) -> _T:
    """Calls a function of a file system up to three times.

    Raises:
        OSError: All failed, or there is no such file.
    """
    for pause in (*_PAUSES, None):
        try:
            return function()
        except FileNotFoundError:
            raise
        # Each file system raises errors of its own libraries.
        except Exception as error:
            if pause is None:
                raise OSError(" ".join(str(error).split()) or repr(error)) from error
            time.sleep(pause)
    raise AssertionError
