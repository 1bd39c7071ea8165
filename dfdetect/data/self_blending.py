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

import dataclasses

import tensorflow as tf

from dfdetect.data import blending_masks, degradations

_MAX_SHIFT = 0.03  # Relative to the sides of the head.
_MAX_SCALING = 0.05

MASKS = blending_masks.NAMES
MISMATCHES = ("resolution", "warp")
_FACE_SIDES = (48.0, 160.0)  # That forgeries are generated at, about, in pixels.
_MAX_TURN = 0.09  # In radians.
_MAX_SHEAR = 0.04
_MAX_TILT = 0.05  # How much smaller one edge of the head may get than its middle.


@dataclasses.dataclass(frozen=True)
class Blending:
    """Settings of how blended copies differ, besides color, sharpness, shift and scale.

    Attributes:
        masks: Parts of the face that are replaced, of `MASKS`, each as often. Without
            any, the whole face, and one time in five only its upper or lower part.
        mismatches: Some of `MISMATCHES`. "resolution": the changed copy was made at a
            small size and compressed by itself, two times in three. "warp": the face
            that is put in is also turned, sheared and tilted.

    Raises:
        ValueError: There is no such mask or mismatch.
    """

    masks: tuple[str, ...] = ()
    mismatches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, known in (("masks", MASKS), ("mismatches", MISMATCHES)):
            for name in getattr(self, field):
                if name not in known:
                    raise ValueError(f"{field} must be of {known}, got {name!r}.")


DEFAULT = Blending()


