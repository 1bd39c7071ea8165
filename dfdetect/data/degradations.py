"""Random degradations that images meet on the Internet: JPEG, scaling, blur, noise.

For the training of the classifier: a forgery must be found after its file was sent
around, and a real image that was sent around is not a forgery. TensorFlow ops only;
every draw from a seed. As in `augment`, images are float32 RGB `[H, W, 3]` in
[0, 255] on the way in and out, and a seed is an int32 `[2]` of the stateless random
ops. Sizes are in pixels, meant for crops of heads of about 200 to 400 pixels.
"""

from collections.abc import Callable

import tensorflow as tf

from dfdetect.data import augment

# How an image is sampled again: the method, and whether it is antialiased. Bilinear
# is both, as what browsers and OpenCV call bilinear is not antialiased.
_KERNELS = (
    ("nearest", False),
    ("area", False),
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", True),
    ("lanczos3", True),
)

CHROMA_MODES = ("4:2:0", "4:2:2", "4:4:4")
_CHROMA_SHARES = (0.6, 0.15, 0.25)  # Most encoders, TensorFlow's too, halve both sides.

# JFIF 1.02: to luma, blue and red difference, here without the offset of 128. For
# pixels in rows: `tf.tensordot(image, RGB_TO_YCC, 1)`.
RGB_TO_YCC = (
    (0.299, -0.168735892, 0.5),
    (0.587, -0.331264108, -0.418687589),
    (0.114, 0.5, -0.081312411),
)
YCC_TO_RGB = ((1.0, 1.0, 1.0), (0.0, -0.344136286, 1.772), (1.402, -0.714136286, 0.0))


