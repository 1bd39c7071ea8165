"""Finds the input files of a command.

A folder is searched recursively for images and, if wanted, clips; symbolic links to
folders and hidden names are skipped. A pattern that the shell left alone is expanded,
and a file that is named explicitly is always taken. The kind of a file is identified by
its first bytes, or by its suffix if they are unknown; of a file that is named
explicitly, FFmpeg is asked before.
"""

import dataclasses
import glob
import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dfdetect.media import copy_names, file_kinds, image_status

# Formats that `dfdetect.media.decode` reads.
IMAGE_SUFFIXES = tuple(
    ".apng .bmp .dib .gif .jfif .jif .jpe .jpeg .jpg .pjp .pjpeg .png .webp".split()
)
# Common formats that FFmpeg reads. Not .ts, which may be TypeScript.
CLIP_SUFFIXES = tuple(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg "
    ".mts .mxf .ogm .ogv .qt .vob .webm .wmv .y4m".split()
)


@dataclasses.dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: Path as given, or as found in the given folder.
        copy: Path of the image or clip made from it, relative to an output folder; ends
            in .jpg, .jpeg or .png, or in .mp4 for a clip. Distinct from the `copy` and
            `chart` of all other sources. Shortened to what the file system allows.
        problem: Why the file cannot be read, if that is already known.
        is_clip: Whether it is a clip.
    """

    path: str
    copy: str
    problem: str = ""
    is_clip: bool = False

    @property
    def chart(self) -> str:
        """Path of the chart of a clip's probabilities, beside its copy."""
        return self.copy + copy_names.CHART_SUFFIX


def find_sources(
    paths: Sequence[str],
    output: str = "",
    clips: bool = False,
    passed_over: Counter[str] | None = None,
    shard: tuple[int, int] | None = None,
) -> tuple[list[Source], list[str]]:
    """Finds the inputs that `paths` name, each once, in the order of `paths`.

    Args:
        paths: Files, folders and patterns.
        output: Folder for copies of the inputs, which is not searched, or "".
        clips: Whether clips are wanted besides images.
        passed_over: Counter to which the other files in folders are added, by
            `file_kinds.name_passed_over`.
        shard: Number of a shard, from 0 on, and the number of all shards: only the
            files that `choose_shard` gives to it are looked at. None for all files.

    Returns:
        The inputs, and those of `paths` without any input or file of another shard.

    Raises:
        ValueError: An input is in `output`, where its copy could overwrite it.
    """
    sources: list[Source] = []
    barren = []
    seen: set[str] = set()
    others: dict[str, str] = {}
    passed_over = Counter() if passed_over is None else passed_over
    for path in paths:
        folder = os.path.realpath(output) if output else ""
        is_barren = True
        for one in list_files(path, folder):
            key = os.path.abspath(one.path)
            if shard and choose_shard(key, shard[1]) != shard[0]:
                is_barren = False
                continue
            kind = _identify(one)
            source = select_source(one, kind, clips)
            if source is None:
                if key not in seen:
                    others[key] = file_kinds.name_passed_over(one.path, kind)
                continue
            is_barren = False
            if output and _is_below(one.path, output):
                raise ValueError(f"{one.path} lies in the output folder {output}.")
            if key not in seen:
                seen.add(key)
                sources.append(source)
        if is_barren:
            barren.append(path)
    # Some may also have been named explicitly.
    passed_over.update(label for key, label in others.items() if key not in seen)
    return name_copies(sources, output), barren


def name_copies(
    sources: Sequence[Source], output: str, taken: Iterable[str] = ()
) -> list[Source]:
    """Gives the copies of sources distinct names, see `copy_names.choose_names`."""
    names = copy_names.choose_names(
        [(source.copy, source.is_clip) for source in sources], output, taken
    )
    return [
        dataclasses.replace(source, copy=name)
        for source, name in zip(sources, names, strict=True)
    ]


def _identify(found: "FoundFile") -> str:
    if found.problem:
        return file_kinds.UNKNOWN
    kind = file_kinds.identify_file(found.path)
    if kind == file_kinds.UNKNOWN and found.is_named and os.path.isfile(found.path):
        # Imported here, as it loads FFmpeg.
        from dfdetect.media import clip_decoding

        if clip_decoding.is_container(found.path):
            return file_kinds.OTHER_CLIP
    return kind


def choose_shard(path: str, num_shards: int) -> int:
    """Chooses the shard of a file, from 0 on, by a hash of its path.

    Each path is in one shard, in every process, on every machine and in every version.

    Args:
        path: Absolute path or URL.
        num_shards: Number of shards.
    """
    digest = hashlib.sha256(os.fsencode(path)).digest()
    return int.from_bytes(digest[:8], "big") % num_shards


def select_source(found: "FoundFile", kind: str, clips: bool) -> Source | None:
    """Returns the source that a file is, or None for a file to pass over.

    Args:
        found: The file.
        kind: See `file_kinds.identify_bytes`.
        clips: Whether clips are wanted besides images.
    """
    is_clip = _is_clip(found.path, kind)
    is_image = not is_clip and _is_image(found.path, kind)
    # A clip with the suffix of an image is reported instead of skipped.
    is_wanted = is_image or (clips and is_clip) or has_image_suffix(found.path)
    if not (is_wanted or found.is_named or found.problem):
        return None
    problem = found.problem
    if is_clip and not clips:
        problem = f"a clip ({kind or 'by its name'}); wanted is an image"
    return Source(found.path, found.copy, problem, is_clip and clips)


