"""The graph of model directories, kept on disk so that a command starts sooner.

To build the models, trace and fold them takes longer than all else that a command does
with a few images. The graph lies in the user's cache folder, not beside the weights:
an installed package may be read-only, and is not ours to grow.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dfdetect import manifest
from dfdetect.export import freezing, frozen_function, saved_pipeline
from dfdetect.models import model_directory
from dfdetect.pipeline import build, deepfake_pipeline, interfaces

_PACKAGE = pathlib.Path(__file__).parents[1]
_EACH_TIME = (
    "each start takes as long as this one; XDG_CACHE_HOME can name another folder"
)
_KEPT = 4  # Graphs of other versions and settings; each takes up to 120 MB.


class CachedPipeline:
    """Called like the `DeepfakePipeline` of the default detector.

    Each signature is loaded when it is called first, and made then where it is not
    kept yet.

    Args:
        directory: Where it is kept; None where it cannot be.
        tile: See `build.from_directories`.
        say: Prints a line: what is being made, and why it cannot be kept.
        classifier: Its model directory or packed model; None for the default weights.

    Attributes:
        manifest: Its manifest, of kind "pipeline".
        neighbours: None; it has no index.

    Raises:
        FileNotFoundError: The package came without default weights.
        ValueError: The classifier's weights do not fit.
    """

    def __init__(
        self,
        directory: pathlib.Path | None,
        tile: bool,
        say: Callable[[str], None],
        classifier: str | None = None,
    ) -> None:
        self._tile = tile
        self._classifier = classifier
        self._preparing = f"preparing {classifier or 'the default weights'}"
        self._say = say
        self._directory = directory
        self._can_keep = True  # Until it is found out.
        self.manifest = self._read_manifest()
        self.neighbours = None
        for name, method in interfaces.SIGNATURES.items():
            setattr(self, method, _Signature(functools.partial(self._load, name)))

    def _read_manifest(self) -> dict[str, Any]:
        if self._directory:
            with contextlib.suppress(OSError, ValueError):
                return manifest.read(self._directory, "pipeline")
            self._try_to_keep(lambda directory: None)  # Told before the slow part.
        described = self._made.manifest

        def keep(directory: pathlib.Path) -> None:
            manifest.write(directory, described)
            _drop_oldest(directory.parent)

        self._try_to_keep(keep)
        return described

    def _try_to_keep(self, keep: Callable[[pathlib.Path], object]) -> bool:
        """Keeps something, or says once why nothing can be kept.

        Args:
            keep: Writes it below a folder.

        Returns:
            Whether it is kept.
        """
        if not self._directory or not self._can_keep:
            return False
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
            keep(self._directory)
        except OSError as error:
            self._say(
                f"the graph cannot be kept in {str(self._directory.parent)!r} "
                f"({error.strerror or error}): {_EACH_TIME}"
            )
            self._can_keep = False
            return False
        return True

    @functools.cached_property
    def _made(self) -> deepfake_pipeline.DeepfakePipeline:
        """The graph, made of the models."""
        self._say(f"{self._preparing}: building the networks")
        made = build.from_directories(classifier=self._classifier, tile=self._tile)
        return freezing.freeze(made, for_this_machine=True)

    def _load(self, name: str) -> Callable[..., Any]:
        """One signature, from disk or else made and kept."""
        method = interfaces.SIGNATURES[name]
        if self._directory:
            # Not there yet, or damaged, by a full disk say: it is made anew.
            with contextlib.suppress(OSError, ValueError):
                function = frozen_function.load(self._directory / f"{name}.pb")
                with contextlib.suppress(OSError):  # It may be read-only.
                    os.utime(self._directory)
                return function
        made = getattr(self._made, method)
        self._say(f"{self._preparing}: making the graph of {name}")
        if self._try_to_keep(
            lambda kept: frozen_function.save(made, kept / f"{name}.pb")
        ):
            self._say("prepared; the next start will be faster")
        return made


class _Signature:
    """A function that is loaded when it is called first."""

    def __init__(self, load: Callable[[], Callable[..., Any]]) -> None:
        self._load = load

    @functools.cached_property
    def _function(self) -> Callable[..., Any]:
        return self._load()

    def __call__(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._function(batch)


def load(
    exported: str | None,
    say: Callable[[str], None],
    tile: bool = False,
    classifier: str | None = None,
) -> saved_pipeline.LoadedPipeline | CachedPipeline:
    """An exported graph, or that of the default detector and a classifier.

    Args:
        exported: Its folder, see `saved_pipeline.load`; None for a `CachedPipeline`.
        say: Prints a line.
        tile: See `build.from_directories`; not of an exported graph.
        classifier: See `CachedPipeline`; not of an exported graph.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: What was named is no graph or no classifier of ours.
    """
    if exported:
        return saved_pipeline.load(exported)
    directory = folder() / _key(tile, classifier)
    if not directory.is_absolute():
        say(f"the graph cannot be kept without a home folder: {_EACH_TIME}")
        return CachedPipeline(None, tile, say, classifier)
    return CachedPipeline(directory, tile, say, classifier)


def folder() -> pathlib.Path:
    """Where graphs are kept: `$XDG_CACHE_HOME/dfdetect`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return pathlib.Path(os.path.expanduser(base)) / "dfdetect"


def _key(tile: bool, classifier: str | None) -> str:
    """A name for the graph that this code makes of these weights."""
    digest = hashlib.sha256()
    files = [*_PACKAGE.rglob("*.py"), *(_PACKAGE / "default_weights").rglob("*.*")]
    for file in sorted(files):
        digest.update(f"{file.relative_to(_PACKAGE)}\0".encode())
        digest.update(file.read_bytes())
    for path in model_directory.list_files(classifier) if classifier else ():
        digest.update(b"classifier\0" + pathlib.Path(path).read_bytes())
    for name in ("tensorflow", "keras", "keras-cv"):
        digest.update(f"{name} {importlib.metadata.version(name)}\0".encode())
    # The home may be another machine's, too: not each has the operations of oneDNN.
    one_dnn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")
    digest.update(f"{platform.machine()} {one_dnn}\0".encode())
    return f"graph-{digest.hexdigest()[:16]}{'-tile' if tile else ''}"


def _drop_oldest(parent: pathlib.Path) -> None:
    """Removes all graphs but those that were used last."""
    found = sorted(parent.glob("graph-*"), key=lambda x: x.stat().st_mtime)
    for directory in found[:-_KEPT]:
        shutil.rmtree(directory, ignore_errors=True)
