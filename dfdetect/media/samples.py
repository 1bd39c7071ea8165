"""Sample images of drawn heads and a photograph, for exports, checks and benchmarks."""

import cv2
import numpy as np

from dfdetect import files
from dfdetect.media import source_files

_SKIN, _HAIR, _SHIRT = (150, 175, 225), (35, 45, 60), (140, 90, 60)  # BGR
# Columns and rows of a grid, by the number of heads that it has room for.
_GRIDS = {1: (1, 1), 2: (2, 1), 4: (4, 1), 10: (5, 2)}
MOST_HEADS = max(_GRIDS)
_ASPECT = 4 / 3


def draw_samples(count: int, seed: int = 0) -> list[bytes]:
    """Draws images of various sizes with one to three heads, JPEG and PNG in turn.

    Args:
        count: Number of images.
        seed: Seed of the drawing; the same seed gives the same images.
    """
    random = np.random.default_rng(seed)
    images = []
    for i in range(count):
        height, width = (int(side) for side in random.integers(240, 640, 2))
        image = _draw(random, height, width, 1 + i % 3)
        suffix = (".jpg", ".png")[i % 2]
        images.append(cv2.imencode(suffix, image)[1].tobytes())
    return images


def read_portrait() -> bytes:
    """Reads the portrait that matplotlib installs."""
    return files.read(source_files.find_sample())


def _draw(
    random: np.random.Generator, height: int, width: int, num_heads: int
) -> np.ndarray:
    """Draws an image, `[height, width, 3]` uint8 BGR."""
    slope = np.linspace(random.uniform(60, 120), random.uniform(120, 200), height)
    image = np.broadcast_to(slope[:, None, None], (height, width, 3)).astype(np.uint8)
    image = np.ascontiguousarray(image)
    radius = min(height / 4, width / num_heads / 4)
    for i in range(num_heads):
        size = radius * random.uniform(0.7, 1.0)
        x = width * (i + random.uniform(0.4, 0.6)) / num_heads
        y = height * random.uniform(0.35, 0.45)
        _draw_head(image, x, y, size)
    grain = random.normal(0, 6, image.shape)
    return np.clip(image + cv2.GaussianBlur(grain, (3, 3), 0), 0, 255).astype(np.uint8)


def _draw_head(image: np.ndarray, x: float, y: float, size: float) -> None:
    def ellipse(dx, dy, width, height, color):
        center = (round(x + dx * size), round(y + dy * size))
        axes = (max(round(width * size), 1), max(round(height * size), 1))
        cv2.ellipse(image, center, axes, 0, 0, 360, color, -1, cv2.LINE_AA)

    ellipse(0, 2.4, 1.7, 1.3, _SHIRT)
    ellipse(0, 1.0, 0.35, 0.5, _SKIN)
    ellipse(0, -0.15, 0.85, 1.05, _HAIR)
    ellipse(0, 0.1, 0.7, 0.9, _SKIN)
    for side in (-1, 1):
        ellipse(side * 0.28, -0.05, 0.13, 0.07, (245, 245, 245))
        ellipse(side * 0.28, -0.05, 0.06, 0.06, _HAIR)
        ellipse(side * 0.28, -0.25, 0.18, 0.03, _HAIR)
    ellipse(0, 0.22, 0.09, 0.14, (125, 150, 200))
    ellipse(0, 0.55, 0.25, 0.06, (90, 90, 180))


def draw_portraits(
    count: int, num_heads: int, width: int = 640, seed: int = 0
) -> list[bytes]:
    """Draws JPEGs with copies of matplotlib's portrait on a background of noise.

    Args:
        count: Number of images.
        num_heads: Portraits in each image, 0 to `MOST_HEADS`.
        width: Width of an image in pixels; its height is 3/4 of that.
        seed: Seed of the drawing; the same seed gives the same images.

    Raises:
        ValueError: `num_heads` is out of range.
    """
    if not 0 <= num_heads <= MOST_HEADS:
        raise ValueError(f"num_heads must be 0 to {MOST_HEADS}, got {num_heads}.")
    random = np.random.default_rng(seed)
    portrait = cv2.imread(source_files.find_sample())
    assert portrait is not None
    height = round(width / _ASPECT)
    columns, rows = next(grid for most, grid in _GRIDS.items() if most >= num_heads)
    place_width, place_height = width // columns, height // rows
    scale = 0.9 * min(place_height / portrait.shape[0], place_width / portrait.shape[1])
    head = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    images = []
    for _ in range(count):
        noise = random.integers(0, 256, (12, 16, 3), np.uint8)
        canvas = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        for place in range(num_heads):
            top = place // columns * place_height
            left = place % columns * place_width
            top += int(random.integers(0, place_height - head.shape[0] + 1))
            left += int(random.integers(0, place_width - head.shape[1] + 1))
            canvas[top : top + head.shape[0], left : left + head.shape[1]] = head
        images.append(cv2.imencode(".jpg", canvas)[1].tobytes())
    return images
