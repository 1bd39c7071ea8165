"""Finds the exported graph that a path names: itself, or the newest of its versions.

Imports nothing heavy, so that a wrong path is refused before TensorFlow is imported.
"""

import os
from collections.abc import Callable
from typing import overload

from dfdetect import manifest

_GRAPH_FILE = "saved_model.pb"


@overload
def find_graph(path: str, say: Callable[[str], None]) -> str: ...
@overload
def find_graph(path: None, say: Callable[[str], None]) -> None: ...
@overload
def find_graph(path: str | None, say: Callable[[str], None]) -> str | None: ...


def find_graph(path: str | None, say: Callable[[str], None]) -> str | None:
    """Returns the folder of an exported graph.

    Args:
        path: The graph, or a folder of versions named by numbers as `serve/export.py`
            writes and servers read it; None for the default weights.
        say: Called with a line on which version was chosen, where there was a choice.

    Returns:
        The path itself, or that of the version of the largest number that is complete;
        None for None.

    Raises:
        ValueError: There is no graph.
    """
    if path is None or _is_graph(path):
        return path
    versions = _list_versions(path)
    complete = [folder for folder in versions if _is_complete(folder)]
    if not complete:
        came = "nothing" if not os.path.exists(path) else "a file"
        if os.path.isdir(path):
            came = f"{len(versions)} incomplete" if versions else "neither"
        raise ValueError(
            f"{path} is not a graph of dfdetect: it must be a folder with a "
            f"{_GRAPH_FILE}, or one of versions named by numbers, got {came}."
        )
    newer = versions[: versions.index(complete[0])]
    note = f"; not complete: {', '.join(newer)}" if newer else ""
    say(f"{path} holds versions: taking the newest, {complete[0]}{note}")
    return complete[0]


def _list_versions(base: str) -> list[str]:
    """Lists the versions in a folder, newest first."""
    names = os.listdir(base) if os.path.isdir(base) else []
    numbered = [name for name in names if name.isascii() and name.isdecimal()]
    numbered.sort(key=lambda name: (int(name), name), reverse=True)
    paths = [os.path.join(base, name) for name in numbered]
    return [path for path in paths if os.path.isdir(path)]


def _is_graph(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, _GRAPH_FILE))


def _is_complete(folder: str) -> bool:
    described = os.path.join(folder, "assets", manifest.FILE_NAME)
    return _is_graph(folder) and os.path.isfile(described)