def self_blend(
    image: tf.Tensor,
    seed: tf.Tensor,
    *,
    box: tf.Tensor | None = None,
    landmarks: tf.Tensor | None = None,
    blending: Blending = DEFAULT,
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
        blending: Which parts of the face are replaced, and how the copies differ.

    Returns:
        `[H, W, 3]` float32 in [0, 255].

    Raises:
        ValueError: `box` is not `[4]`, or `landmarks` are not `[num_points, 2]`.
    """
    return blend(
        *self_blend_parts(image, seed, box=box, landmarks=landmarks, blending=blending)
    )


def blend(source: tf.Tensor, target: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """`mask * source + (1 - mask) * target`, the mask `[H, W, 1]` in [0, 1]."""
    return mask * source + (1.0 - mask) * target


def self_blend_parts(
    image: tf.Tensor,
    seed: tf.Tensor,
    *,
    box: tf.Tensor | None = None,
    landmarks: tf.Tensor | None = None,
    blending: Blending = DEFAULT,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Builds the source, target and mask that `self_blend` blends.

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
    mask = blending_masks.draw_mask(
        (landmarks - middle) / half, seeds[1], blending.masks
    )
    mask = blending_masks.place_mask(mask, middle, half, tf.shape(image)[:2])

    changed = _sharpen_or_soften(_recolor(image, seeds[2]), seeds[3])
    if "resolution" in blending.mismatches:
        side = tf.reduce_max(2.0 * half * tf.cast(tf.shape(image)[:2], tf.float32))
        changed = _generate_anew(changed, _further(seeds[3]), side)
    draws = tf.random.stateless_uniform([5], seeds[4])
    # Either copy may be the changed one: else fakes would be known by their colors.
    source, target = tf.cond(
        draws[4] < 0.5, lambda: (changed, image), lambda: (image, changed)
    )
    warp = None
    if "warp" in blending.mismatches:
        warp = tf.random.stateless_uniform([4], _further(seeds[4]), -1.0, 1.0)
    source = _move(source, draws[:4] * 2.0 - 1.0, middle, half, warp)
    mask = tf.ensure_shape(mask, [*image.shape[:2], 1])
    return source, target, mask


def _further(seed: tf.Tensor) -> tf.Tensor:
    """A seed of its own: what else is drawn stays the same."""
    return tf.random.experimental.stateless_fold_in(seed, 1)


def _default_box(seed: tf.Tensor) -> tf.Tensor:
    """About where the head lies in a crop with a margin: `boxes.square_crops`."""
    draws = tf.random.stateless_uniform([4], seed)
    sides = tf.constant([0.75, 0.65]) + 0.25 * draws[:2]
    middle = 0.5 + 0.1 * (draws[2:] - 0.5)
    return tf.concat([middle - sides / 2.0, middle + sides / 2.0], axis=0)


def _bounding_box(points: tf.Tensor) -> tf.Tensor:
    return tf.concat([tf.reduce_min(points, 0), tf.reduce_max(points, 0)], axis=0)


def _recolor(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Changes hue, saturation, contrast, brightness and each channel's level."""
    draws = tf.random.stateless_uniform([7], seed, -1.0, 1.0)
    hue, saturation = 0.06 * draws[0], 1.0 + 0.3 * draws[1]
    # All of it is linear but the clipping: one product with a matrix. Hue turns the
    # plane of the two color differences, saturation stretches it.
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


def _generate_anew(image: tf.Tensor, seed: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Brings an image to the size of a generator and back, and compresses it.

    Args:
        image: `[H, W, 3]`.
        seed: int32 `[2]`; two times in three.
        side: The longer one of the head, in pixels of the image.
    """
    seeds = tf.random.split(seed, 3)
    draws = tf.random.stateless_uniform([2], seeds[0])
    low, high = (tf.math.log(x) for x in _FACE_SIDES)
    wanted = tf.exp(low + (high - low) * draws[1])
    factor = tf.clip_by_value(wanted / tf.maximum(side, 1.0), 0.1, 1.0)

    def generate() -> tf.Tensor:
        small = degradations.rescale(image, seeds[1], (factor, factor + 1e-3))
        return degradations.compress_jpeg(small, seeds[2])

    return tf.cond(draws[0] < 2 / 3, generate, lambda: image)


def _move(
    image: tf.Tensor,
    draws: tf.Tensor,
    middle: tf.Tensor,
    half: tf.Tensor,
    warp: tf.Tensor | None = None,
) -> tf.Tensor:
    """Moves an image about the head, by `draws` and `warp` in [-1, 1] of the bounds.

    Args:
        image: `[H, W, 3]`.
        draws: Shift and scaling along y and x, `[4]`.
        middle: y and x of the head, relative.
        half: Half of its sides, relative.
        warp: Turn, shear, and tilt along y and x, `[4]`.
    """
    extent = tf.shape(image)[:2]
    sides = tf.cast(extent, tf.float32)
    shift = draws[:2] * _MAX_SHIFT * 2.0 * half * sides
    scale = 1.0 / (1.0 + _MAX_SCALING * draws[2:])
    # Of each pixel of the result, the pixel of the image that is shown there. The
    # center of pixel 0 is 0.
    pivot = middle * sides - 0.5
    offset = pivot - (pivot + shift) * scale
    transform = tf.stack([scale[1], 0.0, offset[1], 0.0, scale[0], offset[0], 0.0, 0.0])
    if warp is not None:
        transform = _warp_about(transform, warp, pivot, half * sides)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=extent,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )[0]
    return tf.ensure_shape(moved, image.shape)


def _warp_about(
    transform: tf.Tensor, warp: tf.Tensor, pivot: tf.Tensor, half: tf.Tensor
) -> tf.Tensor:
    """Turns, shears and tilts about a point, before a transform of eight numbers.

    Args:
        transform: `[8]`, see `ImageProjectiveTransformV3`.
        warp: See `_move`.
        pivot: y and x of the point, in pixels.
        half: Half of the sides of the head, in pixels.
    """
    turn, shear = _MAX_TURN * warp[0], _MAX_SHEAR * warp[1]
    tilt = _MAX_TILT * warp[2:] / tf.maximum(half, 1.0)
    one, zero = tf.constant(1.0), tf.constant(0.0)

    def stack(*rows: tuple[tf.Tensor, ...]) -> tf.Tensor:
        return tf.stack([tf.stack(row) for row in rows])

    bent = stack(
        (tf.cos(turn), shear - tf.sin(turn), zero),
        (tf.sin(turn), tf.cos(turn), zero),
        (tilt[1], tilt[0], one),
    )
    there = stack((one, zero, pivot[1]), (zero, one, pivot[0]), (zero, zero, one))
    back = stack((one, zero, -pivot[1]), (zero, one, -pivot[0]), (zero, zero, one))
    first = tf.reshape(tf.concat([transform, [1.0]], 0), [3, 3])
    whole = tf.reshape(first @ there @ bent @ back, [9])
    # 0 where the first pixel of a large image lies at the horizon of the tilt.
    scale = tf.where(tf.abs(whole[8]) < 1e-3, 1e-3, whole[8])
    return whole[:8] / scale
