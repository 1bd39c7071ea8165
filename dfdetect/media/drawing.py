"""What a person looks at: images with their heads marked."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import matplotlib.figure

_GREY = (128, 128, 128)  # a head without a probability

_MOST_COVERED = 0.6  # of an image by a heat map

# Of the boxes that are there, and of those that a detector gives.
TRUE, PREDICTED = (0, 220, 0), (255, 140, 0)


def colour(fake_probability: float) -> tuple[int, int, int]:
    """RGB from green (0, real) over yellow to red (1, fake); grey for NaN."""
    if math.isnan(fake_probability):
        return _GREY
    red = min(1.0, 2 * fake_probability)
    green = min(1.0, 2 * (1 - fake_probability))
    return round(255 * red), round(255 * green), 0


def annotate(
    image: np.ndarray,
    boxes: np.ndarray,
    fake_probabilities: Sequence[float],
    notes: Sequence[str] = (),
    muted: Sequence[bool] = (),
) -> np.ndarray:
    """Draws each head's box and fake probability.

    Args:
        image: `[height, width, 3]` uint8 RGB; left as it is.
        boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`.
        fake_probabilities: One for each box, in [0, 1]; NaN is drawn grey, as "?".
        notes: One for each box, written behind its probability; none by default.
        muted: One for each box, whether it is drawn grey whatever its probability, and
            below the others; none by default.

    Returns:
        A copy of `image` with lines and letters in proportion to its size.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if len(boxes) != len(fake_probabilities):
        raise ValueError(
            f"{len(boxes)} boxes need as many probabilities, "
            f"got {len(fake_probabilities)}."
        )
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    line = max(1, round(min(height, width) / 200))
    scale = np.array([height, width, height, width])
    last = np.array([height, width, height, width]) - 1
    # The most suspicious last, so that it is never covered.
    order = np.nan_to_num(fake_probabilities, nan=-1.0)
    if muted:
        order = order - 2.0 * np.asarray(muted)
    for i in np.argsort(order, kind="stable"):
        top, left, bottom, right = np.clip(np.round(boxes[i] * scale), 0, last).astype(
            int
        )
        probability = float(fake_probabilities[i])
        ink = _GREY if muted and muted[i] else colour(probability)
        cv2.rectangle(canvas, (left, top), (right, bottom), ink, thickness=line)
        text = "?" if math.isnan(probability) else f"{probability:.2f}"
        if notes and notes[i]:
            text = f"{text} {notes[i]}"
        _label(canvas, text, (left, top, right - left), ink, line)
    return canvas


def heat(image: np.ndarray, regions: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Lays heat maps over regions of an image.

    Args:
        image: `[height, width, 3]` uint8 RGB; left as it is.
        regions: int `[num_heads, 4]` inside the image: y, x, height and width in
            pixels.
        maps: `[num_heads, S, S]` in [0, 1].

    Returns:
        A copy of `image`, the more covered, from blue to red, the higher a map is.
    """
    canvas = image.astype(np.float32)
    for (y, x, height, width), one in zip(regions, maps, strict=True):
        one = cv2.resize(one, (int(width), int(height)), interpolation=cv2.INTER_LINEAR)
        levels = np.round(255 * np.clip(one, 0, 1)).astype(np.uint8)
        colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
        share = _MOST_COVERED * levels[..., None] / np.float32(255)
        part = canvas[y : y + height, x : x + width]
        part += share * (colours - part)
    return np.round(canvas).astype(np.uint8)


def rectangle(
    canvas: np.ndarray,
    box: np.ndarray,
    colour: tuple[int, int, int],
    text: str = "",
    line: int = 1,
) -> None:
    """Draws a box, ymin, xmin, ymax and xmax in pixels, and a small text above it."""
    top, left, bottom, right = (int(round(float(edge))) for edge in box)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, line)
    place = (left, max(top - 2, 8))
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1)


def encode(image: np.ndarray, suffix: str, quality: int = 95) -> bytes:
    """Encodes an RGB image as what a file with this suffix (".jpg", ".png") holds.

    Raises:
        ValueError: The format cannot hold it; a JPEG has at most 65500 pixels a side.
    """
    is_png = suffix.lower() == ".png"
    parameters = [] if is_png else [cv2.IMWRITE_JPEG_QUALITY, quality]
    height, width = image.shape[:2]
    message = f"an image of {width} x {height} pixels cannot be written as {suffix}."
    try:
        done, content = cv2.imencode(
            suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters
        )
    except cv2.error as error:
        raise ValueError(message) from error
    if not done:
        raise ValueError(message)
    return content.tobytes()


def png(figure: "matplotlib.figure.Figure") -> bytes:
    """A figure of matplotlib as a PNG file."""
    # Here, as whoever detects has no figure to wait for.
    from matplotlib.backends import backend_agg

    content = io.BytesIO()
    backend_agg.FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def _label(
    canvas: np.ndarray,
    text: str,
    place: tuple[int, int, int],
    background: tuple[int, int, int],
    line: int,
) -> None:
    """Writes black on a filled ground.

    It stands above `place` (left, top, width), or within at the image's upper edge,
    and is no wider than the box unless that were too small to read.
    """
    left, top, box_width = place
    font, stroke = cv2.FONT_HERSHEY_SIMPLEX, max(1, line // 2)
    (unit_width, _), _ = cv2.getTextSize(text, font, 1.0, stroke)
    size = max(0.35, min(0.25 * line, box_width / unit_width))
    (text_width, text_height), descent = cv2.getTextSize(text, font, size, stroke)
    label_height = text_height + descent + line
    left = max(0, min(left, canvas.shape[1] - text_width))
    top = top - label_height if top >= label_height else top
    bottom = top + label_height
    cv2.rectangle(canvas, (left, top), (left + text_width, bottom), background, -1)
    baseline = (left, bottom - descent)
    cv2.putText(canvas, text, baseline, font, size, (0, 0, 0), stroke, cv2.LINE_AA)
