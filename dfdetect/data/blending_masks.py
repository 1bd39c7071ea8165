"""Masks of self-blended images: where a face is replaced, and how much of it.

See `self_blending`, whose seeds and sources these are.
"""

import tensorflow as tf

_BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # Of the paper.

# The mask is drawn on a small grid around the head and enlarged: it is smooth, and the
# work is the same for each size of image. On the grid the box is -1 to 1 both ways.
_GRID = 96
_REACH = 1.6  # The grid is -1.6 to 1.6.
_CELL = 2 * _REACH / _GRID
_DIRECTIONS = 128  # In which the hull of landmarks is bounded.

# Parts of a face in the box of a frontal head, hair included: where the middle is, and
# half of the height and of the width.
_PARTS = {
    "inner": (0.25, 0.62, 0.6),
    "eyes_nose": (0.1, 0.36, 0.6),
    "mouth": (0.6, 0.22, 0.42),
}
NAMES = ("whole", *_PARTS)
# Landmarks reach from the brows to the chin: this part of the box of the head.
_FACE_MIDDLE, _FACE_HALF = 0.35, (0.65, 0.75)


def draw_mask(
    points: tf.Tensor, seed: tf.Tensor, masks: tuple[str, ...] = ()
) -> tf.Tensor:
    """A random soft mask on the grid.

    Args:
        points: Landmarks in coordinates of the grid, `[num_points, 2]`.
        seed: int32 `[2]`.
        masks: See `self_blending.Blending`.

    Returns:
        `[_GRID, _GRID]` in [0, 1], its largest value one of `_BLEND_RATIOS`, 0 at the
        edges.
    """
    seeds = tf.random.split(seed, 4)
    draws = tf.random.stateless_uniform([6], seeds[0])
    position = (tf.range(_GRID, dtype=tf.float32) + 0.5) * _CELL - _REACH
    y, x = tf.meshgrid(position, position, indexing="ij")

    # The elastic deformation bends the grid, not the mask: nothing to resample.
    bend = tf.random.stateless_truncated_normal([5, 5, 2], seeds[1], stddev=0.1)
    bend = tf.image.resize(bend * draws[0], [_GRID, _GRID], "bicubic")
    y, x = y + bend[..., 0], x + bend[..., 1]

    by_landmarks = tf.shape(points)[0] >= 3
    depth = tf.cond(
        by_landmarks,
        lambda: _depth_in_hull(y, x, points),
        lambda: _depth_in_oval(y, x, seeds[2]),
    )
    # Some forgeries replace the mouth or the eyes only.
    if masks:
        part = _depth_in_part(
            y, x, tf.random.experimental.stateless_fold_in(seed, 1), masks, by_landmarks
        )
        depth = tf.minimum(depth, part)
    else:
        border = 0.6 * (draws[2] - 0.5)
        part = tf.where(draws[2] < 0.5, y - border, border - y)
        depth = tf.where(draws[1] < 0.2, tf.minimum(depth, part), depth)
    mask = tf.clip_by_value(depth / _CELL + 0.5, 0.0, 1.0)

    # Of the paper: a blur, an erosion, another blur of another width.
    mask = _blur(mask, 0.02 * 6.0 ** draws[3])
    mask = tf.where(mask >= 0.9 * tf.reduce_max(mask), mask, 0.0)
    mask = _blur(mask, 0.02 * 10.0 ** draws[4])
    # Off with the tails of the Gaussian: a blend is the target itself outside.
    mask = tf.maximum(mask / tf.reduce_max(mask) - 0.02, 0.0) / 0.98
    mask = tf.pad(mask[1:-1, 1:-1], [[1, 1], [1, 1]])
    index = tf.cast(draws[5] * len(_BLEND_RATIOS), tf.int32)
    ratio = tf.gather(tf.constant(_BLEND_RATIOS), index)
    return ratio * mask


