"""Self-blended images: fakes made out of single real images.

An image is blended with a changed copy of itself. What is left is what most forgeries
share, a border between two sources that do not quite agree, and nothing that is of one
method of forgery alone. TensorFlow ops only; every draw from a seed. Images are
float32 RGB `[H, W, 3]` in [0, 255], and a seed is an int32 `[2]` of the stateless
random ops. What comes out is a fake; to label it so is up to the caller.

Source: Shiohara and Yamasaki, Detecting Deepfakes with Self-Blended Images, CVPR 2022;
written from the paper. Where there are no landmarks, a random oval in the box of the
head stands for their convex hull. The ranges are our own where no paper is named.
"""

import tensorflow as tf

from dfdetect.data import degradations

_BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # Of the paper.
_MAX_SHIFT = 0.03  # Of the sides of the head.
_MAX_SCALING = 0.05

# The mask is drawn on a small grid around the head and enlarged: it is smooth, and the
# work is the same for each size of image. On the grid the box is -1 to 1 both ways.
_GRID = 96
_REACH = 1.6  # The grid is -1.6 to 1.6.
_CELL = 2 * _REACH / _GRID
_DIRECTIONS = 128  # In which the hull of landmarks is bounded.


def self_blend(
    image: tf.Tensor,
    seed: tf.Tensor,
    box: tf.Tensor | None = None,
    landmarks: tf.Tensor | None = None,
) -> tf.Tensor:
    """Makes a fake of a real image.

    Args:
        image: `[H, W, 3]`.
        seed: int32 `[2]`.
        box: The head, `[4]` in the format of `dfdetect.boxes`. By default the image
            is the crop of one head, in its middle.
        landmarks: Points of the face, float32 `[num_points, 2]`, y and x relative to
            the image as in a box. With less than three, zero included, the box is
            used.

    Returns:
        `[H, W, 3]` float32 in [0, 255].

    Raises:
        ValueError: `box` is not `[4]`, or `landmarks` are not `[num_points, 2]`.
    """
    return blend(*self_blend_parts(image, seed, box, landmarks))


