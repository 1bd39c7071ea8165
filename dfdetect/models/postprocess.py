"""Non-maximum suppression: from the detector's outputs to the boxes of an image."""

from collections.abc import Callable
from typing import Any

from keras import ops

from dfdetect import boxes
from dfdetect.models import anchors

_MAX_CANDIDATES = 5000  # google/automl, hparams_config.py: max_nms_inputs.

# More candidates than that score above the threshold only in crowds or while a model
# learns. Sorting and suppressing so few takes a tenth of the time for the same result.
_FEW_CANDIDATES = 512

_Weight = Callable[[Any, Any, Any], Any]  # See `_suppress`.


def select_detections(
    class_logits: Any,
    box_offsets: Any,
    anchor_boxes: Any,
    max_detections: int = 100,
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.05,
    max_candidates: int = _MAX_CANDIDATES,
    soft_nms_sigma: float = 0.0,
    containment_threshold: float = 1.0,
) -> tuple[Any, Any, Any]:
    """Picks the best boxes as `select_class_detections` does, without the classes.

    Returns:
        Boxes `[batch, max_detections, 4]` float32, scores `[batch, max_detections]`
        float32 and how many of them are real, `[batch]` int32.
    """
    found, scores, _, num = select_class_detections(
        class_logits,
        box_offsets,
        anchor_boxes,
        max_detections,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        max_candidates=max_candidates,
        soft_nms_sigma=soft_nms_sigma,
        containment_threshold=containment_threshold,
    )
    return found, scores, num


def select_class_detections(
    class_logits: Any,
    box_offsets: Any,
    anchor_boxes: Any,
    max_detections: int = 100,
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.05,
    max_candidates: int = _MAX_CANDIDATES,
    soft_nms_sigma: float = 0.0,
    containment_threshold: float = 1.0,
) -> tuple[Any, Any, Any, Any]:
    """Picks the best boxes of each image, best first, by non-maximum suppression.

    Hard: a box goes when it overlaps a better one of the same class by more than
    `iou_threshold`; the result is that of `tf.image.non_max_suppression` for each
    class. Soft (Bodla et al., Soft-NMS, ICCV 2017, equation 3): each better box of the
    same class multiplies its score by exp(-IoU^2 / sigma), and it goes when the score
    falls to `score_threshold`. Both give the same each time. With either, a box also
    goes when it shares more than `containment_threshold` of the smaller one of the two
    areas with a better one of its class: a box within a box is a second one of the same
    head.

    Args:
        class_logits: `[batch, num_anchors, num_classes]`.
        box_offsets: `[batch, num_anchors, 4]`.
        anchor_boxes: `[num_anchors, 4]` in the format of `dfdetect.boxes`.
        max_detections: Boxes in the result, padding included.
        iou_threshold: Threshold of hard suppression, in [0, 1].
        score_threshold: Scores must be above it.
        max_candidates: Number of best scores of an image that are considered.
        soft_nms_sigma: Sigma of soft suppression, .5 in the paper; 0 for hard
            suppression.
        containment_threshold: In (0, 1]; 1 lets every box within another one stay.

    Returns:
        Boxes `[batch, max_detections, 4]` float32, clipped to the square that the
        model saw; scores `[batch, max_detections]` float32 in [0, 1]; class ids
        `[batch, max_detections]` int32; the number of real ones `[batch]` int32. The
        padding is zeros.
    """
    _, num_anchors, num_classes = ops.shape(class_logits)
    scores = ops.sigmoid(ops.cast(class_logits, "float32"))
    scores = ops.reshape(scores, (-1, num_anchors * num_classes))
    scores = ops.where(scores > score_threshold, scores, 0.0)
    by_iou = _hard(iou_threshold) if soft_nms_sigma <= 0 else _soft(soft_nms_sigma)
    weight = _without_contained(by_iou, containment_threshold)

    def pick_among(num_candidates: int) -> tuple[Any, Any, Any, Any]:
        best, candidates = ops.top_k(scores, num_candidates)
        candidates = ops.cast(candidates, "int32")
        anchor_ids = candidates // num_classes
        return _pick(
            _decode_candidates(box_offsets, anchor_boxes, anchor_ids),
            candidates % num_classes,
            best,
            max_detections=max_detections,
            weight=weight,
            score_threshold=score_threshold,
        )

    most = min(max_candidates, num_anchors * num_classes)
    if most <= _FEW_CANDIDATES:
        return pick_among(most)
    likely = ops.max(ops.sum(ops.cast(scores > 0.0, "int32"), axis=1), initial=0)
    return ops.cond(
        likely <= _FEW_CANDIDATES,
        lambda: pick_among(_FEW_CANDIDATES),
        lambda: pick_among(most),
    )


