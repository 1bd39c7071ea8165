"""The graph of the default weights, kept on disk so that a command starts sooner.

To build the models, trace and fold them takes longer than all else that a command does
with a few pictures. The graph lies in the user's cache folder, not beside the weights:
an installed package may be read-only, and is not ours to grow.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dfdetect import graphs

_PACKAGE = pathlib.Path(__file__).parent
_KEPT = 4  # Graphs of other versions and settings; a graph takes some 50 MB.


def load(tile: bool, say: Callable[[str], None]) -> Any:
    """Loads the graph of the default weights, and makes it where there is none yet.

    Args:
        tile: See `graphs.from_directories`.
        say: Prints a line.

    Returns:
        A `graphs.LoadedPipeline`, or, where it cannot be kept, a
        `pipeline.DeepfakePipeline`.

    Raises:
        FileNotFoundError: The package came without default weights.
    """
    directory = folder() / _key(tile)
    # Without a home there is no absolute path, and nowhere to keep it.
    if directory.is_absolute() and directory.is_dir():
        try:
            model = graphs.load(str(directory))
            os.utime(directory)
            return model
        except (ValueError, OSError, tf.errors.OpError):
            # Cut short, by a full disk say: it is made anew.
            shutil.rmtree(directory, ignore_errors=True)
    say("preparing the graph of the default weights; the next start is faster")
    graph = graphs.from_directories(tile=tile).folded()
    if directory.is_absolute():
        # A full disk, say, or another process was faster: this one answers as well.
        with contextlib.suppress(OSError, tf.errors.OpError):
            directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            graph.save(str(directory))
            _drop_oldest(directory.parent)
    return graph


def folder() -> pathlib.Path:
    """Where the graphs lie: `$XDG_CACHE_HOME/dfdetect`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return pathlib.Path(os.path.expanduser(base)) / "dfdetect"


def _key(tile: bool) -> str:
    """A name for the graph that this code makes of these weights."""
    digest = hashlib.sha256()
    files = [*_PACKAGE.rglob("*.py"), *(_PACKAGE / "default_weights").rglob("*.*")]
    for file in sorted(files):
        digest.update(f"{file.relative_to(_PACKAGE)}\0".encode())
        digest.update(file.read_bytes())
    for name in ("tensorflow", "keras", "keras-cv"):
        digest.update(f"{name} {importlib.metadata.version(name)}\0".encode())
    return f"graph-{digest.hexdigest()[:16]}{'-tile' if tile else ''}"


def _drop_oldest(parent: pathlib.Path) -> None:
    """Removes all graphs but those that were used last."""
    found = sorted(parent.glob("graph-*"), key=lambda x: x.stat().st_mtime)
    for directory in found[:-_KEPT]:
        shutil.rmtree(directory, ignore_errors=True)