def has_image_suffix(path: str) -> bool:
    """Whether a file name has the suffix of an image."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def _is_image(path: str, kind: str) -> bool:
    return file_kinds.is_image(kind) or has_image_suffix(path)


def _is_clip(path: str, kind: str) -> bool:
    if file_kinds.is_clip(kind):
        return True
    return not file_kinds.is_image(kind) and path.lower().endswith(CLIP_SUFFIXES)


def find_sample() -> str:
    """Returns the path of matplotlib's portrait of Grace Hopper, in the public domain.

    Raises:
        FileNotFoundError: matplotlib is installed without its sample data.
    """
    # Importing matplotlib takes a second, for which `--help` should not wait.
    package = importlib.util.find_spec("matplotlib")
    folders = package.submodule_search_locations if package else None
    folder = os.path.join(*(folders or [""]), "mpl-data", "sample_data")
    path = os.path.join(folder, "grace_hopper.jpg")
    if not os.path.exists(path):
        raise FileNotFoundError(f"no sample portrait here ({path}); name a PATH.")
    return path


@dataclasses.dataclass(frozen=True)
class FoundFile:
    """A file of any kind.

    Attributes:
        path: See `Source`.
        copy: Name of the file, relative to the folder that was searched.
        problem: See `Source`.
        is_named: Whether it was named explicitly, not by a folder or pattern.
    """

    path: str
    copy: str
    problem: str = ""
    is_named: bool = False


def list_files(path: str, output: str = "") -> Iterator[FoundFile]:
    """Yields the files that `path` names, of any kind.

    Args:
        path: A file, folder or pattern.
        output: Real path of a folder that neither folders nor patterns search, or "".
    """
    if os.path.isdir(path):
        yield from _walk(path, output)
    elif os.path.lexists(path) or not glob.has_magic(path):
        yield FoundFile(path, os.path.basename(path), is_named=True)
    else:
        for match in expand_pattern(path):
            if output and _is_below(match, output):
                continue
            if os.path.isdir(match):
                yield from _walk(match, output)
            else:
                yield FoundFile(match, os.path.basename(match))


def expand_pattern(pattern: str) -> list[str]:
    """Lists the files and folders that a pattern names, sorted, each once.

    As `glob.glob(pattern, recursive=True)`, but `**` neither enters nor names linked
    folders, which may lead back to where they lie.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return sorted(glob.glob(pattern))
    place = parts.index("**")
    rest = os.sep.join(parts[place + 1 :]) or "*"
    start = os.sep.join(parts[:place]) or (os.sep if place else os.curdir)
    found: set[str] = set()
    for root in glob.glob(start):
        for folder, folders, _ in os.walk(root):
            folders[:] = [name for name in folders if name[0] != "."]
            within = os.path.join(glob.escape(folder), "").removeprefix("./")
            found.update(expand_pattern(within + rest))
    return sorted(x for x in found if not (os.path.islink(x) and os.path.isdir(x)))


def _walk(root: str, output: str) -> Iterator[FoundFile]:
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
            # Skips pipes, which would block, but not broken links, which are reported.
            readable = os.path.isfile(path) or not os.path.exists(path)
            if name[0] != "." and readable:
                yield FoundFile(path, os.path.relpath(path, root))
    for problem in problems:
        path = os.fspath(problem.filename)
        reason = problem.strerror or "cannot be listed"
        yield FoundFile(path, os.path.basename(path), reason)


def _is_below(path: str, folder: str) -> bool:
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath((path, folder)) == folder


def describe_unread(status: str, content: bytes) -> str:
    """Describes why an image has no result; "" if it has one.

    Args:
        status: One of `image_status.STATUS_NAMES`.
        content: The bytes of the file.
    """
    if status == "unreadable":
        return file_kinds.describe_unreadable(content)
    if status == "too_large":
        return image_status.TOO_LARGE_REASON
    return ""


def find_images(
    patterns: Sequence[str], passed_over: Counter[str] | None = None
) -> list[str]:
    """Finds images in folders, by globs or by .txt lists; returns them sorted.

    Args:
        patterns: Folders, globs and .txt files.
        passed_over: Counter to which the other files are added, by
            `file_kinds.name_passed_over`.

    Raises:
        FileNotFoundError: A pattern finds no image, or a list names what is not there.
    """
    found: set[str] = set()
    others: dict[str, str] = {}
    for pattern in patterns:
        if pattern.endswith(".txt"):
            with open(pattern, encoding="utf-8") as file:
                candidates = [line for line in file.read().splitlines() if line]
            gone = [line for line in candidates if not os.path.exists(line)]
            if gone:
                raise FileNotFoundError(
                    f"{pattern} must list files that are there, got {len(gone)} that "
                    f"are not, the first {gone[0]!r}."
                )
        else:
            candidates = [found.path for found in list_files(pattern)]
        files = [candidate for candidate in candidates if os.path.isfile(candidate)]
        kinds = {file: file_kinds.identify_file(file) for file in files}
        images_here = {file for file in files if file_kinds.is_image(kinds[file])}
        if not images_here:
            raise FileNotFoundError(f"No image was found at {pattern}.")
        found |= images_here
        others |= {file: kinds[file] for file in files if file not in images_here}
    if passed_over is not None:
        passed_over.update(
            file_kinds.name_passed_over(*pair) for pair in others.items()
        )
    return sorted(found)
