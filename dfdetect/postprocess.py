"""From the detector's outputs to the boxes of an image."""

from typing import Any

from keras import ops

from dfdetect import anchors, boxes

_MAX_CANDIDATES = 5000  # google/automl, hparams_config.py: max_nms_inputs.


def detections(
    class_logits: Any,
    box_offsets: Any,
    anchor_boxes: Any,
    max_detections: int = 100,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.05,
    max_candidates: int = _MAX_CANDIDATES,
) -> tuple[Any, Any, Any]:
    """Like `class_detections`, without the classes.

    Returns:
        Boxes `[batch, max_detections, 4]` float32, scores `[batch, max_detections]`
        float32 and how many of them are real, `[batch]` int32.
    """
    found, scores, _, num = class_detections(
        class_logits,
        box_offsets,
        anchor_boxes,
        max_detections,
        iou_threshold,
        score_threshold,
        max_candidates,
    )
    return found, scores, num


def class_detections(
    class_logits: Any,
    box_offsets: Any,
    anchor_boxes: Any,
    max_detections: int = 100,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.05,
    max_candidates: int = _MAX_CANDIDATES,
) -> tuple[Any, Any, Any, Any]:
    """Picks the best boxes of each image, best first, by hard non-maximum suppression.

    A box goes when it overlaps a better one of the same class by more than
    `iou_threshold`. The result is the same each time, and that of
    `tf.image.non_max_suppression` for each class.

    Args:
        class_logits: `[batch, num_anchors, num_classes]`.
        box_offsets: `[batch, num_anchors, 4]`.
        anchor_boxes: `[num_anchors, 4]` in the format of `dfdetect.boxes`.
        max_detections: Boxes in the result, padding included.
        iou_threshold: In [0, 1].
        score_threshold: A score must lie above it.
        max_candidates: Best scores of an image that are looked at.

    Returns:
        Boxes `[batch, max_detections, 4]` float32, clipped to the square that the
        model saw; scores `[batch, max_detections]` float32 in [0, 1]; class ids
        `[batch, max_detections]` int32; the number of real ones `[batch]` int32. The
        padding is zeros.
    """
    _, num_anchors, num_classes = ops.shape(class_logits)
    scores = ops.sigmoid(ops.cast(class_logits, "float32"))
    scores = ops.reshape(scores, (-1, num_anchors * num_classes))
    num_candidates = min(max_candidates, num_anchors * num_classes)
    scores, candidates = ops.top_k(scores, num_candidates)
    candidates = ops.cast(candidates, "int32")
    classes = candidates % num_classes
    anchor_ids = candidates // num_classes
    offsets = ops.take_along_axis(box_offsets, anchor_ids[..., None], axis=1)
    anchor_boxes = ops.cast(anchor_boxes, "float32")
    decoded = anchors.decode(offsets, ops.take(anchor_boxes, anchor_ids, axis=0))

    picked = _suppress(
        decoded, classes, scores > score_threshold, max_detections, iou_threshold
    )
    valid = picked >= 0
    picked = ops.maximum(picked, 0)
    scores = ops.where(valid, ops.take_along_axis(scores, picked, axis=1), 0.0)
    classes = ops.where(valid, ops.take_along_axis(classes, picked, axis=1), 0)
    decoded = boxes.clip(ops.take_along_axis(decoded, picked[..., None], axis=1))
    decoded = ops.where(valid[..., None], decoded, 0.0)
    return decoded, scores, classes, ops.sum(ops.cast(valid, "int32"), axis=1)


def _suppress(
    candidates: Any,
    classes: Any,
    eligible: Any,
    max_detections: int,
    iou_threshold: float,
) -> Any:
    """Greedy suppression of a batch; stops when no image has a candidate left.

    Args:
        candidates: `[batch, num, 4]` boxes, best first.
        classes: `[batch, num]` int32.
        eligible: `[batch, num]` bool.
        max_detections: Rounds at most.
        iou_threshold: In [0, 1].

    Returns:
        Positions of the survivors `[batch, max_detections]` int32, then -1.
    """
    ymin, xmin, ymax, xmax = ops.unstack(candidates, 4, axis=-1)
    areas = boxes.area(candidates)
    positions = ops.arange(ops.shape(candidates)[1], dtype="int32")[None]
    slots = ops.arange(max_detections, dtype="int32")[None]

    def keep_going(step: Any, alive: Any, picked: Any) -> Any:
        return ops.logical_and(step < max_detections, ops.any(alive))

    def pick(step: Any, alive: Any, picked: Any) -> tuple[Any, Any, Any]:
        best = ops.argmax(ops.cast(alive, "int32"), axis=1)  # First of the living.
        best = ops.cast(best, "int32")[:, None]

        def of_best(values: Any) -> Any:
            return ops.take_along_axis(values, best, axis=1)

        height = ops.minimum(ymax, of_best(ymax)) - ops.maximum(ymin, of_best(ymin))
        width = ops.minimum(xmax, of_best(xmax)) - ops.maximum(xmin, of_best(xmin))
        shared = ops.maximum(height, 0.0) * ops.maximum(width, 0.0)
        union = areas + of_best(areas) - shared
        overlapping = shared > iou_threshold * union
        overlapping = ops.logical_and(overlapping, classes == of_best(classes))
        overlapping = ops.logical_or(overlapping, positions == best)
        is_slot = ops.logical_and(slots == step, of_best(alive))
        picked = ops.where(is_slot, best, picked)
        return step + 1, ops.logical_and(alive, ops.logical_not(overlapping)), picked

    picked = ops.zeros_like(classes[:, :1]) - ops.ones_like(slots)  # [B, N] of -1.
    _, _, picked = ops.while_loop(
        keep_going, pick, (ops.zeros((), dtype="int32"), eligible, picked)
    )
    return picked
