"""Runs a model over a validation or test set and measures what it says."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import calibration, data, heads, images
from dfdetect.metrics import classification, detection

# Average precision wants the doubtful detections, too.
_SCORE_THRESHOLD = 0.01
_MAX_DETECTIONS = 100

Function = Callable[[tf.Tensor], Any]
Pair = tuple[np.ndarray, np.ndarray]


def measure(
    model: keras.Model,
    manifest: dict[str, Any],
    builder: tfds.core.DatasetBuilder,
    split: str,
    batch_size: int = 16,
) -> dict[str, float]:
    """The figures of a trained model on a split of a prepared data set.

    Args:
        model: A detector or classifier, see `model_directory`.
        manifest: Its manifest.
        builder: A prepared data set of pictures with heads, or of head crops.
        split: "train", "validation" or "test".
        batch_size: Pictures at once.

    Returns:
        For a detector those of `metrics.detection.evaluate`, for a classifier those of
        `metrics.classification.summary` over calibrated probabilities.
    """
    source = (builder, split, manifest["image_size"], batch_size)
    if manifest["kind"] == "detector":
        batches = data.detector_evaluation(*source)
        found, truth, _ = detections(detect_function(model), batches)
        return detection.evaluate(found, truth)
    crops = data.classifier_evaluation(*source)
    logits, truths = classifier_logits(logits_function(model), crops)
    probabilities = calibration.probability(logits, manifest["temperature"])
    return classification.summary(truths, probabilities)


def logits_function(model: keras.Model) -> Function:
    """A traced function from crops `[B, S, S, 3]` to a classifier's logits `[B]`."""
    return tf.function(lambda crops: model(crops, training=False)[:, 0])


def classifier_logits(
    logits_function: Function, batches: tf.data.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Fake logits and labels, `[N]` each, of `data.classifier_evaluation`."""
    pairs = [(logits_function(crops), truths) for crops, truths in batches]
    logits, truths = zip(*pairs, strict=True)
    return np.concatenate(logits), np.concatenate(truths)


def detect_function(model: keras.Model) -> Function:
    """The `heads.detector_function` whose boxes are measured."""
    described = {
        "image_size": model.input_shape[1],
        "max_detections": _MAX_DETECTIONS,
        "iou_threshold": 0.5,
    }
    return heads.detector_function(model, described, _SCORE_THRESHOLD)


def detections(
    detect_function: Function, batches: tf.data.Dataset
) -> tuple[list[Pair], list[Pair], np.ndarray]:
    """What a detector finds in `data.detector_evaluation`, and what is there.

    Returns:
        Boxes and scores of each picture, and true boxes and whether they are difficult;
        both as `metrics.detection.evaluate` takes them, boxes of the originals. Then
        the heights and widths `[N, 2]` of the originals in pixels.
    """
    found, truth, extents = [], [], []
    for batch in batches:
        detected = detect_function(batch["images"])
        boxes, scores = detected["boxes"], detected["scores"]
        for index, count in enumerate(detected["num_heads"].numpy()):
            height, width = batch["extents"][index].numpy()
            upright = images.unletterbox_boxes(boxes[index, :count], height, width)
            extents.append((height, width))
            found.append((upright.numpy(), scores[index, :count].numpy()))
            truth.append(
                (batch["boxes"][index].numpy(), batch["difficult"][index].numpy())
            )
    return found, truth, np.reshape(extents, (-1, 2))
