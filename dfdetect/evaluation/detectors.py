"""Runs a detector over a validation or test set and collects what is measured."""

import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dfdetect.export import freezing
from dfdetect.media import resize
from dfdetect.pipeline import detector_settings, head_detection, image_batch
from dfdetect.training import distribute, objectives

# Average precision wants the doubtful detections, too.
_SCORE_THRESHOLD = 0.01
_MAX_DETECTIONS = 100
# Figures of `measure_losses`.
DETECTOR_LOSSES = ("val_loss", "val_class_loss", "val_box_loss")
_VIEWS_AT_ONCE = 8

Function = Callable[[tf.Tensor], Any]
Pair = tuple[np.ndarray, np.ndarray]


def build_detect_function(
    model: keras.Model,
    tile: bool = False,
    *,
    soft_nms_sigma: float = 0.0,
    precision: str | None = None,
    containment_threshold: float = 1.0,
) -> Function:
    """Builds the function that finds the boxes that are measured.

    Args:
        model: A detector.
        tile: Whether to look also at tiles of images that are larger than its input,
            see `tiling`.
        soft_nms_sigma: See `postprocess.select_class_detections`.
        precision: See `logits_function`.
        containment_threshold: See `postprocess.select_class_detections`.

    Returns:
        A function from a batch of `detector_input.build_evaluation_batches` to `boxes`
        `[B, N, 4]` of the originals, `scores` `[B, N]` and `num_heads` `[B]`.
    """
    size = model.input_shape[1]
    settings = detector_settings.DetectorSettings(
        image_size=size,
        max_detections=_MAX_DETECTIONS,
        iou_threshold=0.5,
        score_threshold=_SCORE_THRESHOLD,
        soft_nms_sigma=soft_nms_sigma,
        containment_threshold=containment_threshold,
        tile_size=size if tile else None,
    )
    detect = head_detection.build_detector_function(model, settings)
    if precision is not None:
        detect = freezing.fold(detect, precision)

    def look(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return _upright(detect(batch["images"]), batch["extents"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def look_closely(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        read, _ = image_batch.read(image_bytes, settings)
        return head_detection.find_heads(detect, read, settings, _VIEWS_AT_ONCE)

    return (lambda batch: look_closely(batch["image_bytes"])) if tile else look


def build_tflite_function(path: str) -> Function:
    """Like `build_detect_function`, for an exported `detector.tflite`."""
    interpreter = tf.lite.Interpreter(path, num_threads=os.cpu_count())
    run = interpreter.get_signature_runner()

    def look(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rows = [run(images=image[None].numpy()) for image in batch["images"]]
        found = {name: tf.concat([row[name] for row in rows], 0) for name in rows[0]}
        return _upright(found, batch["extents"])

    return look


def collect_detections(
    detect_function: Function, batches: tf.data.Dataset
) -> tuple[list[Pair], list[Pair], np.ndarray]:
    """Runs a detector over images and collects what it finds and what is there.

    Args:
        detect_function: See `build_detect_function`.
        batches: Batches of `detector_input.build_evaluation_batches`.

    Returns:
        Boxes and scores of each image, and true boxes and whether they are difficult;
        both as `metrics.detection.evaluate` takes them, boxes of the originals. Then
        the heights and widths `[N, 2]` of the originals in pixels.
    """
    found, truth, extents = [], [], []
    for batch in batches:
        detected = detect_function(batch)
        boxes, scores = detected["boxes"].numpy(), detected["scores"].numpy()
        for index, count in enumerate(detected["num_heads"].numpy()):
            extents.append(batch["extents"][index].numpy())
            found.append((boxes[index, :count], scores[index, :count]))
            truth.append(
                (batch["boxes"][index].numpy(), batch["difficult"][index].numpy())
            )
    return found, truth, np.reshape(extents, (-1, 2))


def gather_detections(
    strategy: tf.distribute.Strategy,
    found: list[Pair],
    truth: list[Pair],
) -> tuple[list[Pair], list[Pair]]:
    """Joins what `collect_detections` collects on each worker's share of the images.

    Every worker must call it at the same point, and gets the same.

    Args:
        strategy: Strategy of the training.
        found: Boxes and scores of each image.
        truth: True boxes of each image, and whether they are difficult.
    """
    joined = []
    for pairs in (found, truth):
        counts = np.array([len(values) for _, values in pairs], np.int64)
        rows = [np.column_stack(pair) for pair in pairs] or [np.zeros((0, 5))]
        ends = np.cumsum(distribute.gather(strategy, counts))
        values = distribute.gather(strategy, np.concatenate(rows).astype(np.float32))
        joined.append(np.split(values, ends)[:-1])
    return (
        [(rows[:, :4], rows[:, 4]) for rows in joined[0]],
        [(rows[:, :4], rows[:, 4] > 0) for rows in joined[1]],
    )


def build_loss_function(model: keras.Model, batch_size: int) -> Callable:
    """Builds a traced function of the losses of a detector.

    Args:
        model: A detector.
        batch_size: Images of a batch of the training, to whose loss it compares.

    Returns:
        A function from a batch of `detector_input.build_target_batches` to the sums and
        the weight of `objectives.detection`, computed with `training=False`.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def add(*batch: tf.Tensor) -> objectives.Sums:
        return objectives.detection(model, batch, batch_size, training=False)

    return add


def measure_losses(
    loss_function: Callable,
    batches: Iterable[tuple[tf.Tensor, ...]],
    strategy: tf.distribute.Strategy,
) -> dict[str, float]:
    """Measures the losses of a detector over whole splits.

    Every worker must call it at the same point, and gets the same.

    Args:
        loss_function: See `build_loss_function`.
        batches: Batches of `detector_input.build_target_batches`, a worker's share.
        strategy: Strategy of the training.

    Returns:
        `val_loss` and its parts `val_class_loss` and `val_box_loss`; NaN without any
        batch.
    """
    rows = []
    for batch in batches:
        sums, weight = loss_function(*batch)
        parts = [sums[name.removeprefix("val_")] for name in DETECTOR_LOSSES]
        rows.append([float(value) for value in (*parts, weight)])
    mine = np.reshape(np.array(rows, np.float32), (-1, len(DETECTOR_LOSSES) + 1))
    # A sum in order, so that it does not depend on the number of workers.
    *totals, weight = map(sum, distribute.gather(strategy, mine).T.tolist())
    return {
        name: total / weight if weight else math.nan
        for name, total in zip(DETECTOR_LOSSES, totals, strict=True)
    }


def _upright(found: dict[str, tf.Tensor], extents: tf.Tensor) -> dict[str, tf.Tensor]:
    """Converts boxes of letterboxes to boxes of the originals."""
    heights, widths = tf.unstack(extents[:, :, None], axis=1)
    boxes = resize.unletterbox_boxes(found["boxes"], heights, widths)
    return {**found, "boxes": boxes}
