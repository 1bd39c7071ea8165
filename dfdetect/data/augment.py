"""Random changes to training images. TensorFlow ops only; every draw from a seed.

Images are float32 RGB in [0, 255] on the way in and out. A seed is an int32 `[2]`
of the stateless random ops: the same seed gives the same image.
"""

from collections.abc import Sequence

import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect.media import resize


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
        min_area: Least share of the image that stays; the sides vary by 9:8.

    Returns:
        `[size, size, 3]` float32 in [0, 255].
    """
    return resize.resize(random_window(image, seed, min_area), size)


def random_window(
    image: tf.Tensor, seed: tf.Tensor, min_area: float = 0.7
) -> tf.Tensor:
    """Cuts a random window, see `random_crop`; returns it in the dtype of the image."""
    start, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        seed,
        aspect_ratio_range=(8 / 9, 9 / 8),
        area_range=(min_area, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.slice(image, start, extent)


def adjust_color(image: tf.Tensor, seed: tf.Tensor, strength: float = 0.2) -> tf.Tensor:
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


def compress_jpeg(
    image: tf.Tensor, seed: tf.Tensor, quality: tuple[int, int]
) -> tf.Tensor:
    """Compresses `[H, W, 3]` as JPEG, at a quality drawn from bounds, both included.

    Returns:
        Whole numbers in [0, 255], float32.

    Raises:
        ValueError: The bounds do not ascend within 0 to 100.
    """
    low, high = quality
    if not 0 <= low <= high <= 100:
        raise ValueError(f"quality must ascend within 0 to 100, got {quality}.")
    # As tf.image.stateless_random_jpeg_quality does; that never draws the upper bound,
    # and takes float images in [0, 1] only.
    drawn = tf.random.stateless_uniform([], seed, low, high + 1, tf.int32)
    pixels = tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)
    pixels = tf.image.adjust_jpeg_quality(pixels, drawn)
    return tf.cast(tf.ensure_shape(pixels, image.shape), tf.float32)


def flip_with_boxes(
    image: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors an image and its boxes left to right, half of the time."""
    mirror = tf.random.stateless_uniform([], seed) < 0.5
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)
    mirrored = tf.stack([y1, 1.0 - x2, y2, 1.0 - x1], axis=-1)
    return (
        tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: tf.identity(image)),
        tf.where(mirror, mirrored, boxes),
    )


def draw_scale(
    seed: tf.Tensor, scales: tuple[float, float], least: tf.Tensor | None = None
) -> tf.Tensor:
    """Draws the scale of `scale_and_crop`, a scalar float32.

    Args:
        seed: int32 `[2]`.
        scales: Bounds, see `scale_and_crop`.
        least: Lower bound in place of that of `scales`.

    Raises:
        ValueError: The bounds do not ascend above 0.
    """
    low, high = scales
    if not 0 < low <= high:
        raise ValueError(f"scales must be above 0 and ascend, got {scales}.")
    least = tf.constant(low, tf.float32) if least is None else least
    exponent = tf.random.stateless_uniform(
        [], tf.random.split(seed, 2)[0], tf.math.log(least), tf.math.log(float(high))
    )
    return tf.exp(exponent)


def find_visible(clipped: tf.Tensor, whole: tf.Tensor, min_visible: float) -> tf.Tensor:
    """Finds the boxes that stay after clipping to an image, `[num_heads]` bool.

    Boxes stay that keep `min_visible` of their area and no side below a pixel.

    Args:
        clipped: `[num_heads, 4]` in pixels.
        whole: `[num_heads, 4]`, the boxes before clipping.
        min_visible: Least share, in [0, 1].
    """
    visible = tf.math.divide_no_nan(box_format.area(clipped), box_format.area(whole))
    thick = tf.reduce_all(clipped[:, 2:] - clipped[:, :2] >= 1.0, axis=-1)
    return (visible >= min_visible) & thick


