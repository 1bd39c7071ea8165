"""Assigns heads to anchors: which anchor learns which head."""

from typing import Any

from keras import ops

from dfdetect import boxes
from dfdetect.models import anchors

BACKGROUND = -1
IGNORED = -2

POSITIVE_IOU = 0.5  # google/automl: below is background, nothing is ignored between.


def match_anchors(
    gt_boxes: Any,
    gt_classes: Any,
    anchor_boxes: Any,
    gt_ignored: Any = None,
) -> tuple[Any, Any, Any]:
    """Assigns every anchor of one image its class and its box.

    An anchor is positive when it overlaps a ground truth with an IoU of at least .5.
    Each ground truth also takes the anchor that it overlaps most, even below that,
    so that heads smaller than every anchor are learned as well. The first index wins
    a tie. A ground truth that touches no anchor is left out. Works on one image, also
    inside `tf.data` and `tf.vectorized_map`.

    Args:
        gt_boxes: `[max_heads, 4]` in the format of `dfdetect.boxes`; zero padded.
        gt_classes: `[max_heads]` integer class ids; -1 marks padding.
        anchor_boxes: `[num_anchors, 4]`.
        gt_ignored: `[max_heads]` bool, true for ground truths that are neither to be
            found nor to count as background, such as difficult ones.

    Returns:
        Class targets `[num_anchors]` int32 (a class id, `BACKGROUND` or `IGNORED`), box
        targets `[num_anchors, 4]` float32 (offsets, zero unless positive), and the mask
        `[num_anchors]` bool of positive anchors.

    Source: google/automl efficientdet, `object_detection/argmax_matcher.py`.
    """
    gt_boxes = ops.cast(gt_boxes, "float32")
    gt_classes = ops.cast(gt_classes, "int32")
    anchor_boxes = ops.cast(anchor_boxes, "float32")
    if gt_ignored is None:
        gt_ignored = ops.zeros_like(gt_classes, dtype="bool")
    # One padded row, because an argmax over no ground truth at all does not exist.
    gt_boxes = ops.pad(gt_boxes, [[0, 1], [0, 0]])
    gt_classes = ops.pad(gt_classes, [[0, 1]], constant_values=-1)
    gt_ignored = ops.pad(ops.cast(gt_ignored, "int32"), [[0, 1]]) > 0

    overlaps = boxes.iou(gt_boxes, anchor_boxes)  # [M, A]
    overlaps = ops.where(gt_classes[:, None] >= 0, overlaps, -1.0)
    matched = ops.cast(ops.argmax(overlaps, axis=0), "int32")
    overlapping = ops.max(overlaps, axis=0) >= POSITIVE_IOU

    best_anchor = ops.cast(ops.argmax(overlaps, axis=1), "int32")
    can_force = ops.logical_and(
        ops.max(overlaps, axis=1) > 0, ops.logical_not(gt_ignored)
    )
    anchor_ids = ops.arange(ops.shape(anchor_boxes)[0], dtype="int32")
    forced = ops.logical_and(
        best_anchor[:, None] == anchor_ids[None], can_force[:, None]
    )
    is_forced = ops.any(forced, axis=0)
    forced_by = ops.cast(ops.argmax(ops.cast(forced, "int32"), axis=0), "int32")

    matched = ops.where(is_forced, forced_by, matched)
    assigned = ops.logical_or(is_forced, overlapping)
    ignored = ops.logical_and(assigned, ops.take(gt_ignored, matched, axis=0))
    positive = ops.logical_and(assigned, ops.logical_not(ignored))

    class_targets = ops.where(
        positive, ops.take(gt_classes, matched, axis=0), BACKGROUND
    )
    class_targets = ops.where(ignored, IGNORED, class_targets)
    offsets = anchors.encode(ops.take(gt_boxes, matched, axis=0), anchor_boxes)
    box_targets = ops.where(positive[:, None], offsets, 0.0)
    return ops.cast(class_targets, "int32"), box_targets, positive
