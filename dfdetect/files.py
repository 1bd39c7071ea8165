"""Finds the files that a command names, reads them, and names copies of them.

A folder is walked recursively for images and, where they are wanted, clips (symbolic
links to folders and hidden names are passed over). A pattern that the shell left alone
is expanded, and a file that is named outright is taken whatever it is. What a file is
its first bytes tell; its ending counts where they tell nothing.
"""

import contextlib
import dataclasses
import glob
import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from dfdetect import file_kinds

# Endings of what the decoder reads; see dfdetect.images.
IMAGE_SUFFIXES = (
    *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg"),
    *(".pjp", ".pjpeg", ".png", ".webp"),
)

# Of what FFmpeg reads of what people have. Not .ts, which may be a program.
CLIP_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2ts", ".m2v"),
    *(".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv"),
    *(".qt", ".vob", ".webm", ".wmv", ".y4m"),
)

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
        is_clip: Whether it is a clip.
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
    paths: Sequence[str],
    output: str = "",
    clips: bool = False,
    passed_over: Counter[str] | None = None,
) -> tuple[list[Source], list[str]]:
    """Finds the inputs that `paths` name, each once, in the order of `paths`.

    Args:
        paths: Files, folders and patterns.
        output: A folder that holds copies of inputs, no inputs, or "".
        clips: Whether clips are wanted besides images.
        passed_over: To it, the files in folders that are neither are added, by
            `file_kinds.label`.

    Returns:
        The inputs, and those of `paths` that name none.

    Raises:
        ValueError: An input lies in `output`, and its copy could overwrite it.
    """
    sources: list[Source] = []
    barren = []
    seen: set[str] = set()
    others: dict[str, str] = {}
    copies: set[str] = set()
    passed_over = Counter() if passed_over is None else passed_over
    for path in paths:
        folder = os.path.realpath(output) if output else ""
        is_barren = True
        for one in _expand(path, folder):
            kind = file_kinds.UNKNOWN if one.problem else file_kinds.of_file(one.path)
            is_clip = _is_clip(one.path, kind)
            is_image = not is_clip and _is_image(one.path, kind)
            # A clip that has the name of an image shall be told, not passed over.
            is_wanted = is_image or (clips and is_clip) or has_suffix_of_image(one.path)
            key = os.path.abspath(one.path)
            if not (is_wanted or one.is_named or one.problem):
                if key not in seen:
                    others[key] = file_kinds.label(one.path, kind)
                continue
            is_barren = False
            if output and _is_below(one.path, output):
                raise ValueError(f"{one.path} lies in the output folder {output}.")
            if key not in seen:
                seen.add(key)
                problem = one.problem
                if is_clip and not clips:
                    problem = f"a clip ({kind or 'by its name'}); wanted is an image"
                name = _unused(one.copy, copies, is_clip and clips)
                sources.append(Source(one.path, name, problem, is_clip and clips))
        if is_barren:
            barren.append(path)
    # Some may have been named outright besides.
    passed_over.update(label for key, label in others.items() if key not in seen)
    return sources, barren


def has_suffix_of_image(path: str) -> bool:
    """Whether a file is called like an image."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def _is_image(path: str, kind: str) -> bool:
    return file_kinds.is_image(kind) or has_suffix_of_image(path)


def _is_clip(path: str, kind: str) -> bool:
    if file_kinds.is_clip(kind):
        return True
    return not file_kinds.is_image(kind) and path.lower().endswith(CLIP_SUFFIXES)


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


@dataclasses.dataclass(frozen=True)
class _Found:
    path: str
    copy: str  # Name of the copy.
    problem: str = ""
    is_named: bool = False  # Outright.


def _expand(path: str, output: str) -> Iterator[_Found]:
    """Yields the files that `path` names, whatever they are."""
    if os.path.isdir(path):
        yield from _walk(path, output)
    elif os.path.lexists(path) or not glob.has_magic(path):
        yield _Found(path, os.path.basename(path), is_named=True)
    else:
        for match in sorted(glob.glob(path, recursive=True)):
            if os.path.isdir(match):
                yield from _walk(match, output)
            else:
                yield _Found(match, os.path.basename(match))


def _walk(root: str, output: str) -> Iterator[_Found]:
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
            if name[0] != "." and readable:
                yield _Found(path, os.path.relpath(path, root))
    for problem in problems:
        path = os.fspath(problem.filename)
        reason = problem.strerror or "cannot be listed"
        yield _Found(path, os.path.basename(path), reason)


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
