"""Caches the graph of model directories on disk, so that a command starts sooner.

Building, tracing and folding the models takes longer than judging a few images. The
graph lies in the user's cache folder, not beside the weights: an installed package may
be read-only, and must not grow.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

import dfdetect
from dfdetect import manifest
from dfdetect.export import freezing, frozen_function, saved_pipeline
from dfdetect.models import model_directory
from dfdetect.pipeline import build, deepfake_pipeline, interfaces

_PACKAGE = pathlib.Path(__file__).parents[1]
# The sources that decide what the graph is.
_SOURCES = (
    "boxes.py",
    "labels.py",
    "manifest.py",
    "media",
    "metrics/calibration.py",
    "models",
    "pipeline",
    "export",
    "default_weights",
)
_EACH_TIME = (
    "each start takes as long as this one; XDG_CACHE_HOME can name another folder"
)
_LOCK = "lock"  # A file that the process that builds has locked.
_MOST_KEPT = 4  # Graphs of different versions and settings; each takes up to 120 MB.


class CachedPipeline:
    """A `DeepfakePipeline` of the default detector whose signatures are cached.

    Each signature is loaded when it is called first, or else built and kept.

    Args:
        directory: Folder that keeps the graph; None where none can.
        tile: See `build.build_from_directories`.
        say: Prints a line on what is being built, and why it cannot be kept.
        classifier: Its model directory or packed model; None for the default weights.

    Attributes:
        manifest: Manifest of the graph, of kind "pipeline".
        detect: See `interfaces.Pipeline`, as for the other signatures.
        neighbours: None, as there is no index.

    Raises:
        FileNotFoundError: The package came without default weights.
        ValueError: The classifier's weights do not fit.
    """

    detect: interfaces.Signature
    detect_frames: interfaces.Signature
    classify_crops: interfaces.Signature
    embed: interfaces.Signature
    embed_content: interfaces.Signature
    explain: interfaces.Signature

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
        self._can_keep = True  # As long as nothing has failed.
        self.manifest = self._read_manifest()
        self.neighbours = None
        for name, method in interfaces.SIGNATURES.items():
            setattr(self, method, _Signature(functools.partial(self._load, name)))

    def _read_manifest(self) -> dict[str, Any]:
        if described := self._read_kept_manifest():
            return described
        self._try_to_keep(lambda directory: None)  # Fails before the slow part.
        with _building_alone(self._directory):
            if described := self._read_kept_manifest():
                return described
            described = self._built.manifest

            def keep(directory: pathlib.Path) -> None:
                manifest.write(directory, described)
                _drop_oldest(directory.parent)

            self._try_to_keep(keep)
        return described

    def _read_kept_manifest(self) -> dict[str, Any]:
        """Reads the manifest from disk; empty where it is absent or damaged."""
        if self._directory:
            with contextlib.suppress(OSError, ValueError):
                return manifest.read(self._directory, "pipeline")
        return {}

    def _try_to_keep(self, keep: Callable[[pathlib.Path], object]) -> bool:
        """Writes something to the cache, or says once why that is impossible.

        Args:
            keep: Writes it to a folder.

        Returns:
            Whether it was written.
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
    def _built(self) -> deepfake_pipeline.DeepfakePipeline:
        """The graph, built from the models."""
        self._say(f"{self._preparing}: building the networks")
        built = build.build_from_directories(
            classifier=self._classifier, tile=self._tile
        )
        # What is fused for a processor does not run on a GPU.
        return freezing.freeze(built, for_this_machine=not freezing.has_gpu())

    def _load(self, name: str) -> Callable[..., Any]:
        """Loads one signature from disk, or else builds and keeps it."""
        if kept := self._load_kept(name):
            return kept
        with _building_alone(self._directory):
            if kept := self._load_kept(name):
                return kept
            built = getattr(self._built, interfaces.SIGNATURES[name])
            self._say(f"{self._preparing}: making the graph of {name}")
            if self._try_to_keep(
                lambda kept: frozen_function.save(built, kept / f"{name}.pb")
            ):
                self._say("prepared; the next start will be faster")
        return built

    def _load_kept(self, name: str) -> Callable[..., Any] | None:
        """Loads a signature; None where it is absent, or damaged, as by a full disk."""
        if not self._directory:
            return None
        with contextlib.suppress(OSError, ValueError):
            function = frozen_function.load(self._directory / f"{name}.pb")
            with contextlib.suppress(OSError):  # It may be read-only.
                os.utime(self._directory)
            return function
        return None