def blend(source: tf.Tensor, target: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """`mask * source + (1 - mask) * target`, the mask `[H, W, 1]` in [0, 1]."""
    return mask * source + (1.0 - mask) * target


def self_blend_parts(
    image: tf.Tensor,
    seed: tf.Tensor,
    box: tf.Tensor | None = None,
    landmarks: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What `self_blend` blends; see there.

    Returns:
        The source, whose face is put in, and the target, `[H, W, 3]` float32 in
        [0, 255], and the mask, `[H, W, 1]` float32 in [0, 1], 0 away from the head.
    """
    seeds = tf.random.split(seed, 5)
    box = _default_box(seeds[0]) if box is None else tf.convert_to_tensor(box)
    if not box.shape.is_compatible_with([4]):
        raise ValueError(f"box must be [4], got {box.shape}.")
    if landmarks is None:
        landmarks = tf.zeros([0, 2])
    landmarks = tf.convert_to_tensor(landmarks, tf.float32)
    if not landmarks.shape.is_compatible_with([None, 2]):
        raise ValueError(f"landmarks must be [num_points, 2], got {landmarks.shape}.")

    enough = tf.shape(landmarks)[0] >= 3
    region = tf.cond(enough, lambda: _bounding_box(landmarks), lambda: box)
    middle, half = (region[:2] + region[2:]) / 2.0, (region[2:] - region[:2]) / 2.0
    half = tf.maximum(half, 1e-3)
    mask = _mask((landmarks - middle) / half, seeds[1])
    mask = _place(mask, middle, half, tf.shape(image)[:2])

    changed = _sharpen_or_soften(_recolour(image, seeds[2]), seeds[3])
    draws = tf.random.stateless_uniform([5], seeds[4])
    # Either copy may be the changed one: else fakes would be known by their colours.
    source, target = tf.cond(
        draws[4] < 0.5, lambda: (changed, image), lambda: (image, changed)
    )
    source = _move(source, draws[:4] * 2.0 - 1.0, middle, half)
    mask = tf.ensure_shape(mask, [*image.shape[:2], 1])
    return source, target, mask


def _default_box(seed: tf.Tensor) -> tf.Tensor:
    """About where the head lies in a crop with a margin: `boxes.square_crops`."""
    draws = tf.random.stateless_uniform([4], seed)
    sides = tf.constant([0.75, 0.65]) + 0.25 * draws[:2]
    middle = 0.5 + 0.1 * (draws[2:] - 0.5)
    return tf.concat([middle - sides / 2.0, middle + sides / 2.0], axis=0)


def _bounding_box(points: tf.Tensor) -> tf.Tensor:
    return tf.concat([tf.reduce_min(points, 0), tf.reduce_max(points, 0)], axis=0)


def _recolour(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Changes hue, saturation, contrast, brightness and each channel's level."""
    draws = tf.random.stateless_uniform([7], seed, -1.0, 1.0)
    hue, saturation = 0.06 * draws[0], 1.0 + 0.3 * draws[1]
    # All of it is linear but the clipping: one product with a matrix. Hue turns the
    # plane of the two colour differences, saturation stretches it.
    turn = tf.stack(
        [
            tf.constant([1.0, 0.0, 0.0]),
            tf.stack([0.0, saturation * tf.cos(hue), saturation * tf.sin(hue)]),
            tf.stack([0.0, -saturation * tf.sin(hue), saturation * tf.cos(hue)]),
        ]
    )
    matrix = tf.constant(degradations.RGB_TO_YCC) @ turn
    matrix = matrix @ tf.constant(degradations.YCC_TO_RGB) * (1.0 + 0.15 * draws[2])
    # No more: on a dark face a stronger tint is what gives the fake away.
    level = 12.0 * draws[3] + 8.0 * draws[4:]
    mean = tf.reduce_mean(image)
    changed = tf.tensordot(image - mean, matrix, 1) + mean + level
    return tf.ensure_shape(tf.clip_by_value(changed, 0.0, 255.0), image.shape)


def _sharpen_or_soften(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Adds or takes away high frequencies, half of the time each."""
    seeds = tf.random.split(seed, 2)
    draws = tf.random.stateless_uniform([2], seeds[0])

    def sharpen() -> tf.Tensor:
        detail = image - tf.nn.avg_pool2d(image[None], 3, 1, "SAME")[0]
        return tf.clip_by_value(image + (0.3 + 0.7 * draws[1]) * detail, 0.0, 255.0)

    return tf.cond(
        draws[0] < 0.5,
        sharpen,
        lambda: degradations.rescale(image, seeds[1], (0.3, 0.7)),
    )


def _move(
    image: tf.Tensor, draws: tf.Tensor, middle: tf.Tensor, half: tf.Tensor
) -> tf.Tensor:
    """Shifts and scales an image about the head, by `draws` in [-1, 1] of the bounds.

    Args:
        image: `[H, W, 3]`.
        draws: Shift and scaling along y and x, `[4]`.
        middle: y and x of the head, relative.
        half: Half of its sides, relative.
    """
    extent = tf.shape(image)[:2]
    sides = tf.cast(extent, tf.float32)
    shift = draws[:2] * _MAX_SHIFT * 2.0 * half * sides
    scale = 1.0 / (1.0 + _MAX_SCALING * draws[2:])
    # Of each pixel of the result, the pixel of the image that is shown there. The
    # centre of pixel 0 is 0.
    pivot = middle * sides - 0.5
    offset = pivot - (pivot + shift) * scale
    transform = tf.stack([scale[1], 0.0, offset[1], 0.0, scale[0], offset[0], 0.0, 0.0])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=extent,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )[0]
    return tf.ensure_shape(moved, image.shape)


def _mask(points: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A random soft mask on the grid.

    Args:
        points: Landmarks in coordinates of the grid, `[num_points, 2]`.
        seed: int32 `[2]`.

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

    depth = tf.cond(
        tf.shape(points)[0] >= 3,
        lambda: _depth_in_hull(y, x, points),
        lambda: _depth_in_oval(y, x, seeds[2]),
    )
    # Some forgeries replace the mouth or the eyes only.
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


def _place(
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
