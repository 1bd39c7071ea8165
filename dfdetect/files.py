"""Finds the files that a command names, reads them, and names copies of them.

A folder is walked recursively for image files and, where they are wanted, clips
(symbolic links to folders and hidden names are passed over), a pattern that the shell
left alone is expanded, and a file that is named outright is taken whatever its name.
"""

import contextlib
import dataclasses
import glob
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

# What the decoder reads; see dfdetect.images.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")

# What FFmpeg reads of what people have. In folders not .ts, which rather is a program.
CLIP_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".ogv", ".webm", ".wmv"),
)
_NAMED_CLIP_SUFFIXES = (*CLIP_SUFFIXES, ".ts")

# 64 megapixels of 16-bit RGBA without compression. More is not a picture but a device
# or a disk image, and would fill the memory.
MAX_BYTES = 512 * 2**20

MAX_PIXELS = 64_000_000  # Of an image, or of a frame of a clip.

_BLOCK = 2**20  # Bytes.


@dataclasses.dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        path: As given, or as found below the folder given.
        copy: Where a picture made from it goes, relative to an output folder; ends in
            .jpg, .jpeg or .png, or of a clip in .mp4. No two sources share one, nor
            the `chart` of a clip.
        problem: Why it is known already that it cannot be read.
        is_clip: Whether it is a clip, by its name.
    """

    path: str
    copy: str
    problem: str = ""
    is_clip: bool = False

    @property
    def chart(self) -> str:
        """Where the picture of a clip's probabilities goes, beside its copy."""
        return f"{self.copy}.png"


def find(
    paths: Sequence[str], output: str = "", clips: bool = False
) -> tuple[list[Source], list[str]]:
    """Finds the inputs that `paths` name, each once, in the order of `paths`.

    Args:
        paths: Files, folders and patterns.
        output: A folder that holds copies of inputs, no inputs, or "".
        clips: Whether clips are wanted besides pictures.

    Returns:
        The inputs, and those of `paths` that name none.

    Raises:
        ValueError: An input lies in `output`, and its copy could overwrite it.
    """
    sources: list[Source] = []
    barren = []
    seen: set[str] = set()
    copies: set[str] = set()
    suffixes = IMAGE_SUFFIXES + (CLIP_SUFFIXES if clips else ())
    for path in paths:
        folder = os.path.realpath(output) if output else ""
        found = list(_expand(path, folder, suffixes))
        if not found:
            barren.append(path)
        for file, copy, problem in found:
            if output and _is_below(file, output):
                raise ValueError(f"{file} lies in the output folder {output}.")
            key = os.path.abspath(file)
            if key not in seen:
                seen.add(key)
                is_clip = clips and file.lower().endswith(_NAMED_CLIP_SUFFIXES)
                name = _unused(copy, copies, is_clip)
                sources.append(Source(file, name, problem, is_clip))
    return sources, barren


def sample() -> str:
    """The portrait that matplotlib installs: Grace Hopper, in the public domain.

    Raises:
        FileNotFoundError: This matplotlib came without its sample data.
    """
    # Importing matplotlib would take a second, and the help would wait for it.
    package = importlib.util.find_spec("matplotlib")
    folders = package.submodule_search_locations if package else None
    folder = os.path.join(*(folders or [""]), "mpl-data", "sample_data")
    path = os.path.join(folder, "grace_hopper.jpg")
    if not os.path.exists(path):
        raise FileNotFoundError(f"no sample portrait here ({path}); name a PATH.")
    return path


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
def replacing(path: str) -> Iterator[BinaryIO]:
    """A file to write aside; renamed at the end, so that it is never seen half done."""
    folder = os.path.dirname(path)
    os.makedirs(folder or os.curdir, exist_ok=True)
    aside = os.path.join(folder, f".dfdetect.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            yield file
        os.replace(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.remove(aside)
        raise


def write(path: str, content: bytes) -> None:
    """Writes a file aside and renames it, so that it is never seen half done."""
    with replacing(path) as file:
        file.write(content)


def sha256(path: str | os.PathLike) -> str:
    """The digest of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _expand(
    path: str, output: str, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    """Yields path, name of the copy and problem of each input that `path` names."""
    if os.path.isdir(path):
        yield from _walk(path, output, suffixes)
    elif os.path.lexists(path) or not glob.has_magic(path):
        yield path, os.path.basename(path), ""
    else:
        for match in sorted(glob.glob(path, recursive=True)):
            if os.path.isdir(match):
                yield from _walk(match, output, suffixes)
            elif match.lower().endswith(suffixes):
                yield match, os.path.basename(match), ""


def _walk(
    root: str, output: str, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    problems: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=problems.append):
        folders[:] = sorted(
            name
            for name in folders
            if name[0] != "."
            and (not output or os.path.realpath(os.path.join(folder, name)) != output)
        )
        for name in sorted(names):
            path = os.path.join(folder, name)
            # A pipe would be waited for; a broken link shall be said.
            readable = os.path.isfile(path) or not os.path.exists(path)
            if name[0] != "." and name.lower().endswith(suffixes) and readable:
                yield path, os.path.relpath(path, root), ""
    for problem in problems:
        path = os.fspath(problem.filename)
        yield path, os.path.basename(path), problem.strerror or "cannot be listed"


def _is_below(path: str, folder: str) -> bool:
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath((path, folder)) == folder


def _unused(name: str, used: set[str], is_clip: bool) -> str:
    """The name with a suffix that can be written, and numbered when it is taken."""
    stem, suffix = os.path.splitext(name)
    if is_clip:
        suffix = ".mp4"
    elif suffix.lower() not in (".jpg", ".jpeg", ".png"):
        suffix = ".png"
    number = 1
    while True:
        name = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
        # Some file systems do not tell cases apart.
        names = {x.casefold() for x in ([name, f"{name}.png"] if is_clip else [name])}
        if not names & used:
            used |= names
            return name
        number += 1