@contextlib.contextmanager
def _building_alone(directory: pathlib.Path | None) -> Iterator[None]:
    """Keeps other processes from building what one builds already, and waits for it."""
    with contextlib.ExitStack() as stack:
        if directory:
            # A folder may be read-only, and some file systems have no locks.
            with contextlib.suppress(OSError):
                file = stack.enter_context(open(directory / _LOCK, "ab"))
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Signature:
    """A function that is loaded when it is called first."""

    def __init__(self, load: Callable[[], Callable[..., Any]]) -> None:
        self._load = load

    @functools.cached_property
    def _function(self) -> Callable[..., Any]:
        loaded = self._load()
        return loaded if freezing.has_gpu() else freezing.without_grappler(loaded)

    def __call__(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._function(batch)


def load(
    exported: str | None,
    say: Callable[[str], None],
    tile: bool = False,
    classifier: str | None = None,
) -> saved_pipeline.LoadedPipeline | CachedPipeline:
    """Loads an exported graph, or that of the default detector and a classifier.

    Args:
        exported: See `saved_pipeline.load`; None for a `CachedPipeline`.
        say: Prints a line.
        tile: See `build.build_from_directories`; ignored for an exported graph.
        classifier: See `CachedPipeline`; ignored for an exported graph.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The path is not a graph or not a classifier of dfdetect.
    """
    if exported:
        return saved_pipeline.load(exported, say)
    directory = find_folder() / _compute_key(tile, classifier)
    if not directory.is_absolute():
        say(f"the graph cannot be kept without a home folder: {_EACH_TIME}")
        return CachedPipeline(None, tile, say, classifier)
    return CachedPipeline(directory, tile, say, classifier)


def find_folder() -> pathlib.Path:
    """Returns the folder of graphs, `$XDG_CACHE_HOME/dfdetect`; else in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return pathlib.Path(os.path.expanduser(base)) / "dfdetect"


def _compute_key(tile: bool, classifier: str | None) -> str:
    """Names the graph by all that it depends on: code, weights, libraries, machine."""
    digest = hashlib.sha256(f"dfdetect {dfdetect.__version__}\0".encode())
    for file in _list_sources():
        digest.update(f"{file.relative_to(_PACKAGE)}\0".encode())
        digest.update(file.read_bytes())
    for path in model_directory.list_files(classifier) if classifier else ():
        digest.update(b"classifier\0" + pathlib.Path(path).read_bytes())
    for name in ("tensorflow", "keras", "keras-cv"):
        digest.update(f"{name} {importlib.metadata.version(name)}\0".encode())
    # Machines may share a home, and not all have the operations of oneDNN.
    one_dnn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")
    device = "GPU" if freezing.has_gpu() else ""
    digest.update(f"{platform.machine()} {one_dnn}{device}\0".encode())
    return f"graph-{digest.hexdigest()[:16]}{'-tile' if tile else ''}"


def _list_sources() -> list[pathlib.Path]:
    """Lists the files of `_SOURCES`: code and weights."""
    files: set[pathlib.Path] = set()
    for name in _SOURCES:
        path = _PACKAGE / name
        files.update([path] if path.is_file() else path.rglob("*.*"))
    return sorted(file for file in files if file.suffix != ".pyc" and file.is_file())


def _drop_oldest(parent: pathlib.Path) -> None:
    """Removes all graphs except those that were used last."""
    found = sorted(parent.glob("graph-*"), key=lambda x: x.stat().st_mtime)
    for directory in found[:-_MOST_KEPT]:
        shutil.rmtree(directory, ignore_errors=True)
