"""Random changes to training pictures. TensorFlow ops only; every draw from a seed.

Pictures are float32 RGB in [0, 255] on the way in and out. A seed is an int32 `[2]`
of the stateless random ops: the same seed gives the same picture.
"""

import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect import images


def flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors `[H, W, 3]` left to right, half of the time."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def random_crop(
    image: tf.Tensor, size: int, seed: tf.Tensor, min_area: float = 0.7
) -> tf.Tensor:
    """Cuts a random window and resizes it to a square.

    Args:
        image: `[height, width, 3]`, any numeric dtype.
        size: Side of the result in pixels.
        seed: int32 `[2]`.
        min_area: Least share of the picture that stays; the sides vary by 9:8.

    Returns:
        `[size, size, 3]` float32 in [0, 255].
    """
    start, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        seed,
        aspect_ratio_range=(8 / 9, 9 / 8),
        area_range=(min_area, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return images.resize(tf.slice(image, start, extent), size)


def colour(image: tf.Tensor, seed: tf.Tensor, strength: float = 0.2) -> tf.Tensor:
    """Changes brightness, contrast and saturation by up to `strength`."""
    seeds = tf.random.split(seed, 3)
    image = tf.image.stateless_random_brightness(image, strength * 255, seeds[0])
    image = tf.image.stateless_random_contrast(
        image, 1 - strength, 1 + strength, seeds[1]
    )
    image = tf.clip_by_value(image, 0.0, 255.0)
    return tf.image.stateless_random_saturation(
        image, 1 - strength, 1 + strength, seeds[2]
    )


def flip_with_boxes(
    image: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors a picture and its boxes left to right, half of the time."""
    mirror = tf.random.stateless_uniform([], seed) < 0.5
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)
    mirrored = tf.stack([y1, 1.0 - x2, y2, 1.0 - x1], axis=-1)
    return (
        tf.where(mirror, tf.reverse(image, [1]), image),
        tf.where(mirror, mirrored, boxes),
    )


def scale_and_crop(
    image: tf.Tensor,
    boxes: tf.Tensor,
    size: int,
    seed: tf.Tensor,
    scales: tuple[float, float],
    min_visible: float = 0.4,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Scale jitter: the picture at a random scale, a random window of it.

    Args:
        image: `[height, width, 3]`, any numeric dtype.
        boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`.
        size: Side of the result in pixels.
        seed: int32 `[2]`.
        scales: Bounds of the scale, drawn evenly in its logarithm; 1 fits the longer
            side into `size`. EfficientDet, section 5.1, jitters from .1 to 2.
        min_visible: Boxes that keep a smaller share of their area are dropped.

    Returns:
        The picture, `[size, size, 3]` float32, padded like `images.letterbox`; the
        boxes relative to it, clipped, `[num_heads, 4]`; and which of them stay,
        `[num_heads]` bool. A box thinner than a pixel never stays.
    """
    image = tf.convert_to_tensor(image)
    seeds = tf.random.split(seed, 2)
    low, high = (tf.math.log(float(bound)) for bound in scales)
    scale = tf.exp(tf.random.stateless_uniform([], seeds[0], low, high))
    extent = tf.cast(tf.shape(image)[:2], tf.float32)
    scaled = tf.maximum(tf.round(extent * scale * size / tf.reduce_max(extent)), 1.0)

    # Cut from the original and resize only that: most of a large picture is thrown
    # away, and resizing costs more than everything else here.
    window = tf.minimum(scaled, float(size))
    offset = tf.random.stateless_uniform([2], seeds[1]) * (scaled - window)
    start = tf.cast(tf.floor(offset * extent / scaled), tf.int32)
    stop = tf.cast(tf.math.ceil((offset + window) * extent / scaled), tf.int32)
    stop = tf.minimum(tf.maximum(stop, start + 1), tf.shape(image)[:2])
    cut = image[start[0] : stop[0], start[1] : stop[1]]
    cut = tf.image.resize(cut, tf.cast(window, tf.int32), antialias=True)
    picture = images.pad_to_square(cut, size)

    first = tf.tile(tf.cast(start, tf.float32), [2])
    cut_extent = tf.tile(tf.cast(stop - start, tf.float32), [2])
    moved = (boxes * tf.tile(extent, [2]) - first) / cut_extent
    moved *= tf.tile(window, [2]) / size
    bound = tf.tile(window / size, [2])
    clipped = tf.clip_by_value(moved, 0.0, bound)
    sides = (clipped[:, 2:] - clipped[:, :2]) * size
    visible = tf.math.divide_no_nan(box_format.area(clipped), box_format.area(moved))
    keep = (visible >= min_visible) & tf.reduce_all(sides >= 1.0, axis=-1)
    return picture, clipped, keep
