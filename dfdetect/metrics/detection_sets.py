"""Measures a detector on several validation sets, with one score threshold."""

from collections.abc import Mapping, Sequence

import numpy as np

from dfdetect.metrics import detection

Pair = tuple[np.ndarray, np.ndarray]
Findings = tuple[Sequence[Pair], Sequence[Pair]]

_Matches = tuple[np.ndarray, np.ndarray, int, int]  # See `_match`.


def evaluate(
    sets: Mapping[str, Findings], max_false_boxes: float = 0.05
) -> dict[str, float]:
    """Measures each set, and the means over the sets that have heads.

    The score threshold maximizes the mean F1, among thresholds with few boxes on images
    without heads. All sets have equal weight, however large.

    Args:
        sets: Detections and ground truth by name of the set; see `detection.evaluate`.
            Sets in which all heads are difficult, or without heads, are negatives.
        max_false_boxes: Highest mean number of boxes per image, at the threshold, on
            each of the negatives.

    Returns:
        For one set, the result of `detection.evaluate`. For several,
        `f1_score_threshold`; `NAME/ap`, `NAME/recall`, `NAME/f1` and `NAME/num_true` of
        sets with heads; `NAME/false_boxes_per_image` of negatives; and the means `ap`,
        `recall` and `f1` over the sets with heads, NaN without any. F1 and false boxes
        are those at the threshold.

    Raises:
        ValueError: `sets` is empty.
    """
    if not sets:
        raise ValueError("sets must not be empty.")
    if len(sets) == 1:
        return detection.evaluate(*next(iter(sets.values())))
    matches = {name: _match(*findings) for name, findings in sets.items()}
    threshold = choose_threshold(matches, max_false_boxes)
    figures = {"f1_score_threshold": threshold}
    for name, (found, truth) in sets.items():
        at_threshold = float(_figure(matches[name], np.array([threshold]))[0])
        if matches[name][2]:
            figures |= {
                f"{name}/{metric}": value
                for metric, value in detection.evaluate(found, truth).items()
                if metric != "f1_score_threshold"
            }
            figures[f"{name}/f1"] = at_threshold
        else:
            figures[f"{name}/false_boxes_per_image"] = at_threshold
    with_heads = [name for name, (_, _, num_true, _) in matches.items() if num_true]
    for metric in detection.METRICS:
        values = [figures[f"{name}/{metric}"] for name in with_heads]
        figures[metric] = float(np.mean(values)) if values else float("nan")
    return figures


def choose_threshold(matches: Mapping[str, _Matches], max_false_boxes: float) -> float:
    """Chooses the score threshold of `evaluate`; 1 without detections."""
    scores = np.unique(np.concatenate([found for found, *_ in matches.values()]))
    thresholds = np.append(scores, 1.0)[::-1]
    mean_f1 = np.zeros(len(thresholds))
    allowed = np.ones(len(thresholds), bool)
    for each in matches.values():
        values = _figure(each, thresholds)
        if each[2]:
            mean_f1 += values
        else:
            allowed &= values <= max_false_boxes
    # Above the highest score there are no false boxes.
    allowed[0] = True
    best = int(np.argmax(np.where(allowed, mean_f1, -1.0)))
    return detection.step_below(thresholds[best]) if best else 1.0


def _match(found: Sequence[Pair], truth: Sequence[Pair]) -> _Matches:
    """Returns descending scores, their correctness, and numbers of heads and images."""
    scores, correct, ignored, num_true = detection.match_all(found, truth)
    order = np.argsort(-scores[~ignored], kind="stable")
    return scores[~ignored][order], correct[~ignored][order], num_true, len(truth)


def _figure(matches: _Matches, thresholds: np.ndarray) -> np.ndarray:
    """Computes F1 at each threshold; without heads, the boxes per image."""
    scores, correct, num_true, num_images = matches
    counted = np.searchsorted(-scores, -thresholds, side="right")
    if not num_true:
        return counted / num_images
    hits = np.append(0, np.cumsum(correct))
    return 2 * hits[counted] / (counted + num_true)
