"""Draws boxes, labels and heat maps on images, and encodes images."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import matplotlib.figure

_GRAY = (128, 128, 128)  # A head without a probability.

_MAX_OPACITY = 0.6  # Of a heat map.

# Colors of ground-truth boxes and of a detector's boxes.
TRUE, PREDICTED = (0, 220, 0), (255, 140, 0)


def probability_color(fake_probability: float) -> tuple[int, int, int]:
    """Maps a probability to RGB: green (0, real) to red (1, fake), gray for NaN."""
    if math.isnan(fake_probability):
        return _GRAY
    red = min(1.0, 2 * fake_probability)
    green = min(1.0, 2 * (1 - fake_probability))
    return round(255 * red), round(255 * green), 0


def annotate(
    image: np.ndarray,
    boxes: np.ndarray,
    fake_probabilities: Sequence[float],
    *,
    notes: Sequence[str] = (),
    muted: Sequence[bool] = (),
) -> np.ndarray:
    """Draws the box and fake probability of each head.

    Args:
        image: `[height, width, 3]` uint8 RGB; not modified.
        boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`.
        fake_probabilities: One for each box, in [0, 1]; NaN is drawn gray, as "?".
        notes: One for each box, written after its probability; by default none.
        muted: One for each box, whether it is drawn gray whatever its probability, and
            below the others; by default none.

    Returns:
        A copy of `image`; lines and text scale with its size.
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
    # The most suspicious head last, so that nothing covers it.
    order = np.nan_to_num(fake_probabilities, nan=-1.0)
    if muted:
        order = order - 2.0 * np.asarray(muted)
    for i in np.argsort(order, kind="stable"):
        top, left, bottom, right = np.clip(np.round(boxes[i] * scale), 0, last).astype(
            int
        )
        probability = float(fake_probabilities[i])
        ink = _GRAY if muted and muted[i] else probability_color(probability)
        cv2.rectangle(canvas, (left, top), (right, bottom), ink, thickness=line)
        text = "?" if math.isnan(probability) else f"{probability:.2f}"
        if notes and notes[i]:
            text = f"{text} {notes[i]}"
        _label(canvas, text, place=(left, top, right - left), background=ink, line=line)
    return canvas


def overlay_heat_maps(
    image: np.ndarray, regions: np.ndarray, maps: np.ndarray
) -> np.ndarray:
    """Overlays heat maps on regions of an image.

    Args:
        image: `[height, width, 3]` uint8 RGB; not modified.
        regions: int `[num_heads, 4]` inside the image: y, x, height and width in
            pixels.
        maps: `[num_heads, S, S]` in [0, 1].

    Returns:
        A copy of `image`; higher values are more opaque, from blue to red.
    """
    canvas = image.astype(np.float32)
    for (y, x, height, width), one in zip(regions, maps, strict=True):
        one = cv2.resize(one, (int(width), int(height)), interpolation=cv2.INTER_LINEAR)
        levels = np.round(255 * np.clip(one, 0, 1)).astype(np.uint8)
        colors = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
        opacity = _MAX_OPACITY * levels[..., None] / np.float32(255)
        part = canvas[y : y + height, x : x + width]
        part += opacity * (colors - part)
    return np.round(canvas).astype(np.uint8)


def make_drawable(text: str) -> str:
    """Replaces characters that OpenCV's fonts lack; it ends the process at some."""
    return text.encode("ascii", "replace").decode()


def draw_box(
    canvas: np.ndarray,
    box: np.ndarray,
    color: tuple[int, int, int],
    *,
    text: str = "",
    line: int = 1,
) -> None:
    """Draws a box (ymin, xmin, ymax, xmax in pixels) and small text above it."""
    top, left, bottom, right = (int(round(float(edge))) for edge in box)
    cv2.rectangle(canvas, (left, top), (right, bottom), color, line)
    place = (left, max(top - 2, 8))
    text = make_drawable(text)
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, color, 1)


def encode_image(image: np.ndarray, suffix: str, quality: int = 95) -> bytes:
    """Encodes an RGB image in the format of a suffix (".jpg", ".png").

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


def encode_figure(figure: "matplotlib.figure.Figure") -> bytes:
    """Renders a matplotlib figure to a PNG file."""
    # Imported here, because detection should not wait for matplotlib.
    from matplotlib.backends import backend_agg

    content = io.BytesIO()
    backend_agg.FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def _label(
    canvas: np.ndarray,
    text: str,
    *,
    place: tuple[int, int, int],
    background: tuple[int, int, int],
    line: int,
) -> None:
    """Writes black text on a filled background.

    The label is above `place` (left, top, width), or inside it at the upper edge of the
    image, and no wider than the box unless that would be too small to read.
    """
    left, top, box_width = place
    font, stroke = cv2.FONT_HERSHEY_SIMPLEX, max(1, line // 2)
    text = make_drawable(text)
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
