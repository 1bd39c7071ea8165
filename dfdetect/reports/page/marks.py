"""The boxes over an image, as inline SVG.

Places are in percent of the image, so that lines and letters keep their size when
the image is scaled, on a phone and on paper.
"""

from collections.abc import Mapping, Sequence

import cv2
import markupsafe
import numpy as np

from dfdetect.metrics import calibration
from dfdetect.reports.page import formatting

_AT_TOP = 0.06  # Nearer to the edge there is no room above a box.
_AT_RIGHT = 0.8


def render_shot(
    content: bytes,
    description: str,
    *,
    heads: Sequence[Mapping],
    names: Sequence[str],
    thresholds: calibration.Thresholds,
    muted: Sequence[bool] = (),
) -> markupsafe.Markup:
    """Renders an image with the boxes of its heads over it.

    Args:
        content: A JPEG without marks.
        description: Alternative text.
        heads: See `render_boxes`.
        names: See `render_boxes`.
        thresholds: See `calibration.decide_verdict`.
        muted: See `render_boxes`.
    """
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None  # It was encoded here.
    height, width = pixels.shape[:2]
    return formatting.TEMPLATES.render(
        "shot.html",
        content=content,
        description=description,
        size=(width, height),
        marks=render_boxes(heads, names, thresholds, muted=muted),
    )


def render_boxes(
    heads: Sequence[Mapping],
    names: Sequence[str],
    thresholds: calibration.Thresholds,
    *,
    muted: Sequence[bool] = (),
) -> markupsafe.Markup:
    """Renders the boxes of heads, each with its name and fake probability.

    Args:
        heads: Heads with `box` and `fake_probability`, which may be None.
        names: A name for each head, such as its number.
        thresholds: See `calibration.decide_verdict`.
        muted: Whether each head is drawn faint, below the others; by default none is.
    """
    # The most suspicious last, so that it is never covered.
    ordered = sorted(
        zip(heads, names, muted or [False] * len(heads), strict=True),
        key=lambda x: (not x[2], x[0]["fake_probability"] or -1),
    )
    boxes = [
        _describe_box(head, name, thresholds, is_muted)
        for head, name, is_muted in ordered
    ]
    return formatting.TEMPLATES.render("marks.html", boxes=boxes)


def judge(probability: float | None, thresholds: calibration.Thresholds) -> str | None:
    """Returns the verdict on one head; None without a probability."""
    if probability is None:
        return None
    return calibration.decide_verdict(probability, thresholds)


def _describe_box(
    head: Mapping, name: str, thresholds: calibration.Thresholds, is_muted: bool
) -> dict[str, str]:
    top, left, bottom, right = (min(max(x, 0.0), 1.0) for x in head["box"])
    probability = head["fake_probability"]
    percent = "?" if probability is None else f"{100 * probability:.0f} %"
    style = formatting.choose_style_class(judge(probability, thresholds))
    is_at_right = left > _AT_RIGHT
    return {
        "style": f"{style} aside" if is_muted else style,
        "x": _format_place(left),
        "y": _format_place(top),
        "width": _format_place(right - left),
        "height": _format_place(bottom - top),
        "label": f"{name}: {percent}".strip(": "),
        "label_x": _format_place(right if is_at_right else left),
        "anchor": "end" if is_at_right else "start",
        "shift": "1.1em" if top < _AT_TOP else "-.35em",
    }


def _format_place(value: float) -> str:
    return f"{100 * value:.2f}%"
