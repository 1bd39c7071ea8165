"""Model directories: `manifest.json` and `weights.npz`, and the models they make."""

import os
from typing import Any

import keras

from dfdetect import labels, manifest
from dfdetect.models import classifier, efficientdet, weights

# What `dfdetect` takes when no model is named.
DEFAULT_WEIGHTS = os.path.join(os.path.dirname(__file__), "default_weights")

Loaded = tuple[keras.Model, dict[str, Any]]


def load_detector(
    directory: str | None = None, image_size: int | None = None
) -> Loaded:
    """Builds the detector that a directory holds.

    Args:
        directory: Its model directory; None for the default weights.
        image_size: Side of its input in pixels; that of its manifest by default. The
            weights fit any.

    Returns:
        The `EfficientDet`, and its manifest with that size.

    Raises:
        FileNotFoundError: The directory lacks a file.
        ValueError: The manifest is not a detector's, or the weights do not fit.
    """
    directory = directory or os.path.join(DEFAULT_WEIGHTS, "detector")
    described = manifest.read(directory, "detector")
    described["image_size"] = image_size or described["image_size"]
    model = efficientdet.EfficientDet(
        phi=described["phi"],
        num_classes=described["num_classes"],
        image_size=described["image_size"],
        anchor_scale=described["anchor_scale"],
        weighted_bifpn=described.get("weighted_bifpn"),
        # Manifests of before Lite do not tell.
        lite=described.get("lite", False),
    )
    weights.load(model, directory)
    return model, described


def load_classifier(
    directory: str | None = None, image_size: int | None = None
) -> Loaded:
    """Builds the classifier that a directory holds.

    Args:
        directory: Its model directory; None for the default weights.
        image_size: Side of its input in pixels; that of its manifest by default.

    Returns:
        The classifier, images to fake logits, and its manifest.

    Raises:
        FileNotFoundError: The directory lacks a file.
        ValueError: The manifest is not a classifier's, its labels are not ours, or the
            weights do not fit.
    """
    directory = directory or os.path.join(DEFAULT_WEIGHTS, "classifier")
    described = manifest.read(directory, "classifier")
    if described["labels"] != list(labels.NAMES):
        raise ValueError(
            f"labels of {directory} must be {list(labels.NAMES)}, "
            f"got {described['labels']}."
        )
    size = image_size or described["image_size"]
    model = classifier.build(described["model"], size)
    weights.load(model, directory)
    return model, described
