"""The box format, defined here once, and the geometry of boxes.

A box is `[ymin, xmin, ymax, xmax]`, float32, relative to the upright original image:
0 is its top or left edge and 1 its bottom or right edge ("rel_yxyx"). A batch of boxes
is `[..., 4]`; batches of a fixed number of boxes are padded with zeros.
"""

import fractions
from typing import Any

from keras import ops

Tensor = Any


def area(boxes: Tensor) -> Tensor:
    """Areas `[...]` of boxes `[..., 4]`; 0 for inverted boxes."""
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Intersection over union of each of `[N, 4]` with each of `[M, 4]`: `[N, M]`.

    Boxes without area have an IoU of 0 with all boxes, including themselves.
    """
    top_left = ops.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    bottom_right = ops.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    shared = area(ops.concatenate([top_left, bottom_right], axis=-1))
    union = area(boxes_a)[:, None] + area(boxes_b)[None, :] - shared
    positive = union > 0.0
    return ops.where(positive, shared / ops.where(positive, union, 1.0), 0.0)


def clip(boxes: Tensor) -> Tensor:
    """Clips boxes `[..., 4]` to the image."""
    return ops.clip(boxes, 0.0, 1.0)


def margin_ratio(margin: float) -> fractions.Fraction:
    """Rounds the margin of `square_crops` to a thousandth, as a ratio of integers.

    1.3 is not a binary fraction, and crops must not depend on floating-point rounding.
    """
    return fractions.Fraction(margin).limit_denominator(1000)


def square_crops(
    boxes: Tensor, height: Tensor | int, width: Tensor | int, margin: float
) -> Tensor:
    """Returns the squares, in whole pixels, that are cut around heads.

    The side is `margin` times the longer side of the box, rounded down, and the square
    is centered on the box. It is moved inside at the top and left edges of the image,
    and shrunk at the bottom and right. This is the rule of FaceForensics++ (Roessler et
    al., 2019), computed in integers throughout.

    Args:
        boxes: `[N, 4]`; empty is fine.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        margin: Ratio of the side of the square to the longer side of the box, rounded
            to a thousandth.

    Returns:
        int32 `[N, 3]`: y and x of the top-left pixel and the side, at least 1. Squares
        are inside the image.
    """
    ratio = margin_ratio(margin)
    height = ops.cast(height, "int32")
    width = ops.cast(width, "int32")
    scale = ops.cast(ops.stack([height, width, height, width]), "float32")
    corners = ops.cast(ops.round(ops.cast(boxes, "float32") * scale), "int32")
    y1, x1, y2, x2 = (corners[:, i] for i in range(4))
    side = ops.maximum(y2 - y1, x2 - x1) * ratio.numerator // ratio.denominator
    y = ops.clip((y1 + y2) // 2 - side // 2, 0, height - 1)
    x = ops.clip((x1 + x2) // 2 - side // 2, 0, width - 1)
    side = ops.minimum(side, ops.minimum(height - y, width - x))
    return ops.stack([y, x, ops.maximum(side, 1)], axis=-1)


def crop_regions(
    boxes: Tensor, height: Tensor | int, width: Tensor | int, margin: float | None
) -> Tensor:
    """Returns the regions, in whole pixels, that a classifier sees of heads.

    Args:
        boxes: `[N, 4]`; empty is fine.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        margin: See `square_crops`; None if the boxes are crops already, such as whole
            images, so that each region is its box.

    Returns:
        int32 `[N, 4]`: y and x of the top-left pixel, height and width, at least 1.
    """
    if margin is not None:
        squares = square_crops(boxes, height, width, margin)
        return ops.concatenate([squares, squares[:, 2:]], axis=-1)
    scale = ops.cast(ops.stack([height, width, height, width]), "float32")
    corners = ops.cast(ops.round(ops.cast(boxes, "float32") * scale), "int32")
    extents = ops.maximum(corners[:, 2:] - corners[:, :2], 1)
    return ops.concatenate([corners[:, :2], extents], axis=-1)
