"""Runs a model over a validation or test set and measures what it says."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import calibration, data, images, postprocess
from dfdetect.metrics import classification, detection

# Average precision wants the doubtful detections, too.
_SCORE_THRESHOLD = 0.01
_MAX_DETECTIONS = 100


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
        For a detector those of `detector_figures`, for a classifier those of
        `metrics.classification.summary` over calibrated probabilities.
    """
    source = (builder, split, manifest["image_size"], batch_size)
    if manifest["kind"] == "detector":
        return detector_figures(model, data.detector_evaluation(*source))
    logits, truths = classifier_logits(model, data.classifier_evaluation(*source))
    probabilities = calibration.probability(logits, manifest["temperature"])
    return classification.summary(truths, probabilities)


def classifier_logits(
    model: keras.Model, batches: tf.data.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Fake logits and labels, `[N]` each, of `data.classifier_evaluation`."""
    predict = tf.function(lambda crops: model(crops, training=False)[:, 0])
    pairs = [(predict(crops), truths) for crops, truths in batches]
    logits, truths = zip(*pairs, strict=True)
    return np.concatenate(logits), np.concatenate(truths)


def detector_figures(
    model: keras.Model, batches: tf.data.Dataset, iou_threshold: float = 0.5
) -> dict[str, float]:
    """Average precision over `data.detector_evaluation`, boxes of the originals.

    Args:
        model: An `EfficientDet`.
        batches: As `data.detector_evaluation` gives them.
        iou_threshold: Least overlap of a right detection, and of duplicates.

    Returns:
        See `metrics.detection.evaluate`.
    """
    anchor_boxes = tf.constant(model.anchors.boxes)

    @tf.function(reduce_retracing=True)
    def detect(letterboxed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        class_logits, box_offsets = model(letterboxed, training=False)
        return postprocess.detections(
            class_logits,
            box_offsets,
            anchor_boxes,
            max_detections=_MAX_DETECTIONS,
            iou_threshold=0.5,
            score_threshold=_SCORE_THRESHOLD,
        )

    found, truth = [], []
    for batch in batches:
        boxes, scores, counts = detect(batch["images"])
        for index, count in enumerate(counts.numpy()):
            height, width = batch["extents"][index].numpy()
            upright = images.unletterbox_boxes(boxes[index, :count], height, width)
            found.append((upright.numpy(), scores[index, :count].numpy()))
            truth.append(
                (batch["boxes"][index].numpy(), batch["difficult"][index].numpy())
            )
    return detection.evaluate(found, truth, iou_threshold)
