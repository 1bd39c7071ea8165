"""Matches detections to true boxes, and measures average precision and F1."""

from collections.abc import Sequence

import numpy as np

# Number of recall levels at which precision is read: 11 in VOC 2007, 101 in COCO; None
# is the area under the whole curve, as in VOC 2010 and later.
METHODS = {"all": None, "11": 11, "101": 101}

METRICS = ("ap", "recall", "f1")  # Keys of `evaluate` that measure quality.

# Results of `assign_detections` for detections without a true box.
WRONG, IGNORED = -1, -2


def assign_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    true_boxes: np.ndarray,
    difficult: np.ndarray,
    *,
    iou_threshold: float = 0.5,
    border: float = 0.0,
) -> np.ndarray:
    """Assigns the detections of one image to true boxes.

    In order of descending score, each detection takes the true box that it overlaps
    most. The first detection of a box is correct, later ones are wrong (Everingham et
    al., The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.2).

    Args:
        boxes: `[N, 4]`: ymin, xmin, ymax and xmax in any unit.
        scores: `[N]`.
        true_boxes: `[M, 4]`.
        difficult: `[M]` bool; detections of these boxes are ignored.
        iou_threshold: Least overlap of a correct detection.
        border: Length of a side minus the difference of its coordinates: 0 if they are
            edges, 1 if they are the first and the last pixel, as in PASCAL VOC.

    Returns:
        `[N]` int, in the order of `boxes`: the index of the true box, `WRONG`, or
        `IGNORED` for a detection of a difficult box.
    """
    found = np.full(len(boxes), WRONG)
    if not len(true_boxes):
        return found
    overlaps = _iou(boxes, true_boxes, border)
    taken = np.zeros(len(true_boxes), bool)
    for index in np.argsort(-scores, kind="stable"):
        best = int(np.argmax(overlaps[index]))
        if overlaps[index, best] < iou_threshold:
            continue
        if difficult[best]:
            found[index] = IGNORED
        elif not taken[best]:
            taken[best] = True
            found[index] = best
    return found


def match_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    true_boxes: np.ndarray,
    difficult: np.ndarray,
    *,
    iou_threshold: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Matches the detections of one image to true boxes; see `assign_detections`.

    Returns:
        `correct` `[N]` bool and `ignored` `[N]` bool, in the order of `boxes`.
    """
    found = assign_detections(
        boxes, scores, true_boxes, difficult, iou_threshold=iou_threshold
    )
    return found >= 0, found == IGNORED


def average_precision(
    scores: np.ndarray,
    correct: np.ndarray,
    ignored: np.ndarray,
    num_true: int,
    *,
    method: str = "all",
) -> float:
    """Computes average precision over the detections of all images.

    Args:
        scores: `[N]`.
        correct: `[N]` bool.
        ignored: `[N]` bool; these detections are left out.
        num_true: Number of true boxes that are not difficult.
        method: One of `METHODS`.

    Returns:
        A value in [0, 1]; NaN without true boxes.

    Raises:
        ValueError: `method` is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, got {method!r}.")
    if num_true == 0:
        return float("nan")
    order = np.argsort(-scores[~ignored], kind="stable")
    recall, precision = precision_recall_curve(correct[~ignored][order], num_true)
    levels = METHODS[method]
    if levels is None:
        return area_under_curve(recall, precision)
    places = np.searchsorted(recall, np.linspace(0, 1, levels), "left")
    return float(np.append(precision, 0.0)[places].mean())


def precision_recall_curve(
    correct: np.ndarray, num_true: float, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Computes recall and precision `[N]` along a list of detections.

    Args:
        correct: `[N]` bool, by descending score, without ignored detections.
        num_true: Number of true boxes, above 0.
        weights: `[N]`, how often each detection counts; by default once.

    Returns:
        Both in [0, 1]. Precision is the highest at this or any higher recall, so that
        it never rises.
    """
    counts = np.ones(len(correct)) if weights is None else weights
    hits = np.cumsum(counts * correct)
    precision = hits / np.maximum(np.cumsum(counts), 1)
    return hits / num_true, np.maximum.accumulate(precision[::-1])[::-1]


def area_under_curve(recall: np.ndarray, precision: np.ndarray) -> float:
    """Returns all-point average precision, the area under the curve."""
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def evaluate(
    detections: Sequence[tuple[np.ndarray, np.ndarray]],
    ground_truth: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    iou_threshold: float = 0.5,
) -> dict[str, float]:
    """Computes all-point average precision, recall and F1; ignores difficult boxes.

    Args:
        detections: Boxes `[N, 4]` and scores `[N]` of each image.
        ground_truth: Boxes `[M, 4]` and difficult `[M]` of each image.
        iou_threshold: Least overlap of a correct detection.

    Returns:
        `ap`, `recall` (share of true boxes found at any score), `f1` and
        `f1_score_threshold` (see `best_f1`) and `num_true`.
    """
    scores, correct, ignored, num_true = match_all(
        detections, ground_truth, iou_threshold=iou_threshold
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
    *,
    iou_threshold: float = 0.5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Applies `match_detections` to many images; arguments as for `evaluate`.

    Returns:
        `scores`, `correct` and `ignored`, `[N]` over all images, and the number of true
        boxes that are not difficult.
    """
    correct, ignored, scores = [], [], []
    for (boxes, image_scores), (true_boxes, difficult) in zip(
        detections, ground_truth, strict=True
    ):
        right, left_out = match_detections(
            boxes, image_scores, true_boxes, difficult, iou_threshold=iou_threshold
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
    """Returns the highest F1 and its score threshold, which scores must be above.

    Returns:
        Both in [0, 1]; 0 and 1 without true boxes or detections.
    """
    order = np.argsort(-scores[~ignored], kind="stable")
    if num_true == 0 or not len(order):
        return 0.0, 1.0
    ordered = scores[~ignored][order]
    hits = np.cumsum(correct[~ignored][order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + num_true)
    # No threshold parts equal scores.
    f1[:-1][ordered[:-1] == ordered[1:]] = -1.0
    best = int(np.argmax(f1))
    return float(f1[best]), step_below(ordered[best])


def step_below(score: float) -> float:
    """The next lower float32: the threshold from which a graph keeps this score.

    A graph keeps scores above its threshold, not the threshold itself.
    """
    return float(np.nextafter(np.float32(score), np.float32(0)))


def _iou(boxes: np.ndarray, true_boxes: np.ndarray, border: float) -> np.ndarray:
    top_left = np.maximum(boxes[:, None, :2], true_boxes[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], true_boxes[None, :, 2:])
    intersection = np.clip(bottom_right - top_left + border, 0, None).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2] + border).prod(-1)
    true_areas = (true_boxes[:, 2:] - true_boxes[:, :2] + border).prod(-1)
    union = areas[:, None] + true_areas[None] - intersection
    return intersection / np.maximum(union, 1e-12)
