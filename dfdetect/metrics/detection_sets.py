"""Figures of a detector over several validation sets, with one score threshold."""

from collections.abc import Mapping, Sequence

import numpy as np

from dfdetect.metrics import detection

Pair = tuple[np.ndarray, np.ndarray]
Findings = tuple[Sequence[Pair], Sequence[Pair]]

_Matches = tuple[np.ndarray, np.ndarray, int, int]  # Of `_match`.


def evaluate(
    sets: Mapping[str, Findings], max_false_boxes: float = 0.05
) -> dict[str, float]:
    """Measures each set, and the means over those sets that have heads.

    The score threshold is that of the highest mean F1 among those thresholds at which
    the images without heads have few boxes. Each set counts the same, however large.

    Args:
        sets: By name what was found and what is there, both as `detection.evaluate`
            takes them. Sets without any head that is not difficult are negatives.
        max_false_boxes: Most boxes an image that the threshold lets pass on any of the
            negatives.

    Returns:
        Of one set what `detection.evaluate` gives. Of several `f1_score_threshold`;
        `NAME/ap`, `NAME/recall`, `NAME/f1` and `NAME/num_true` of each with heads;
        `NAME/false_boxes_per_image` of negatives; and the means `ap`, `recall` and `f1`
        over the sets with heads, NaN without one. F1 and false boxes are those at the
        threshold.

    Raises:
        ValueError: There is no set.
    """
    if not sets:
        raise ValueError("There is no set to measure.")
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
    """The score threshold of `evaluate`; 1 where nothing was found."""
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
    # Beyond the highest score nothing is left that could be false.
    allowed[0] = True
    return float(thresholds[np.argmax(np.where(allowed, mean_f1, -1.0))])


def _match(found: Sequence[Pair], truth: Sequence[Pair]) -> _Matches:
    """Scores, falling; whether each is right; heads; and images."""
    scores, correct, ignored, num_true = detection.match_all(found, truth)
    order = np.argsort(-scores[~ignored], kind="stable")
    return scores[~ignored][order], correct[~ignored][order], num_true, len(truth)


def _figure(matches: _Matches, thresholds: np.ndarray) -> np.ndarray:
    """F1 at each threshold; without heads, boxes an image."""
    scores, correct, num_true, num_images = matches
    counted = np.searchsorted(-scores, -thresholds, side="right")
    if not num_true:
        return counted / num_images
    hits = np.append(0, np.cumsum(correct))
    return 2 * hits[counted] / (counted + num_true)
