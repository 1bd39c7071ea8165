"""Average precision of detected boxes."""

from collections.abc import Sequence

import numpy as np

# Recall levels at which precision is read: VOC 2007 takes 11, COCO 101; `None` is
# the area under the whole curve, VOC 2010 and later.
METHODS = {"all": None, "11": 11, "101": 101}

METRICS = ("ap", "recall", "f1")  # Of `evaluate`: those that say how good.


def match_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    true_boxes: np.ndarray,
    difficult: np.ndarray,
    iou_threshold: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Says for each detection of one image whether it is right.

    Detections are taken by falling score; each takes the true box that it overlaps
    most. The first to take a box is right, any later one wrong (Everingham et al.,
    The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.2).

    Args:
        boxes: `[N, 4]` in the format of `dfdetect.boxes`.
        scores: `[N]`.
        true_boxes: `[M, 4]`.
        difficult: `[M]` bool; detections of these count neither for nor against.
        iou_threshold: Least overlap of a right detection.

    Returns:
        `correct` `[N]` bool and `ignored` `[N]` bool, in the order of `boxes`.
    """
    overlaps = _iou(boxes, true_boxes)
    taken = np.zeros(len(true_boxes), bool)
    correct = np.zeros(len(boxes), bool)
    ignored = np.zeros(len(boxes), bool)
    if not len(true_boxes):
        return correct, ignored
    for index in np.argsort(-scores, kind="stable"):
        best = int(np.argmax(overlaps[index]))
        if overlaps[index, best] < iou_threshold:
            continue
        if difficult[best]:
            ignored[index] = True
        elif not taken[best]:
            taken[best] = correct[index] = True
    return correct, ignored


def average_precision(
    scores: np.ndarray,
    correct: np.ndarray,
    ignored: np.ndarray,
    num_true: int,
    method: str = "all",
) -> float:
    """Average precision over the detections of all images.

    Args:
        scores: `[N]`.
        correct: `[N]` bool.
        ignored: `[N]` bool, left out.
        num_true: Number of true boxes that are not difficult.
        method: One of `METHODS`.

    Returns:
        In [0, 1]; NaN when there is nothing to find.

    Raises:
        ValueError: `method` is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, got {method!r}.")
    if num_true == 0:
        return float("nan")
    order = np.argsort(-scores[~ignored], kind="stable")
    hits = np.cumsum(correct[~ignored][order])
    recall = hits / num_true
    precision = hits / np.arange(1, len(hits) + 1)
    # Precision at a recall is the best that this recall or a higher one reaches.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    levels = METHODS[method]
    if levels is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    places = np.searchsorted(recall, np.linspace(0, 1, levels), "left")
    return float(np.append(envelope, 0.0)[places].mean())


def evaluate(
    detections: Sequence[tuple[np.ndarray, np.ndarray]],
    ground_truth: Sequence[tuple[np.ndarray, np.ndarray]],
    iou_threshold: float = 0.5,
) -> dict[str, float]:
    """All-point average precision and the recall behind it, difficult boxes ignored.

    Args:
        detections: Boxes `[N, 4]` and scores `[N]` of each image.
        ground_truth: Boxes `[M, 4]` and difficult `[M]` of each image.
        iou_threshold: Least overlap of a right detection.

    Returns:
        `ap`, `recall` (share of true boxes found at any score), `f1` and
        `f1_score_threshold` (see `best_f1`) and `num_true`.
    """
    scores, correct, ignored, num_true = match_all(
        detections, ground_truth, iou_threshold
    )
    f1, threshold = best_f1(scores, correct, ignored, num_true)
    return {
        "ap": average_precision(scores, correct, ignored, num_true),
        "recall": float(correct.sum() / num_true) if num_true else float("nan"),
        "f1": f1,
        "f1_score_threshold": threshold,
        "num_true": num_true,
    }


def match_all(
    detections: Sequence[tuple[np.ndarray, np.ndarray]],
    ground_truth: Sequence[tuple[np.ndarray, np.ndarray]],
    iou_threshold: float = 0.5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """`match_detections` over many images, see `evaluate`.

    Returns:
        `scores`, `correct` and `ignored`, `[N]` over all images, and the number of true
        boxes that are not difficult.
    """
    correct, ignored, scores = [], [], []
    for (boxes, image_scores), (true_boxes, difficult) in zip(
        detections, ground_truth, strict=True
    ):
        right, left_out = match_detections(
            boxes, image_scores, true_boxes, difficult, iou_threshold
        )
        correct.append(right)
        ignored.append(left_out)
        scores.append(image_scores)
    num_true = int(sum((~difficult).sum() for _, difficult in ground_truth))
    return (
        np.concatenate(scores),
        np.concatenate(correct),
        np.concatenate(ignored),
        num_true,
    )


def best_f1(
    scores: np.ndarray, correct: np.ndarray, ignored: np.ndarray, num_true: int
) -> tuple[float, float]:
    """The highest F1, and the score of the last detection that it counts.

    Returns:
        In [0, 1] both; 0 and 1 when there is nothing to find or nothing was found.
    """
    order = np.argsort(-scores[~ignored], kind="stable")
    if num_true == 0 or not len(order):
        return 0.0, 1.0
    hits = np.cumsum(correct[~ignored][order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + num_true)
    best = int(np.argmax(f1))
    return float(f1[best]), float(scores[~ignored][order][best])


def _iou(boxes: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
    top_left = np.maximum(boxes[:, None, :2], true_boxes[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], true_boxes[None, :, 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    true_areas = (true_boxes[:, 2:] - true_boxes[:, :2]).prod(-1)
    union = areas[:, None] + true_areas[None] - intersection
    return intersection / np.maximum(union, 1e-12)
