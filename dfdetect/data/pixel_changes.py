"""Degradations of one image in NumPy and OpenCV; `degradations` has them for graphs.

Images are RGB `[H, W, 3]` in [0, 255], float32 or uint8; the result has the type of the
image, which is not changed in place. Every draw is from the generator that is given.
"""

import functools
import statistics
from collections.abc import Callable

import cv2
import numpy as np

CHROMA_MODES = ("4:2:0", "4:2:2", "4:4:4")
# Shares of .6, .15 and .25: most encoders, TensorFlow's too, halve both sides.
_CHROMA_ENDS = (0.6, 0.75)
_CHROMA_FACTORS = {
    mode: getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{mode.replace(':', '')}")
    for mode in CHROMA_MODES
}

# How an image is sampled again, and whether it is smoothed before it is made smaller:
# what browsers and OpenCV call bilinear is not, what Pillow calls so is.
_KERNELS = (
    (cv2.INTER_NEAREST, False),
    (cv2.INTER_AREA, False),
    (cv2.INTER_LINEAR, False),
    (cv2.INTER_LINEAR, True),
    (cv2.INTER_CUBIC, True),
    (cv2.INTER_LANCZOS4, True),
)
_ROTATION_KERNELS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601.

Bounds = tuple[float, float] | np.ndarray


def degrade(
    image: np.ndarray, random: np.random.Generator, size: int | None = None
) -> np.ndarray:
    """Changes an image in several ways, each by chance; see `degradations.degrade`.

    Args:
        image: `[H, W, 3]`, rounded to bytes.
        random: Generator to draw from.
        size: Side of a square to enlarge to before, if any, bilinearly.

    Returns:
        uint8 `[H, W, 3]`, or `[size, size, 3]`.
    """
    if size is not None and image.shape[:2] != (size, size):
        # As floats: OpenCV's results for bytes are .13 too low in the mean.
        image = cv2.resize(image.astype(np.float32, copy=False), (size, size))
    image = cv2.convertScaleAbs(image)
    # Most images meet one or two changes, and hardly one meets all of them: where
    # the trace of a forgery is gone, its label teaches nothing.
    chain: tuple[tuple[float, Callable[..., np.ndarray]], ...] = (
        (0.5, lambda image, random: cv2.flip(image, 1)),
        (0.3, adjust_color),
        (0.15, blur_gaussian),
        (0.08, blur_motion),
        (0.2, add_noise),
        (0.3, rescale),
        (0.5, compress_jpeg),
        (0.2, cut_out),
    )
    draws = random.random(len(chain))
    for draw, (chance, change) in zip(draws, chain, strict=True):
        if draw < chance:
            image = np.ascontiguousarray(change(image, random))
    return image


def adjust_color(
    image: np.ndarray, random: np.random.Generator, strength: float = 0.2
) -> np.ndarray:
    """Changes brightness, contrast and saturation of a uint8 image by up to `strength`.

    Contrast is about the mean of each channel, as in `tf.image.adjust_contrast`. The
    three are one affine map of a pixel, in which nothing is clipped in between.
    """
    brightness, contrast, saturation = random.uniform(-strength, strength, 3)
    means = np.array(cv2.mean(image)[:3])
    saturate = np.eye(3) * (1 + saturation) - np.tile(_LUMA * saturation, (3, 1))
    offset = saturate @ (brightness * 255 - means * contrast)
    return cv2.transform(image, np.column_stack([saturate * (1 + contrast), offset]))


def adjust_gamma(
    image: np.ndarray, random: np.random.Generator, exponents: Bounds = (0.4, 3.5)
) -> np.ndarray:
    """Raises pixels in [0, 1] to a power drawn evenly in its logarithm; 2 darkens."""
    exponent = float(np.exp(random.uniform(*np.log(np.asarray(exponents, np.float64)))))
    if image.dtype != np.uint8:
        changed = np.clip(image / 255.0, 0.0, 1.0) ** exponent * 255.0
        return changed.astype(image.dtype)
    levels = (np.arange(256) / 255.0) ** exponent * 255.0
    return cv2.LUT(image, np.rint(levels).astype(np.uint8))


