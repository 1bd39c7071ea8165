"""Loads models from model directories: `manifest.json` and `weights.npz`.

The directory of a training holds further steps, see `kept_steps`. A packed model is one
file: the .npz file of the weights with the manifest in it.
"""

import logging
import os
import shutil
import zipfile
from typing import Any

import keras

from dfdetect import labels, manifest
from dfdetect.models import (
    classifier,
    content_embedding,
    efficientdet,
    kept_steps,
    weights,
)

# Weights that `dfdetect` uses by default, and the name that stands for them.
DEFAULT_WEIGHTS = os.path.join(os.path.dirname(__file__), "..", "default_weights")
DEFAULT_NAME = "default"

Loaded = tuple[keras.Model, dict[str, Any]]

_log = logging.getLogger(__name__)


def is_default(directory: str | None) -> bool:
    """Whether a directory's name stands for the default weights."""
    return not directory or directory == DEFAULT_NAME


def load_detector(
    directory: str | None = None,
    image_size: int | None = None,
    step: int | None = None,
) -> Loaded:
    """Builds the detector of a model directory.

    Args:
        directory: Its model directory or packed model; None or `DEFAULT_NAME` for the
            default weights.
        image_size: Side of its input in pixels; that of its manifest by default. The
            weights fit any.
        step: A step that its training keeps; by default the best.

    Returns:
        The `EfficientDet`, and its manifest with that size.

    Raises:
        FileNotFoundError: The directory lacks a file, or the step is not kept.
        ValueError: The manifest is not a detector's, or the weights do not fit.
    """
    described, path = _find(directory, "detector", step)
    described["image_size"] = image_size or described["image_size"]
    model = efficientdet.EfficientDet(
        phi=described["phi"],
        num_classes=described["num_classes"],
        image_size=described["image_size"],
        anchor_scale=described["anchor_scale"],
        weighted_bifpn=described.get("weighted_bifpn"),
        # Manifests older than Lite lack it.
        lite=described.get("lite", False),
    )
    weights.load(model, path)
    return model, described


def load_classifier(
    directory: str | None = None,
    image_size: int | None = None,
    step: int | None = None,
) -> Loaded:
    """Builds the classifier of a model directory.

    Args:
        directory: Its model directory or packed model; None or `DEFAULT_NAME` for the
            default weights.
        image_size: Side of its input in pixels; that of its manifest by default.
        step: See `load_detector`.

    Returns:
        The classifier, images to fake logits, and its manifest.

    Raises:
        FileNotFoundError: The directory lacks a file, or the step is not kept.
        ValueError: The manifest is not a classifier's, its labels are not ours, or the
            weights do not fit.
    """
    described, path = _find(directory, "classifier", step)
    if described["labels"] != list(labels.NAMES):
        raise ValueError(
            f"labels of {path} must be {list(labels.NAMES)}, got {described['labels']}."
        )
    size = image_size or described["image_size"]
    model = classifier.build(described["model"], size)
    weights.load(model, path)
    return model, described


def load_content_network() -> keras.Model:
    """Builds the network by which content is embedded; see `content_embedding`."""
    described, path = _find(None, "content", None)
    network = content_embedding.build_network(described["image_size"])
    weights.load(network, path)
    return network


def list_files(directory: str) -> list[str]:
    """Lists the files of a model: two of a folder, or the packed model itself."""
    if os.path.isfile(directory):
        return [directory]
    names = (manifest.FILE_NAME, weights.FILE_NAME)
    return [os.path.join(directory, name) for name in names]


def pack(directory: str, path: str) -> None:
    """Packs a model directory into one file, written aside and renamed.

    Args:
        directory: Folder of `manifest.json` and `weights.npz`; nothing else is packed.
        path: The packed file; an existing one is replaced.

    Raises:
        OSError: A file is missing, or the new one cannot be written.
    """
    aside = f"{path}.{os.getpid()}.tmp"
    try:
        shutil.copyfile(os.path.join(directory, weights.FILE_NAME), aside)
        with zipfile.ZipFile(aside, "a", zipfile.ZIP_DEFLATED) as packed:
            packed.write(
                os.path.join(directory, manifest.FILE_NAME), manifest.FILE_NAME
            )
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.remove(aside)


def _find(
    directory: str | None, kind: str, step: int | None
) -> tuple[dict[str, Any], str]:
    """Finds the manifest and the path of the weights."""
    if directory is None or is_default(directory):
        if step is not None:
            raise ValueError(f"step needs the folder of its training, got {step}.")
        directory = os.path.join(DEFAULT_WEIGHTS, kind)
    if step is None:
        return manifest.read(directory, kind), directory
    path = kept_steps.find(directory, step)
    beside = f"{path}{kept_steps.MANIFEST_ENDING}"
    if os.path.exists(beside):
        return {**manifest.read_file(beside, kind), "step": step}, path
    described = manifest.read(directory, kind)
    figures = described.pop("metrics", {}).get("validation", {})
    _log.warning(
        "step %d of %s was not evaluated: its thresholds are those of step %s",
        step,
        directory,
        figures.get("step", "another"),
    )
    return {**described, "metrics": {}, "step": step}, path
