"""Runs a model over a validation or test set and measures what it says."""

import keras
import numpy as np
import tensorflow as tf

from dfdetect import images, postprocess
from dfdetect.metrics import detection

# Average precision wants the doubtful detections, too.
_SCORE_THRESHOLD = 0.01
_MAX_DETECTIONS = 100


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