def rotate(
    image: np.ndarray,
    random: np.random.Generator,
    degrees: float = 45.0,
    any_angle: float = 0.15,
) -> np.ndarray:
    """Rotates an image about its center; its sides stay, and so does its scale.

    What comes in from outside is the image reflected or its edge continued: black
    corners would be a trace of their own.

    Args:
        image: `[H, W, 3]`.
        random: Generator to draw from.
        degrees: Most degrees in either direction, drawn evenly.
        any_angle: Chance that the angle is drawn from the whole circle instead.
    """
    draws = random.random(2)
    most = 180.0 if draws[0] < any_angle else float(degrees)
    height, width = image.shape[:2]
    center = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(center, most * (2.0 * draws[1] - 1.0), 1.0)
    kernel = _ROTATION_KERNELS[random.integers(len(_ROTATION_KERNELS))]
    borders = (cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE)
    border = borders[random.integers(len(borders))]
    return _within(
        cv2.warpAffine(image, matrix, (width, height), flags=kernel, borderMode=border)
    )


def blur_gaussian(
    image: np.ndarray, random: np.random.Generator, sigmas: Bounds = (0.4, 2.5)
) -> np.ndarray:
    """Blurs with a Gaussian, its sigma in pixels drawn evenly in its logarithm."""
    sigma = float(np.exp(random.uniform(*np.log(np.asarray(sigmas, np.float64)))))
    side = 2 * max(round(3 * sigma), 1) + 1
    return cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)


def blur_motion(
    image: np.ndarray, random: np.random.Generator, lengths: Bounds = (3.0, 11.0)
) -> np.ndarray:
    """Blurs along a straight line of a drawn length in pixels and a drawn angle."""
    length, angle = random.uniform(*lengths), random.uniform(0, np.pi)
    # One pixel less: a line of one pixel is a point.
    half = max(length - 1.0, 0.0) / 2.0
    radius = int(half) + 1
    steps = np.arange(-radius, radius + 1)
    y, x = steps[:, None], steps[None, :]
    along = np.clip(x * np.cos(angle) + y * np.sin(angle), -half, half)
    distance = np.hypot(x - along * np.cos(angle), y - along * np.sin(angle))
    weights = np.maximum(1.0 - distance, 0.0)
    weights = (weights / weights.sum()).astype(np.float32)
    return _within(cv2.filter2D(image, -1, weights, borderType=cv2.BORDER_REPLICATE))


