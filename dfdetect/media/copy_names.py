"""Names of the copies of input files: distinct, and short enough to be written."""

import os
import pathlib
from collections.abc import Iterable, Sequence

CHART_SUFFIX = ".png"  # Of the chart beside the copy of a clip.

_MAX_NAME_BYTES = 255  # On most file systems.


def choose_names(
    files: Sequence[tuple[str, bool]], output: str = "", taken: Iterable[str] = ()
) -> list[str]:
    """Chooses distinct names for copies of files.

    Args:
        files: Name of each file, relative to the folder that was searched, and whether
            it is a clip.
        output: Folder of the copies, which need not exist; "" if none are written.
        taken: Names that other copies have.

    Returns:
        The names, which end in .jpg, .jpeg or .png, or in .mp4 for a clip. Distinct
        also from each other's charts and, where case is ignored, in lower case;
        shortened to what the file system of `output` allows.
    """
    longest = _max_name_bytes(output) if output else _MAX_NAME_BYTES
    # A folder may have such a name, too.
    used = {
        str(folder).casefold()
        for name, _ in files
        for folder in pathlib.PurePath(name).parents
    }
    for name in taken:
        used |= {name.casefold(), f"{name}{CHART_SUFFIX}".casefold()}
    numbers: dict[str, int] = {}
    return [_unused(name, used, numbers, is_clip, longest) for name, is_clip in files]


def _unused(
    name: str, used: set[str], numbers: dict[str, int], is_clip: bool, longest: int
) -> str:
    """Returns a name with a suffix that can be written, numbered if it is taken.

    Args:
        name: Name relative to the folder of the copies.
        used: Names that are taken; those of this file are added.
        numbers: The next number to try, by name; else thousands of equal names would
            each try all numbers from 1 on.
        is_clip: Whether a chart is written as well.
        longest: Most bytes of a name; longer ones are shortened.
    """
    stem, suffix = os.path.splitext(name)
    folder, stem = os.path.split(stem)
    if is_clip:
        suffix = ".mp4"
    elif suffix.lower() not in (".jpg", ".jpeg", ".png"):
        suffix = ".png"
    wanted = os.path.join(folder, stem + suffix).casefold()
    number = numbers.get(wanted, 1)
    while True:
        ending = suffix if number == 1 else f"-{number}{suffix}"
        room = longest - len(ending) - (len(CHART_SUFFIX) if is_clip else 0)
        name = os.path.join(folder, _cut(stem, room) + ending)
        taken = [name, f"{name}{CHART_SUFFIX}"] if is_clip else [name]
        # Some file systems ignore case.
        names = {x.casefold() for x in taken}
        if not names & used:
            used |= names
            numbers[wanted] = number + 1
            return name
        number += 1


def _cut(stem: str, num_bytes: int) -> str:
    """Shortens a name to at most `num_bytes`, in whole characters."""
    while len(os.fsencode(stem)) > num_bytes:
        stem = stem[:-1]
    return stem


def _max_name_bytes(folder: str) -> int:
    """Returns the longest file name, in bytes, in a folder that need not exist."""
    folder = os.path.abspath(folder)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return _MAX_NAME_BYTES