def scale_and_crop(
    image: tf.Tensor,
    boxes: tf.Tensor,
    *,
    size: int,
    seed: tf.Tensor,
    scales: tuple[float, float],
    min_visible: float = 0.4,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Scale jitter: the image at a random scale, a random window of it.

    Args:
        image: `[height, width, 3]`, any numeric dtype.
        boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`.
        size: Side of the result in pixels.
        seed: int32 `[2]`.
        scales: Bounds of the scale, drawn evenly in its logarithm; 1 fits the longer
            side into `size`. EfficientDet, section 5.1, jitters from .1 to 2.
        min_visible: Boxes that keep a smaller share of their area are dropped.

    Returns:
        The image, `[size, size, 3]` float32, padded like `resize.letterbox`; the
        boxes relative to it, clipped, `[num_heads, 4]`; and which of them stay,
        `[num_heads]` bool. A box thinner than a pixel never stays.
    """
    window, boxes, keep = cut_scaled_window(
        image,
        boxes,
        size=size,
        most=(size, size),
        seed=seed,
        scales=scales,
        min_visible=min_visible,
    )
    return resize.pad_to_square(window, size), boxes / size, keep


# Not keras_cv.layers.Mosaic, nor its jitter: they draw from generators that go on from
# call to call. A run that is resumed would see other images than one that never
# stopped, and two workers other ones than one.
def build_mosaic(
    images: Sequence[tf.Tensor],
    boxes: Sequence[tf.Tensor],
    *,
    size: int,
    seed: tf.Tensor,
    scales: tuple[float, float],
    min_visible: float = 0.4,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Joins four images at a random point, each of them scaled and cut at random.

    The point lies in the middle half of the result, so that each image has at least
    a quarter of either side. No image is smaller than what just fits into its part:
    else, at small scales, most of the result would be padding.

    Args:
        images: Four of `[height, width, 3]`, any numeric dtype: those at the top left
            and right, then those at the bottom left and right.
        boxes: Boxes of each image, `[num_heads, 4]` of `dfdetect.boxes`.
        size: Side of the result in pixels.
        seed: int32 `[2]`.
        scales: See `scale_and_crop`; the upper bound always holds.
        min_visible: See `scale_and_crop`.

    Returns:
        The image, `[size, size, 3]` float32; the boxes of all four, in their order,
        relative to it, clipped to their part, `[num_heads, 4]`; and which of them stay,
        `[num_heads]` bool. A box thinner than a pixel never stays.

    Raises:
        ValueError: There are not four images with their boxes.

    Source: Bochkovskiy et al., YOLOv4, section 3.3, 2020.
    """
    if len(images) != 4 or len(boxes) != 4:
        raise ValueError(
            "A mosaic wants four images with their boxes, got "
            f"{len(images)} and {len(boxes)}."
        )
    seeds = tf.random.split(seed, 5)
    center = tf.random.stateless_uniform([2], seeds[4], size / 4, size * 3 / 4)
    y, x = tf.unstack(tf.cast(center, tf.int32))
    parts, moved, kept = [], [], []
    for index, (top, left) in enumerate([(0, 0), (0, x), (y, 0), (y, x)]):
        height = size - y if index > 1 else y
        width = size - x if index % 2 else x
        part, part_boxes, keep = cut_scaled_window(
            images[index],
            boxes[index],
            size=size,
            most=(height, width),
            seed=seeds[index],
            scales=scales,
            min_visible=min_visible,
            fitting=True,
        )
        parts.append(resize.pad(part, height, width))
        corner = tf.cast(tf.stack([top, left, top, left]), tf.float32)
        moved.append((part_boxes + corner) / size)
        kept.append(keep)
    rows = [tf.concat(parts[:2], axis=1), tf.concat(parts[2:], axis=1)]
    image = tf.ensure_shape(tf.concat(rows, axis=0), [size, size, 3])
    return image, tf.concat(moved, axis=0), tf.concat(kept, axis=0)


def cut_scaled_window(
    image: tf.Tensor,
    boxes: tf.Tensor,
    *,
    size: int,
    most: tuple[tf.Tensor | int, tf.Tensor | int],
    seed: tf.Tensor,
    scales: tuple[float, float],
    min_visible: float = 0.4,
    fitting: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cuts a random window of an image at a random scale.

    Args:
        image: See `scale_and_crop`.
        boxes: See `scale_and_crop`.
        size: Length of the longer side at a scale of 1, in pixels.
        most: Greatest height and width of the window.
        seed: See `scale_and_crop`.
        scales: See `scale_and_crop`.
        min_visible: See `scale_and_crop`.
        fitting: Whether the scale is at least that which fits the image into `most`,
            if the upper bound permits.

    Returns:
        The window, `[height, width, 3]` float32, `most` pixels high and wide or all of
        the image; the boxes in pixels of it, clipped; and which of them stay.
    """
    image = tf.convert_to_tensor(image)
    seeds = tf.random.split(seed, 2)
    extent = tf.cast(tf.shape(image)[:2], tf.float32)
    of_one = extent * size / tf.reduce_max(extent)
    limit = tf.cast(tf.stack(most), tf.float32)
    least = None
    if fitting:
        least = tf.clip_by_value(tf.reduce_min(limit / of_one), *scales)
    scaled = tf.maximum(tf.round(of_one * draw_scale(seed, scales, least)), 1.0)

    # Cut from the original and resize only that: most of a large image is thrown
    # away, and resizing costs more than everything else here.
    window = tf.minimum(scaled, limit)
    offset = tf.random.stateless_uniform([2], seeds[1]) * (scaled - window)
    start = tf.cast(tf.floor(offset * extent / scaled), tf.int32)
    stop = tf.cast(tf.math.ceil((offset + window) * extent / scaled), tf.int32)
    stop = tf.minimum(tf.maximum(stop, start + 1), tf.shape(image)[:2])
    cut = image[start[0] : stop[0], start[1] : stop[1]]
    cut = resize.resize_to(cut, tf.cast(window, tf.int32))

    first = tf.tile(tf.cast(start, tf.float32), [2])
    ratio = window / tf.cast(stop - start, tf.float32)
    moved = (boxes * tf.tile(extent, [2]) - first) * tf.tile(ratio, [2])
    clipped = tf.clip_by_value(moved, 0.0, tf.tile(window, [2]))
    return cut, clipped, find_visible(clipped, moved, min_visible)