def add_noise(
    image: np.ndarray, random: np.random.Generator, sigmas: Bounds = (1.0, 12.0)
) -> np.ndarray:
    """Adds Gaussian noise of a drawn sigma; half of the time gray noise."""
    sigma, is_gray = random.uniform(*sigmas), random.random() < 0.5
    shape = (*image.shape[:2], 1 if is_gray else 3)
    # The sum of two draws of a byte each takes a third of the time of
    # `standard_normal`, which would be most of that of all changes.
    table = _normal_quantiles() * np.float32(sigma)
    count = shape[0] * shape[1] * shape[2]
    words = random.integers(0, 2**64 - 1, -(-count // 4), np.uint64, endpoint=True)
    drawn = words.view(np.uint8)[: 2 * count].reshape(2, shape[0], -1)
    first, second = (cv2.LUT(levels, table) for levels in drawn)
    noise = cv2.add(first, second).reshape(shape)
    if is_gray:
        noise = cv2.merge([noise] * 3)
    depth = cv2.CV_8U if image.dtype == np.uint8 else cv2.CV_32F
    return _within(cv2.add(image, noise, dtype=depth))


@functools.cache
def _normal_quantiles() -> np.ndarray:
    """256 equally likely values, so that the sum of two is nearly standard normal."""
    normal = statistics.NormalDist()
    values = np.array([normal.inv_cdf((i + 0.5) / 256) for i in range(256)])
    return (values / (values.std() * np.sqrt(2))).astype(np.float32)


def rescale(
    image: np.ndarray, random: np.random.Generator, factors: Bounds = (0.25, 1.0)
) -> np.ndarray:
    """Makes an image smaller and as large as before, each with a kernel of its own.

    Args:
        image: `[H, W, 3]`.
        random: Generator to draw from.
        factors: Bounds of the smaller side over the original one.
    """
    height, width = image.shape[:2]
    factor = random.uniform(*factors)
    smaller = [max(round(side * factor), 1) for side in (height, width)]
    small = resize(image, smaller, random)
    return _within(resize(small, [height, width], random))


def resize(
    image: np.ndarray, extent: list[int], random: np.random.Generator
) -> np.ndarray:
    """Resizes to height and width with a kernel drawn from six of common use."""
    kernel, is_smoothed = _KERNELS[random.integers(len(_KERNELS))]
    if [*image.shape[:2]] == extent:
        return image
    if is_smoothed:
        scales = [before / after for before, after in zip(image.shape, extent)]  # noqa: B905
        # A box of the old pixels in a new one has about this deviation.
        sigmas = [0.5 * np.sqrt(max(scale**2 - 1, 0.0)) for scale in scales]
        if max(sigmas) > 0.1:
            y, x = (max(sigma, 1e-3) for sigma in sigmas)
            image = cv2.GaussianBlur(
                image, (0, 0), x, sigmaY=y, borderType=cv2.BORDER_REPLICATE
            )
    if image.dtype != np.uint8 or kernel != cv2.INTER_LANCZOS4:
        return cv2.resize(image, extent[::-1], interpolation=kernel)
    # This kernel takes two thirds of the time where pixels are floats.
    exact = cv2.resize(image.astype(np.float32), extent[::-1], interpolation=kernel)
    # Rounds and clips; `convertScaleAbs` would mirror what is below 0.
    return cv2.addWeighted(exact, 1.0, exact, 0.0, 0.0, dtype=cv2.CV_8U)


def compress_jpeg(
    image: np.ndarray,
    random: np.random.Generator,
    quality: Bounds = (40, 100),
    chroma: str | None = None,
) -> np.ndarray:
    """Compresses as JPEG, at a quality drawn from bounds, both included.

    Args:
        image: `[H, W, 3]`.
        random: Generator to draw from.
        quality: Bounds within 0 to 100.
        chroma: One of `CHROMA_MODES`; drawn by default.
    """
    drawn = int(random.integers(int(quality[0]), int(quality[1]), endpoint=True))
    if chroma is None:
        # `choice` takes as long as a tenth of the compression.
        drawn_mode = np.searchsorted(_CHROMA_ENDS, random.random(), side="right")
        chroma = CHROMA_MODES[drawn_mode]
    options = [cv2.IMWRITE_JPEG_QUALITY, drawn]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _CHROMA_FACTORS[chroma]]
    pixels = image
    if image.dtype != np.uint8:
        pixels = np.rint(np.clip(image, 0.0, 255.0)).astype(np.uint8)
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".jpg", pixels, options)
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert decoded is not None  # It was encoded here.
    result = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return result.astype(image.dtype, copy=False)


def cut_out(
    image: np.ndarray, random: np.random.Generator, areas: Bounds = (0.02, 0.12)
) -> np.ndarray:
    """Fills a random rectangle with the image's mean or, half of the time, a color.

    Args:
        image: `[H, W, 3]`.
        random: Generator to draw from.
        areas: Bounds of the rectangle's share of the image; its sides relative to
            those of the image vary by 2:1. It lies inside the image.
    """
    draws = random.random(8)
    area = areas[0] + draws[0] * (areas[1] - areas[0])
    stretch = 2.0 ** (draws[1] - 0.5)
    sides = np.minimum(np.sqrt(area) * np.array([stretch, 1.0 / stretch]), 1.0)
    pixels = np.rint(sides * image.shape[:2]).astype(int)
    top, left = (draws[2:4] * (image.shape[:2] - pixels + 1)).astype(int).tolist()
    fill = cv2.mean(image)[:3] if draws[4] < 0.5 else draws[5:] * 255.0
    if image.dtype == np.uint8:
        fill = np.rint(fill)
    result = image.copy()
    result[top : top + pixels[0], left : left + pixels[1]] = fill
    return result


def _within(image: np.ndarray) -> np.ndarray:
    """Clips a float image in place; OpenCV does it where pixels are bytes."""
    if image.dtype == np.uint8:
        return image
    return np.clip(image, 0.0, 255.0, out=image)
