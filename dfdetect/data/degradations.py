"""Random degradations that images meet on the Internet: JPEG, scaling, blur, noise.

For the training of the classifier: a forgery must be found after its file was sent
around, and a real image that was sent around is not a forgery. As in `augment`, images
are float32 RGB `[H, W, 3]` in [0, 255] on the way in and out, and a seed is an int32
`[2]`: the same seed gives the same image. Sizes are in pixels, meant for crops of heads
of about 200 to 400 pixels.

The changes themselves are in `pixel_changes`, in OpenCV: as TensorFlow ops they took
several times as long, and a second to trace. They therefore run on the processor, in
the input of a training only, and cannot be exported. Images are changed in parallel
already: a process that only trains best calls `cv2.setNumThreads(0)`, as OpenCV's own
threads take processor time while they wait for work.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.data import pixel_changes
from dfdetect.media import resize

CHROMA_MODES = pixel_changes.CHROMA_MODES

# JFIF 1.02: to luma, blue and red difference, here without the offset of 128. For
# pixels in rows: `tf.tensordot(image, RGB_TO_YCC, 1)`.
RGB_TO_YCC = (
    (0.299, -0.168735892, 0.5),
    (0.587, -0.331264108, -0.418687589),
    (0.114, 0.5, -0.081312411),
)
YCC_TO_RGB = ((1.0, 1.0, 1.0), (0.0, -0.344136286, 1.772), (1.402, -0.714136286, 0.0))

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


def degrade(image: tf.Tensor, seed: tf.Tensor, size: int | None = None) -> tf.Tensor:
    """Changes an image as a camera, an editor and a platform might, each by chance.

    In this order: mirrored, colors, blur of the lens and of motion, noise of the
    sensor, a smaller size, JPEG. Last, a rectangle is cut out, so that no single part
    of a face decides. What is not drawn costs nothing. Pixels are rounded, as in files.

    Args:
        image: `[H, W, 3]`, here also uint8.
        seed: int32 `[2]`.
        size: Side of a square to resize to before, as `resize.resize` does; by default
            the image keeps its size.
    """
    if size is not None:
        image = tf.convert_to_tensor(image)
        # What is enlarged needs no antialiasing: OpenCV does it in a tenth of the time.
        image = tf.cond(
            tf.reduce_max(tf.shape(image)[:2]) <= size,
            lambda: image,
            lambda: tf.cast(tf.round(resize.resize(image, size)), image.dtype),
        )
    change = functools.partial(pixel_changes.degrade, size=size)
    changed = _change(change, image, seed, dtype=tf.uint8, size=size)
    return tf.cast(changed, tf.float32)


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

    def compress(
        image: np.ndarray, random: np.random.Generator, bounds: np.ndarray
    ) -> np.ndarray:
        return pixel_changes.compress_jpeg(image, random, bounds, chroma)

    return _change(compress, image, seed, quality)


def rescale(
    image: tf.Tensor,
    seed: tf.Tensor,
    factors: tuple[float | tf.Tensor, float | tf.Tensor] = (0.25, 1.0),
) -> tf.Tensor:
    """See `pixel_changes.rescale`."""
    return _change(pixel_changes.rescale, image, seed, factors)


def adjust_gamma(
    image: tf.Tensor, seed: tf.Tensor, exponents: tuple[float, float] = (0.4, 3.5)
) -> tf.Tensor:
    """See `pixel_changes.adjust_gamma`."""
    return _change(pixel_changes.adjust_gamma, image, seed, exponents)


def rotate(image: tf.Tensor, seed: tf.Tensor, degrees: float = 45.0) -> tf.Tensor:
    """See `pixel_changes.rotate`."""
    return _change(pixel_changes.rotate, image, seed, degrees)


def blur_gaussian(
    image: tf.Tensor, seed: tf.Tensor, sigmas: tuple[float, float] = (0.4, 2.5)
) -> tf.Tensor:
    """See `pixel_changes.blur_gaussian`."""
    return _change(pixel_changes.blur_gaussian, image, seed, sigmas)


def blur_motion(
    image: tf.Tensor, seed: tf.Tensor, lengths: tuple[float, float] = (3.0, 11.0)
) -> tf.Tensor:
    """See `pixel_changes.blur_motion`."""
    return _change(pixel_changes.blur_motion, image, seed, lengths)


def add_noise(
    image: tf.Tensor, seed: tf.Tensor, sigmas: tuple[float, float] = (1.0, 12.0)
) -> tf.Tensor:
    """See `pixel_changes.add_noise`."""
    return _change(pixel_changes.add_noise, image, seed, sigmas)


def cut_out(
    image: tf.Tensor, seed: tf.Tensor, areas: tuple[float, float] = (0.02, 0.12)
) -> tf.Tensor:
    """See `pixel_changes.cut_out`."""
    return _change(pixel_changes.cut_out, image, seed, areas)


def _change(
    change: Callable[..., np.ndarray],
    image: tf.Tensor,
    seed: tf.Tensor,
    *bounds: Any,
    dtype: tf.DType = tf.float32,
    size: int | None = None,
) -> tf.Tensor:
    """Calls a function of `pixel_changes`, which may make a square, from a graph."""

    def call(image: np.ndarray, seed: np.ndarray, *bounds: np.ndarray) -> np.ndarray:
        random = np.random.default_rng((seed.astype(np.int64) % 2**32).tolist())
        changed = change(image, random, *bounds)
        return np.ascontiguousarray(changed)

    image = tf.convert_to_tensor(image)
    tensors = [tf.convert_to_tensor(pair) for pair in bounds]
    result = tf.numpy_function(call, [image, seed, *tensors], dtype, stateful=False)
    return tf.ensure_shape(result, [size, size, 3] if size else image.shape)


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
