"""The boxes over an image, as inline SVG.

Places are in per cent of the image, so that lines and letters keep their size when
the image is scaled, on a phone and on paper.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from dfdetect.metrics import calibration
from dfdetect.reports.page import formatting

_AT_TOP = 0.06  # Nearer to the edge there is no room above a box.
_AT_RIGHT = 0.8


def shot(
    content: bytes,
    description: str,
    found: Sequence[Mapping],
    names: Sequence[str],
    thresholds: calibration.Thresholds,
    muted: Sequence[bool] = (),
) -> str:
    """An image with the boxes of its heads over it.

    Args:
        content: A JPEG without marks.
        description: For who does not see it; not escaped yet.
        found: See `over`.
        names: See `over`.
        thresholds: See `calibration.decide_verdict`.
        muted: See `over`.
    """
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None  # It was encoded here.
    height, width = pixels.shape[:2]
    size = f'width="{width}" height="{height}"'
    return (
        f'<figure class="shot">{formatting.image(content, description, size)}'
        f"{over(found, names, thresholds, muted)}</figure>"
    )


def over(
    heads: Sequence[Mapping],
    names: Sequence[str],
    thresholds: calibration.Thresholds,
    muted: Sequence[bool] = (),
) -> str:
    """The boxes of heads, each with its name and fake probability.

    Args:
        heads: Each with `box` and `fake_probability`, or None.
        names: Of each, such as its number; not escaped yet.
        thresholds: See `calibration.decide_verdict`.
        muted: Of each, whether it is drawn faint, below the others; none by default.
    """
    drawn = []
    # The most suspicious last, so that it is never covered.
    for head, name, is_muted in sorted(
        zip(heads, names, muted or [False] * len(heads), strict=True),
        key=lambda x: (not x[2], x[0]["fake_probability"] or -1),
    ):
        top, left, bottom, right = (min(max(x, 0.0), 1.0) for x in head["box"])
        probability = head["fake_probability"]
        label = "?" if probability is None else f"{100 * probability:.0f} %"
        anchor, x = ("end", right) if left > _AT_RIGHT else ("start", left)
        shift = "1.1em" if top < _AT_TOP else "-.35em"
        place = _rectangle(left, top, right - left, bottom - top)
        kind = formatting.kind(verdict(probability, thresholds))
        if is_muted:
            kind += " aside"
        drawn.append(
            f'<g class="{kind}">'
            f'<rect class="ground" {place}/><rect class="line" {place}/>'
            f'<text x="{100 * x:.2f}%" y="{100 * top:.2f}%" dy="{shift}" '
            f'text-anchor="{anchor}">{formatting.text(f"{name}: {label}".strip(": "))}'
            "</text></g>"
        )
    return f'<svg class="marks" aria-hidden="true">{"".join(drawn)}</svg>'


def verdict(
    probability: float | None, thresholds: calibration.Thresholds
) -> str | None:
    """That of one head; None without a probability."""
    if probability is None:
        return None
    return calibration.decide_verdict(probability, thresholds)


def _rectangle(x: float, y: float, width: float, height: float) -> str:
    names = ("x", "y", "width", "height")
    values = (x, y, width, height)
    return " ".join(
        f'{name}="{100 * value:.2f}%"'
        for name, value in zip(names, values, strict=True)
    )
