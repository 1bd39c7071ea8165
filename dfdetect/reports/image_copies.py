"""Draws a copy of an image with its heads marked, and cuts suspicious heads out."""

import os
from collections.abc import Callable, Iterator

import numpy as np

from dfdetect import boxes as box_format
from dfdetect import labels
from dfdetect.media import drawing
from dfdetect.metrics import calibration
from dfdetect.pipeline import findings, result_lines

# `explainer.Explainer`: maps an image and its boxes to squares and heat maps.
Explainer = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def draw_copy(finding: findings.Finding, explainer: Explainer | None = None) -> bytes:
    """Draws the marks of heads over an image; returns `finding.source.copy`'s content.

    Args:
        finding: A finding without a problem.
        explainer: Makes a heat map of each judged head.
    """
    heads = finding.result["heads"]
    boxes = np.array([head["box"] for head in heads]).reshape(-1, 4)
    probabilities = np.array([head["fake_probability"] for head in heads], np.float64)
    canvas = finding.image
    if explainer:
        judged = boxes[~np.isnan(probabilities)]
        canvas = drawing.overlay_heat_maps(canvas, *explainer(canvas, judged))
    notes = [_note(head) for head in heads]
    canvas = drawing.annotate(canvas, boxes, probabilities.tolist(), notes=notes)
    return drawing.encode_image(canvas, os.path.splitext(finding.source.copy)[1])


def crop_suspicious(
    image: np.ndarray,
    heads: list[result_lines.Head],
    thresholds: calibration.Thresholds,
    margin: float | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Cuts out the heads that may be fake.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        heads: Heads of the image.
        thresholds: See `calibration.decide_verdict`; heads that are not "real" by them
            are cut out.
        margin: See `boxes.crop_regions`.

    Yields:
        The place of each head in `heads`, and its `[side, side, 3]` uint8 RGB.
    """
    height, width = image.shape[:2]
    for place, head in enumerate(heads):
        probability = head["fake_probability"]
        if probability is None or probability < thresholds["real_below"]:
            continue
        box = np.array([head["box"]], np.float32)
        region = np.asarray(box_format.crop_regions(box, height, width, margin))[0]
        top, left, rows, columns = (int(value) for value in region)
        yield place, image[top : top + rows, left : left + columns]


def _note(head: result_lines.Head) -> str:
    """Summarizes what a lookup found for a head, in a few letters."""
    if head.get("unfamiliar"):
        return "unfamiliar"
    by_label = (head.get("nearest_real"), head.get("nearest_fake"))
    known = [
        (nearest["similarity"], name)
        for name, nearest in zip(labels.NAMES, by_label, strict=True)
        if nearest
    ]
    if not known:
        return ""
    similarity, name = max(known)
    return f"like {name} {similarity:.2f}"
