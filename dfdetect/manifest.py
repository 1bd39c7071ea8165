"""Reads, checks and writes `manifest.json`, the metadata of a model or index.

It is stored beside all weights and in the assets of all exported graphs: sizes, crop
margin, thresholds, temperature, label names, data fingerprint, versions and metrics. A
model without one, or with one of another kind, is rejected.
"""

import importlib.metadata
import json
import os
import platform
import zipfile
import zlib
from typing import Any

import dfdetect
from dfdetect import files

FILE_NAME = "manifest.json"

_PACKAGES = ("tensorflow", "keras", "keras-cv", "numpy", "tensorflow-datasets")

# Keys that each kind must have; others are allowed.
_REQUIRED = {
    "detector": (
        "phi",
        "image_size",
        "anchor_scale",
        "num_classes",
        "score_threshold",
        "iou_threshold",
        "max_detections",
        "labels",
    ),
    "classifier": (
        "model",
        "image_size",
        "crop_margin",
        "temperature",
        "thresholds",
        "labels",
    ),
    "content": ("image_size",),
    "pipeline": (
        "format",
        "detector",
        "classifier",
        "max_detections",
        "min_head_size",
    ),
    "index": (
        "format",
        "count",
        "dimension",
        "metric",
        "searcher",
        "wanted_searcher",
        "embedding",
        "familiarity",
        "files",
    ),
}


def collect_versions() -> dict[str, str]:
    """Returns versions of dfdetect, Python and the libraries that affect a model."""
    found = {"dfdetect": dfdetect.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def check(manifest: Any, kind: str, source: str = "the manifest") -> dict[str, Any]:
    """Returns `manifest` if it is complete and of this kind.

    Args:
        manifest: Parsed JSON.
        kind: "detector", "classifier", "content", "pipeline" or "index".
        source: Where it comes from, for the error message.

    Raises:
        ValueError: The manifest is of another kind, or a key is missing.
    """
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        came = manifest.get("kind") if isinstance(manifest, dict) else manifest
        raise ValueError(f"{source} must be of kind {kind!r}, got {came!r}.")
    missing = [key for key in _REQUIRED[kind] if key not in manifest]
    if missing:
        raise ValueError(f"{source} lacks {', '.join(missing)}.")
    if kind == "classifier":
        lacking = {"real_below", "fake_from"} - set(manifest["thresholds"])
        if lacking:
            raise ValueError(
                f"thresholds of {source} lack {', '.join(sorted(lacking))}."
            )
    if kind == "pipeline":
        for part in ("detector", "classifier"):
            check(manifest[part], part, f"{part} of {source}")
    return manifest


def read(directory: str | os.PathLike, kind: str) -> dict[str, Any]:
    """Reads and checks `manifest.json` of a directory.

    Args:
        directory: A folder, or a packed model, see `model_directory.pack`.
        kind: See `check`.

    Raises:
        FileNotFoundError: The directory has no manifest.
        ValueError: The manifest is not JSON, is of another kind, or lacks a key, or a
            file is not a packed model.
    """
    if os.path.isfile(directory):
        return _read_packed(os.fspath(directory), kind)
    return read_file(os.path.join(directory, FILE_NAME), kind)


def read_file(path: str, kind: str) -> dict[str, Any]:
    """Reads and checks a manifest, like `read`, from a file of any name."""
    with open(path, "rb") as file:
        return _parse(file.read(), kind, path)


def _read_packed(path: str, kind: str) -> dict[str, Any]:
    """Reads and checks the manifest of a packed model."""
    try:
        with zipfile.ZipFile(path) as packed:
            content = packed.read(FILE_NAME)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        # `str` of a KeyError would add quotes.
        reason = error.args[0] if error.args else type(error).__name__
        raise ValueError(
            f"{path} must be a folder with a {FILE_NAME}, or a file that "
            f"train/release.py packed: {reason}."
        ) from error
    return _parse(content, kind, path)


def _parse(content: bytes, kind: str, path: str) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except ValueError as error:  # Invalid JSON or encoding.
        raise ValueError(f"{path} must be JSON: {error}.") from error
    return check(manifest, kind, path)


def write(directory: str | os.PathLike, manifest: dict[str, Any]) -> str:
    """Writes `manifest.json` into a directory, atomically.

    Returns:
        The path of the file.

    Raises:
        ValueError: The manifest is of an unknown kind, or incomplete.
    """
    kind = manifest.get("kind")
    if kind not in _REQUIRED:
        raise ValueError(f"kind must be one of {sorted(_REQUIRED)}, got {kind!r}.")
    check(manifest, kind)
    path = os.path.join(directory, FILE_NAME)
    text = json.dumps(manifest, indent=2, sort_keys=True)
    files.write(path, f"{text}\n".encode())
    return path
