"""Drawn photographs with a known number of heads: what the benchmark is fed with."""

import cv2
import numpy as np

from dfdetect import files

# Columns and rows of places for heads, by the most heads that they hold.
_GRIDS = {1: (1, 1), 2: (2, 1), 4: (4, 1), 10: (5, 2)}
MOST_HEADS = max(_GRIDS)

_ASPECT = 4 / 3


def drawn(count: int, num_heads: int, width: int = 640, seed: int = 0) -> list[bytes]:
    """Draws JPEGs, matplotlib's portrait some times over in each before noise.

    Args:
        count: How many pictures.
        num_heads: Portraits in each, 0 to `MOST_HEADS`.
        width: Of a picture, in pixels; its height is 3/4 of that.
        seed: The same number draws the same pictures.

    Raises:
        ValueError: There is no room for so many heads.
    """
    if not 0 <= num_heads <= MOST_HEADS:
        raise ValueError(f"num_heads must be 0 to {MOST_HEADS}, got {num_heads}.")
    random = np.random.default_rng(seed)
    portrait = cv2.imread(files.sample())
    assert portrait is not None
    height = round(width / _ASPECT)
    columns, rows = next(grid for most, grid in _GRIDS.items() if most >= num_heads)
    place_width, place_height = width // columns, height // rows
    scale = 0.9 * min(place_height / portrait.shape[0], place_width / portrait.shape[1])
    head = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pictures = []
    for _ in range(count):
        noise = random.integers(0, 256, (12, 16, 3), np.uint8)
        canvas = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        for place in range(num_heads):
            top = place // columns * place_height
            left = place % columns * place_width
            top += int(random.integers(0, place_height - head.shape[0] + 1))
            left += int(random.integers(0, place_width - head.shape[1] + 1))
            canvas[top : top + head.shape[0], left : left + head.shape[1]] = head
        pictures.append(cv2.imencode(".jpg", canvas)[1].tobytes())
    return pictures