def _depth_in_oval(y: tf.Tensor, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """How far inside a random oval the points are, about; negative outside.

    Between an ellipse and a rectangle with round corners, narrower towards the chin.
    """
    draws = tf.random.stateless_uniform([7], seed)
    y, x = y + 0.2 * (draws[0] - 0.5), x + 0.2 * (draws[1] - 0.5)
    angle = 0.5 * (draws[2] - 0.5)
    y, x = (
        y * tf.cos(angle) - x * tf.sin(angle),
        y * tf.sin(angle) + x * tf.cos(angle),
    )
    height, width = 0.7 + 0.3 * draws[3], 0.65 + 0.3 * draws[4]
    width *= 1.0 - 0.3 * draws[5] * tf.clip_by_value(y / height, -1.0, 1.0)
    power = 2.0 + 1.5 * draws[6]
    radius = tf.abs(y / height) ** power + tf.abs(x / width) ** power
    return (1.0 - radius ** (1.0 / power)) * tf.minimum(height, width)


def _depth_in_part(
    y: tf.Tensor,
    x: tf.Tensor,
    seed: tf.Tensor,
    masks: tuple[str, ...],
    by_landmarks: tf.Tensor,
) -> tf.Tensor:
    """How far inside one of the parts the points are, drawn from `masks`, about.

    "whole" bounds nothing. Nobody knows where in its box a head has its mouth: the
    parts are moved and scaled at random.
    """
    seeds = tf.random.split(seed, 2)
    table = tf.constant([_PARTS.get(name, (0.0, 99.0, 99.0)) for name in masks])
    index = tf.random.stateless_uniform([], seeds[0], 0, len(masks), tf.int32)
    draws = tf.random.stateless_uniform([4], seeds[1], -1.0, 1.0)
    middle, height, width = tf.unstack(tf.gather(table, index))
    middle += 0.1 * draws[0]
    height, width = height * (1.0 + 0.2 * draws[2]), width * (1.0 + 0.2 * draws[3])
    # Of the box of the head, or of that of the landmarks.
    middle = tf.where(by_landmarks, (middle - _FACE_MIDDLE) / _FACE_HALF[0], middle)
    height = tf.where(by_landmarks, height / _FACE_HALF[0], height)
    width = tf.where(by_landmarks, width / _FACE_HALF[1], width)
    radius = ((y - middle) / height) ** 2 + ((x - 0.1 * draws[1]) / width) ** 2
    return (1.0 - tf.sqrt(radius)) * tf.minimum(height, width)


def _depth_in_hull(y: tf.Tensor, x: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """How far inside the convex hull of `points` the others are; negative outside.

    The hull is what no direction excludes, of so many that it is off by less than a
    cell of the grid.
    """
    angles = tf.range(_DIRECTIONS, dtype=tf.float32) * (6.2831853 / _DIRECTIONS)
    directions = tf.stack([tf.sin(angles), tf.cos(angles)])
    limits = tf.reduce_max(points @ directions, axis=0)
    others = tf.reshape(tf.stack([y, x], axis=-1), [-1, 2])
    depth = tf.reduce_min(limits - others @ directions, axis=1)
    return tf.reshape(depth, tf.shape(y))


def _blur(mask: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Blurs the grid with a Gaussian, `sigma` in its coordinates."""
    position = tf.range(_GRID, dtype=tf.float32) * _CELL
    weights = tf.exp(-0.5 * ((position[:, None] - position[None]) / sigma) ** 2)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return weights @ mask @ tf.transpose(weights)


def place_mask(
    mask: tf.Tensor, middle: tf.Tensor, half: tf.Tensor, extent: tf.Tensor
) -> tf.Tensor:
    """The grid on the image: `[_GRID, _GRID]` to `[H, W, 1]`, 0 outside the grid."""
    sides = tf.cast(extent, tf.float32)

    def cell(pixel: tf.Tensor) -> tf.Tensor:
        on_grid = ((pixel + 0.5) / sides - middle) / half
        return ((on_grid + _REACH) / _CELL - 0.5) / (_GRID - 1)

    corners = tf.concat([cell(tf.zeros([2])), cell(sides - 1.0)], axis=0)
    placed = tf.image.crop_and_resize(
        mask[None, :, :, None], corners[None], [0], extent
    )
    return tf.clip_by_value(placed[0], 0.0, 1.0)