def _decode_candidates(box_offsets: Any, anchor_boxes: Any, anchor_ids: Any) -> Any:
    """Decodes the boxes `[batch, num, 4]` of anchors `[batch, num]` of each image."""
    offsets = ops.take_along_axis(box_offsets, anchor_ids[..., None], axis=1)
    # TFLite would keep a table of float32 in 8 bits; one of integers it leaves alone.
    anchor_bits = ops.view(ops.cast(anchor_boxes, "float32"), "int32")
    anchor_bits = ops.take(anchor_bits, anchor_ids, axis=0)
    return anchors.decode(offsets, ops.view(anchor_bits, "float32"))


def _pick(
    decoded: Any,
    classes: Any,
    scores: Any,
    *,
    max_detections: int,
    weight: _Weight,
    score_threshold: float,
) -> tuple[Any, Any, Any, Any]:
    """Picks among decoded candidates; returns what `select_class_detections` does."""
    scores, picked = _suppress(
        decoded,
        classes,
        scores,
        max_detections=max_detections,
        weight=weight,
        score_threshold=score_threshold,
    )
    valid = picked >= 0
    picked = ops.maximum(picked, 0)
    classes = ops.where(valid, ops.take_along_axis(classes, picked, axis=1), 0)
    decoded = boxes.clip(ops.take_along_axis(decoded, picked[..., None], axis=1))
    decoded = ops.where(valid[..., None], decoded, 0.0)
    return decoded, scores, classes, ops.sum(ops.cast(valid, "int32"), axis=1)


def _hard(iou_threshold: float) -> _Weight:
    def weight(shared: Any, union: Any, smaller: Any) -> Any:
        return ops.cast(shared <= iou_threshold * union, "float32")

    return weight


def _soft(sigma: float) -> _Weight:
    def weight(shared: Any, union: Any, smaller: Any) -> Any:
        return ops.exp(-ops.square(shared / ops.maximum(union, 1e-12)) / sigma)

    return weight


def _without_contained(by_iou: _Weight, containment_threshold: float) -> _Weight:
    if containment_threshold >= 1.0:
        return by_iou

    def weight(shared: Any, union: Any, smaller: Any) -> Any:
        apart = ops.cast(shared <= containment_threshold * smaller, "float32")
        return by_iou(shared, union, smaller) * apart

    return weight


def _suppress(
    candidates: Any,
    classes: Any,
    scores: Any,
    *,
    max_detections: int,
    weight: _Weight,
    score_threshold: float,
) -> tuple[Any, Any]:
    """Greedy suppression of a batch; stops when no image has a candidate left.

    Args:
        candidates: `[batch, num, 4]` boxes.
        classes: `[batch, num]` int32.
        scores: `[batch, num]`; 0 for those that cannot be picked.
        max_detections: Rounds at most.
        weight: Factor by which a picked box multiplies the score of another one of its
            class, from the areas of their intersection, union and smaller box.
        score_threshold: The highest score above it is picked next, the first of
            equals.

    Returns:
        Scores `[batch, max_detections]` when picked, then 0, and positions
        `[batch, max_detections]` int32, then -1.
    """
    ymin, xmin, ymax, xmax = ops.unstack(candidates, 4, axis=-1)
    areas = boxes.area(candidates)
    positions = ops.arange(ops.shape(candidates)[1], dtype="int32")[None]
    slots = ops.arange(max_detections, dtype="int32")[None]

    def keep_going(step: Any, left: Any, picked_scores: Any, picked: Any) -> Any:
        return ops.logical_and(step < max_detections, ops.any(left > 0.0))

    def pick(
        step: Any, left: Any, picked_scores: Any, picked: Any
    ) -> tuple[Any, Any, Any, Any]:
        # Keras's argmax looks at the sign of zeros with operations TFLite lacks.
        best_score, best = ops.top_k(left, 1)
        best = ops.cast(best, "int32")

        def gather_best(values: Any) -> Any:
            return ops.take_along_axis(values, best, axis=1)

        height = ops.minimum(ymax, gather_best(ymax)) - ops.maximum(
            ymin, gather_best(ymin)
        )
        width = ops.minimum(xmax, gather_best(xmax)) - ops.maximum(
            xmin, gather_best(xmin)
        )
        shared = ops.maximum(height, 0.0) * ops.maximum(width, 0.0)
        union = areas + gather_best(areas) - shared
        smaller = ops.minimum(areas, gather_best(areas))
        left_of = weight(shared, union, smaller)
        kept = ops.where(classes == gather_best(classes), left_of, 1.0)
        kept = ops.where(positions == best, 0.0, kept)
        is_slot = ops.logical_and(slots == step, best_score > 0.0)
        picked_scores = ops.where(is_slot, best_score, picked_scores)
        picked = ops.where(is_slot, best, picked)
        left = left * kept
        left = ops.where(left > score_threshold, left, 0.0)
        return step + 1, left, picked_scores, picked

    nothing = ops.zeros_like(scores[:, :1]) * ops.zeros_like(slots, dtype="float32")
    _, _, picked_scores, picked = ops.while_loop(
        keep_going,
        pick,
        (
            ops.zeros((), dtype="int32"),
            scores,
            nothing,
            ops.cast(nothing, "int32") - 1,
        ),
    )
    return picked_scores, picked
