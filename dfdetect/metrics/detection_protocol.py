"""Metrics that papers on head detection report for a split of a data set.

Boxes are compared in pixels of the original images, in two conventions. In `ap` a box
extends from edge to edge. `voc_ap` is the official protocol of HollywoodHeads (its
`VOCevaldet_HH.m`; Vu et al., Context-aware CNNs for person head detection, ICCV 2015):
all-point average precision at an overlap of .5, where a box includes its last row and
column of pixels, so that each side is longer by 1. Our boxes are the annotated
coordinates divided by the size of the image; multiplied by it they are the annotated
ones again. Both ignore difficult heads. (The official code gives an image without heads
a difficult one without area, which has no effect.)
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dfdetect.metrics import detection

FALSE_POSITIVES_PER_IMAGE = (0.01, 0.1, 1.0)
_SIZE_EDGES = (16, 32, 64, 128)
SIZE_NAMES = ("<16", "16-32", "32-64", "64-128", ">=128")

_VOC_BORDER = 1.0

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Matches:
    """The detections of a split by descending score, without those of difficult heads.

    Attributes:
        scores: `[N]`.
        correct: `[N]` bool.
        sizes: `[N]`, square root of the area in pixels, of the true head where correct.
        images: `[N]` int, index of the image of each detection.
        true_sizes: `[M]`, sizes of the true heads that are not difficult.
        true_images: `[M]` int, index of the image of each true head.
        num_images: Number of images.
    """

    scores: np.ndarray
    correct: np.ndarray
    sizes: np.ndarray
    images: np.ndarray
    true_sizes: np.ndarray
    true_images: np.ndarray
    num_images: int


def compute_metrics(found: Pairs, truth: Pairs, extents: np.ndarray) -> dict[str, Any]:
    """Computes all metrics of this module and of `detection.evaluate`.

    Args:
        found: Boxes `[N, 4]` in the format of `dfdetect.boxes`, and scores `[N]`, of
            each image.
        truth: Boxes `[M, 4]` and difficult `[M]`, of each image.
        extents: `[num_images, 2]`, heights and widths of the originals in pixels.

    Returns:
        The values of `detection.evaluate`; `num_images`; `ap_interval`; `voc_ap` and
        `voc_ap_interval`; `recall_at_fppi`; `measure_by_size`.
    """
    matches = match_images(found, truth, extents)
    voc_matches = match_images(found, truth, extents, border=_VOC_BORDER)
    return {
        **detection.evaluate(found, truth),
        "num_images": matches.num_images,
        "ap_interval": average_precision_interval(matches),
        "voc_ap": average_precision(voc_matches),
        "voc_ap_interval": average_precision_interval(voc_matches),
        "recall_at_fppi": {
            f"{rate:g}": recall_at_false_positives(matches, rate)
            for rate in FALSE_POSITIVES_PER_IMAGE
        },
        "by_size": measure_by_size(matches),
    }


def match_images(
    found: Pairs,
    truth: Pairs,
    extents: np.ndarray,
    *,
    iou_threshold: float = 0.5,
    border: float = 0.0,
) -> Matches:
    """Matches detections to heads of all images; arguments as for `compute_metrics`."""
    detections, heads = [np.zeros((0, 4))], [np.zeros((0, 2))]
    for place, ((boxes, scores), (true_boxes, difficult), extent) in enumerate(
        zip(found, truth, extents, strict=True)
    ):
        pixels = np.tile(np.asarray(extent, np.float64), 2)
        boxes, true_boxes = boxes * pixels, true_boxes * pixels
        places = detection.assign_detections(
            boxes,
            scores,
            true_boxes,
            difficult,
            iou_threshold=iou_threshold,
            border=border,
        )
        true_sizes, sizes = _sizes(true_boxes), _sizes(boxes)
        correct = places >= 0
        sizes[correct] = true_sizes[places[correct]]
        image = np.full(len(boxes), place)
        rows = np.stack([scores, correct, sizes, image], axis=1)
        detections.append(rows[places != detection.IGNORED])
        plain = true_sizes[~np.asarray(difficult, bool)]
        heads.append(np.stack([plain, np.full(len(plain), place)], axis=1))
    scores, right, sizes, images = np.concatenate(detections).T
    true_sizes, true_images = np.concatenate(heads).T
    order = np.argsort(-scores, kind="stable")
    return Matches(
        scores=scores[order],
        correct=right[order] > 0,
        sizes=sizes[order],
        images=images[order].astype(int),
        true_sizes=true_sizes,
        true_images=true_images.astype(int),
        num_images=len(extents),
    )


def average_precision(matches: Matches) -> float:
    """All-point average precision in [0, 1]; NaN without heads."""
    return _average_precision(matches.correct, len(matches.true_sizes))


def recall_at_false_positives(
    matches: Matches, false_positives_per_image: float
) -> float:
    """Recall at the lowest threshold within a number of false positives per image.

    Returns:
        A value in [0, 1]; NaN without heads.

    Source: Dollár et al., Pedestrian Detection, An Evaluation of the State of the Art,
    PAMI 2012, section 3.1.
    """
    if not len(matches.true_sizes):
        return math.nan
    allowed = np.floor(false_positives_per_image * matches.num_images + 1e-9)
    kept = np.cumsum(~matches.correct) <= allowed
    return float(matches.correct[kept].sum() / len(matches.true_sizes))


def measure_by_size(matches: Matches) -> dict[str, dict[str, float]]:
    """Computes average precision and recall by size of the heads.

    A size is the square root of the area, in pixels of the original; ranges include
    their lower end. A correct detection counts by the size of its head, a wrong one by
    that of its own box.

    Returns:
        For each of `SIZE_NAMES` its `num_true`, `ap` and `recall`; NaN without heads.
    """
    ranges = np.searchsorted(_SIZE_EDGES, matches.sizes, "right")
    true_ranges = np.searchsorted(_SIZE_EDGES, matches.true_sizes, "right")
    figures = {}
    for index, name in enumerate(SIZE_NAMES):
        correct = matches.correct[ranges == index]
        num_true = int((true_ranges == index).sum())
        figures[name] = {
            "num_true": num_true,
            "ap": _average_precision(correct, num_true),
            "recall": float(correct.sum() / num_true) if num_true else math.nan,
        }
    return figures


def average_precision_interval(
    matches: Matches, *, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the average precision, by resampling images.

    Detections stay matched. Similarity between frames of one film is not considered, so
    the interval is a lower bound of the variation.

    Returns:
        The 2.5th and 97.5th percentiles over the resamples that have heads; NaN twice
        without heads.
    """
    if not len(matches.true_sizes):
        return math.nan, math.nan
    true_counts = np.bincount(matches.true_images, minlength=matches.num_images)
    generator = np.random.default_rng(seed)
    shares = np.full(matches.num_images, 1 / matches.num_images)
    drawn = []
    for counts in generator.multinomial(matches.num_images, shares, num_resamples):
        num_true = counts @ true_counts
        if num_true:
            # An image drawn twice counts its detections twice.
            weights = counts[matches.images]
            drawn.append(
                detection.area_under_curve(
                    *detection.precision_recall_curve(
                        matches.correct, num_true, weights
                    )
                )
            )
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def _average_precision(correct: np.ndarray, num_true: int) -> float:
    if not num_true:
        return math.nan
    return detection.area_under_curve(
        *detection.precision_recall_curve(correct, num_true)
    )


def _sizes(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1))
