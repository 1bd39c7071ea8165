"""Anchor boxes of EfficientDet, and the coding of boxes relative to them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

_SIZE_MULTIPLE = 32
_SMALLEST = 1e-8  # Keeps the logarithm finite for padded boxes of size zero.


class Anchors:
    """The anchor boxes of one input size.

    Their order is level, row, column, octave, aspect, which is the order of the
    outputs of `dfdetect.models.efficientdet`.

    Args:
        image_size: Side of the square input in pixels, a multiple of 32, the stride of
            a backbone's last features.
        anchor_scale: Side of the smallest anchor of a level in strides.
        min_level: First feature level. Each level has half the places of the one below
            it, rounded up, from `image_size` at level 0; its stride is `image_size`
            over its places: `2**level` pixels where nothing was rounded.
        max_level: Last feature level.
        num_octaves: Anchor sizes per octave.
        aspect_ratios: Width divided by height.

    Raises:
        ValueError: `image_size` is not a positive multiple of 32.

    Source: Tan et al., EfficientDet, 2020, as google/automl computes them.
    """

    def __init__(
        self,
        image_size: int,
        anchor_scale: float = 4.0,
        *,
        min_level: int = 3,
        max_level: int = 7,
        num_octaves: int = 3,
        aspect_ratios: Sequence[float] = (1.0, 2.0, 0.5),
    ) -> None:
        if image_size < 1 or image_size % _SIZE_MULTIPLE:
            raise ValueError(
                f"image_size must be a positive multiple of {_SIZE_MULTIPLE}, "
                f"got {image_size}."
            )
        self.image_size = image_size
        self.anchor_scale = anchor_scale
        self.min_level = min_level
        self.max_level = max_level
        self.num_octaves = num_octaves
        self.aspect_ratios = tuple(aspect_ratios)
        levels = [self._level_boxes(level) for level in self.levels]
        self.boxes = (np.concatenate(levels) / image_size).astype(np.float32)

    @property
    def levels(self) -> range:
        """Feature levels from the finest to the coarsest."""
        return range(self.min_level, self.max_level + 1)

    @property
    def num_per_location(self) -> int:
        """Anchors at each place of a feature map."""
        return self.num_octaves * len(self.aspect_ratios)

    @property
    def sides(self) -> list[int]:
        """Places along either side of the feature maps, of `levels`."""
        return [-(-self.image_size // 2**level) for level in self.levels]

    def _level_boxes(self, level: int) -> np.ndarray:
        """Returns `[num, 4]` corners in pixels; they may lie outside the image."""
        side = self.sides[level - self.min_level]
        stride = self.image_size / side
        halves = []
        for octave in range(self.num_octaves):
            half = self.anchor_scale * stride * 2 ** (octave / self.num_octaves) / 2
            for ratio in self.aspect_ratios:
                halves.append((half / math.sqrt(ratio), half * math.sqrt(ratio)))
        centers = (np.arange(side) + 0.5) * stride
        rows, columns = np.meshgrid(centers, centers, indexing="ij")
        places = np.stack([rows, columns], axis=-1).reshape(-1, 1, 2)
        half_sizes = np.array(halves)[None]
        corners = np.concatenate([places - half_sizes, places + half_sizes], axis=-1)
        return corners.reshape(-1, 4)


def _centers_and_sizes(boxes: Any) -> tuple[Any, Any, Any, Any]:
    ymin, xmin, ymax, xmax = ops.unstack(boxes, 4, axis=-1)
    return (ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin


def encode(boxes: Any, anchor_boxes: Any) -> Any:
    """Expresses boxes as offsets from anchors.

    Args:
        boxes: `[..., 4]` in the format of `dfdetect.boxes`.
        anchor_boxes: `[..., 4]`, one for each box.

    Returns:
        `[..., 4]` float32: shift of the center (y, x) in anchor sizes, then logarithm
        of the ratio of the sizes (height, width).
    """
    boxes = ops.cast(boxes, "float32")
    anchor_boxes = ops.cast(anchor_boxes, "float32")
    y, x, height, width = _centers_and_sizes(boxes)
    anchor_y, anchor_x, anchor_height, anchor_width = _centers_and_sizes(anchor_boxes)
    height = ops.maximum(height, _SMALLEST)
    width = ops.maximum(width, _SMALLEST)
    return ops.stack(
        [
            (y - anchor_y) / anchor_height,
            (x - anchor_x) / anchor_width,
            ops.log(height / anchor_height),
            ops.log(width / anchor_width),
        ],
        axis=-1,
    )


def decode(offsets: Any, anchor_boxes: Any) -> Any:
    """Turns offsets from anchors back into boxes; the inverse of `encode`.

    Args:
        offsets: `[..., 4]`.
        anchor_boxes: `[..., 4]`; leading dimensions broadcast.

    Returns:
        `[..., 4]` float32 boxes, not clipped.
    """
    offsets = ops.cast(offsets, "float32")
    anchor_boxes = ops.cast(anchor_boxes, "float32")
    shift_y, shift_x, log_height, log_width = ops.unstack(offsets, 4, axis=-1)
    anchor_y, anchor_x, anchor_height, anchor_width = _centers_and_sizes(anchor_boxes)
    y = shift_y * anchor_height + anchor_y
    x = shift_x * anchor_width + anchor_x
    half_height = ops.exp(log_height) * anchor_height / 2
    half_width = ops.exp(log_width) * anchor_width / 2
    return ops.stack(
        [y - half_height, x - half_width, y + half_height, x + half_width], axis=-1
    )