def degrade(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Changes an image as a camera, an editor and a platform might, each by chance.

    In this order: mirrored, colors, blur of the lens and of motion, noise of the
    sensor, a smaller size, JPEG. Last, a rectangle is cut out, so that no single part
    of a face decides. What is not drawn costs nothing.
    """
    # Most images meet one or two changes, and hardly one meets all of them: where
    # the trace of a forgery is gone, its label teaches nothing.
    chain: tuple[tuple[float, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]], ...] = (
        (0.3, augment.adjust_color),
        (0.15, blur_gaussian),
        (0.08, blur_motion),
        (0.2, add_noise),
        (0.3, rescale),
        (0.5, compress_jpeg),
        (0.2, cut_out),
    )
    seeds = tf.random.split(seed, len(chain) + 2)
    draws = tf.random.stateless_uniform([len(chain)], seeds[-1])
    image = augment.flip(image, seeds[-2])
    for index, (chance, change) in enumerate(chain):
        image = tf.cond(
            draws[index] < chance,
            lambda change=change, image=image, index=index: change(image, seeds[index]),
            lambda image=image: image,
        )
    return tf.clip_by_value(image, 0.0, 255.0)


def level_quality(
    image: tf.Tensor,
    seed: tf.Tensor,
    sides: tuple[int, int] = (64, 192),
    quality: tuple[int, int] = (30, 95),
) -> tf.Tensor:
    """Brings a crop of any size to a random side and JPEG quality.

    The maker of a crop shows in its size, sharpness and compression. All crops come out
    with these drawn from the same ranges, so that a classifier cannot
    tell makers by them.

    Args:
        image: `[H, W, 3]`, any numeric dtype.
        seed: int32 `[2]`.
        sides: Bounds of the longer side in pixels, drawn evenly in its logarithm. The
            upper one should not be above the sides of most crops: enlarged crops are
            soft, however they are drawn.
        quality: See `jpeg`.

    Returns:
        `[height, width, 3]` float32 in [0, 255].
    """
    seeds = tf.random.split(seed, 3)
    low, high = (tf.math.log(float(side)) for side in sides)
    longer = tf.exp(tf.random.stateless_uniform([], seeds[0], low, high))
    extent = tf.cast(tf.shape(image)[:2], tf.float32)
    wanted = tf.maximum(tf.round(extent * longer / tf.reduce_max(extent)), 1.0)
    smaller = _resize(tf.cast(image, tf.float32), tf.cast(wanted, tf.int32), seeds[1])
    smaller = tf.ensure_shape(smaller, [None, None, 3])
    return compress_jpeg(tf.clip_by_value(smaller, 0.0, 255.0), seeds[2], quality)


def compress_jpeg(
    image: tf.Tensor,
    seed: tf.Tensor,
    quality: tuple[int, int] = (40, 100),
    chroma: str | None = None,
) -> tf.Tensor:
    """Compresses as JPEG, at a quality drawn from bounds, both included.

    Args:
        image: `[H, W, 3]`.
        seed: int32 `[2]`.
        quality: Bounds within 0 to 100.
        chroma: One of `CHROMA_MODES`; drawn by default.

    Returns:
        Whole numbers in [0, 255], float32.

    Raises:
        ValueError: The bounds do not ascend within 0 to 100, or no such mode.
    """
    low, high = quality
    if not 0 <= low <= high <= 100:
        raise ValueError(f"quality must ascend within 0 to 100, got {quality}.")
    if chroma not in (None, *CHROMA_MODES):
        raise ValueError(f"chroma must be one of {CHROMA_MODES}, got {chroma!r}.")
    seeds = tf.random.split(seed, 2)
    drawn = tf.random.stateless_uniform([], seeds[0], low, high + 1, tf.int32)
    modes = {
        "4:2:0": lambda: augment.compress_jpeg(image, seeds[0], quality),
        "4:2:2": lambda: _finer_chroma(image, drawn, columns=False),
        "4:4:4": lambda: _finer_chroma(image, drawn, columns=True),
    }
    if chroma is not None:
        result = modes[chroma]()
    else:
        share = tf.random.stateless_uniform([], seeds[1])
        bounds = tf.cumsum(tf.constant(_CHROMA_SHARES))[:-1]
        index = tf.reduce_sum(tf.cast(share >= bounds, tf.int32))
        result = tf.switch_case(index, [modes[mode] for mode in CHROMA_MODES])
    return tf.ensure_shape(result, image.shape)


def rescale(
    image: tf.Tensor, seed: tf.Tensor, factors: tuple[float, float] = (0.25, 1.0)
) -> tf.Tensor:
    """Makes an image smaller and as large as before, each with a kernel of its own.

    Args:
        image: `[H, W, 3]`.
        seed: int32 `[2]`.
        factors: Bounds of the smaller side over the original one.
    """
    seeds = tf.random.split(seed, 3)
    extent = tf.shape(image)[:2]
    factor = tf.random.stateless_uniform([], seeds[0], *factors)
    smaller = tf.maximum(tf.round(tf.cast(extent, tf.float32) * factor), 1.0)
    result = _resize(image, tf.cast(smaller, tf.int32), seeds[1])
    result = _resize(result, extent, seeds[2])
    return tf.ensure_shape(tf.clip_by_value(result, 0.0, 255.0), image.shape)


def blur_gaussian(
    image: tf.Tensor, seed: tf.Tensor, sigmas: tuple[float, float] = (0.4, 2.5)
) -> tf.Tensor:
    """Blurs with a Gaussian, its sigma in pixels drawn evenly in its logarithm."""
    low, high = (tf.math.log(float(sigma)) for sigma in sigmas)
    sigma = tf.exp(tf.random.stateless_uniform([], seed, low, high))
    radius = max(int(3.0 * sigmas[1] + 0.5), 1)
    weights = tf.exp(-0.5 * (_steps(radius) / sigma) ** 2)
    weights /= tf.reduce_sum(weights)
    image = _convolve(image, weights[:, None])
    return _convolve(image, weights[None, :])


def blur_motion(
    image: tf.Tensor, seed: tf.Tensor, lengths: tuple[float, float] = (3.0, 11.0)
) -> tf.Tensor:
    """Blurs along a straight line of a drawn length in pixels and a drawn angle."""
    draws = tf.random.stateless_uniform([2], seed)
    length = lengths[0] + draws[0] * (lengths[1] - lengths[0])
    angle = draws[1] * 3.14159265
    # One pixel less: a line of one pixel is a point.
    half = tf.maximum(length - 1.0, 0.0) / 2.0
    steps = _steps(int(lengths[1] / 2) + 1)
    y, x = steps[:, None], steps[None, :]
    along = tf.clip_by_value(x * tf.cos(angle) + y * tf.sin(angle), -half, half)
    distance = tf.sqrt(
        (x - along * tf.cos(angle)) ** 2 + (y - along * tf.sin(angle)) ** 2
    )
    weights = tf.maximum(1.0 - distance, 0.0)
    return _convolve(image, weights / tf.reduce_sum(weights))


def add_noise(
    image: tf.Tensor, seed: tf.Tensor, sigmas: tuple[float, float] = (1.0, 12.0)
) -> tf.Tensor:
    """Adds Gaussian noise of a drawn sigma; half of the time gray noise."""
    seeds = tf.random.split(seed, 3)
    sigma = tf.random.stateless_uniform([], seeds[0], *sigmas)
    gray = tf.random.stateless_uniform([], seeds[1]) < 0.5
    extent = tf.shape(image)
    channels = tf.where(gray, 1, 3)
    values = tf.random.stateless_normal([extent[0], extent[1], channels], seeds[2])
    result = tf.clip_by_value(image + sigma * values, 0.0, 255.0)
    return tf.ensure_shape(result, image.shape)


def cut_out(
    image: tf.Tensor, seed: tf.Tensor, areas: tuple[float, float] = (0.02, 0.12)
) -> tf.Tensor:
    """Fills a random rectangle with the image's mean or, half of the time, a color.

    Args:
        image: `[H, W, 3]`.
        seed: int32 `[2]`.
        areas: Bounds of the rectangle's share of the image; its sides relative to
            those of the image vary by 2:1. It lies inside the image.
    """
    seeds = tf.random.split(seed, 2)
    draws = tf.random.stateless_uniform([5], seeds[0])
    area = areas[0] + draws[0] * (areas[1] - areas[0])
    stretch = tf.exp((draws[1] - 0.5) * tf.math.log(2.0))
    sides = tf.minimum(tf.sqrt(area) * tf.stack([stretch, 1.0 / stretch]), 1.0)
    extent = tf.shape(image)[:2]
    pixels = tf.round(sides * tf.cast(extent, tf.float32))
    start = tf.floor(draws[2:4] * (tf.cast(extent, tf.float32) - pixels + 1.0))
    rows, columns = (
        (position >= start[axis]) & (position < start[axis] + pixels[axis])
        for axis, position in enumerate(
            tf.range(tf.cast(extent[axis], tf.float32)) for axis in range(2)
        )
    )
    fill = tf.where(
        draws[4] < 0.5,
        tf.reduce_mean(image, axis=[0, 1]),
        tf.random.stateless_uniform([3], seeds[1], 0.0, 255.0),
    )
    inside = rows[:, None, None] & columns[None, :, None]
    return tf.ensure_shape(tf.where(inside, fill, image), image.shape)


def _resize(image: tf.Tensor, extent: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Resizes to `extent`, height and width, with a kernel drawn from `_KERNELS`."""
    drawn = tf.random.stateless_uniform([], seed, 0, len(_KERNELS), tf.int32)
    return tf.switch_case(
        drawn,
        [
            lambda method=method, antialias=antialias: tf.image.resize(
                image, extent, method, antialias=antialias
            )
            for method, antialias in _KERNELS
        ],
    )


def _steps(radius: int) -> tf.Tensor:
    return tf.range(-radius, radius + 1, dtype=tf.float32)


def _convolve(image: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Convolves each channel with `[odd, odd]` weights; the edge is repeated."""
    # By index, as tf.pad does not repeat the edge, and mirrors no more than there is.
    padded = image
    for axis in range(2):
        radius, side = weights.shape[axis] // 2, tf.shape(image)[axis]
        if radius:
            index = tf.clip_by_value(tf.range(-radius, side + radius), 0, side - 1)
            padded = tf.gather(padded, index, axis=axis)
    kernel = tf.tile(weights[:, :, None, None], [1, 1, 3, 1])
    result = tf.nn.depthwise_conv2d(padded[None], kernel, [1, 1, 1, 1], "VALID")[0]
    return tf.ensure_shape(result, image.shape)


def _finer_chroma(image: tf.Tensor, quality: tf.Tensor, columns: bool) -> tf.Tensor:
    """Compresses with chroma of full height, and of full width too with `columns`.

    The one op that takes its quality as a tensor halves both sides of the chroma, so
    it is given an image with each row twice, and each column: its chroma is then as
    large as wanted. The luma, which no mode halves, comes from the image as it is.
    """
    pixels = tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)
    larger = tf.repeat(pixels, 2, axis=0)
    if columns:
        larger = tf.repeat(larger, 2, axis=1)
    luma = _encode_and_decode(pixels, quality)[..., :1]
    # Without fancy upscaling each value of chroma is there four times, unmixed.
    chroma = _encode_and_decode(larger, quality, fancy_upscaling=False)
    chroma = chroma[::2, ::2, 1:]
    if not columns:
        # Bilinear is what is called fancy upscaling.
        extent = tf.shape(chroma)
        chroma = tf.image.resize(chroma, [extent[0], 2 * extent[1]])
        chroma = chroma[:, : tf.shape(image)[1]]
    result = tf.tensordot(tf.concat([luma, chroma], axis=-1), YCC_TO_RGB, 1)
    return tf.round(tf.clip_by_value(result, 0.0, 255.0))


def _encode_and_decode(
    pixels: tf.Tensor, quality: tf.Tensor, fancy_upscaling: bool = True
) -> tf.Tensor:
    """The luma and the two chroma differences of uint8 `[H, W, 3]` as JPEG: float32."""
    encoded = tf.raw_ops.EncodeJpegVariableQuality(images=pixels, quality=quality)
    decoded = tf.io.decode_jpeg(encoded, 3, fancy_upscaling=fancy_upscaling)
    return tf.tensordot(tf.cast(decoded, tf.float32), RGB_TO_YCC, 1)
