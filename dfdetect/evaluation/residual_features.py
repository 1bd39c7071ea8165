"""Noise residuals: what a few high-pass filters leave of a crop.

What a head looks like is mostly in low frequencies. The rest holds traces of how an
image was made: sensor noise, upsampling, blending, compression.

Source: four of the filters of Fridrich and Kodovsky, Rich Models for Steganalysis of
Digital Images, IEEE TIFS 2012.
"""

import cv2
import numpy as np

# Each sums to 0, and its largest weight is 1 or -1: responses are comparable.
FILTERS: dict[str, np.ndarray] = {
    "first": np.array([[0, -1, 1]], np.float32),
    "second": np.array([[1, -2, 1]], np.float32) / 2,
    "square3": np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], np.float32) / 4,
    "square5": np.array(
        [
            [-1, 2, -2, 2, -1],
            [2, -6, 8, -6, 2],
            [-2, 8, -12, 8, -2],
            [2, -6, 8, -6, 2],
            [-1, 2, -2, 2, -1],
        ],
        np.float32,
    )
    / 12,
}

_LEVELS = 2  # Of quantized residuals on either side of 0.
_TINY = 1e-3
_GAIN = 8.0  # Brings residuals of some gray levels into the range of an image.


def describe_residuals(crop: np.ndarray) -> np.ndarray:
    """Describes the residuals of brightness and both colors.

    Args:
        crop: `[H, W, 3]` RGB in [0, 255].

    Returns:
        `[D]` float32. For each channel of YCrCb and each of `FILTERS`: logarithms of
        deviation and mean magnitude, that of the kurtosis, and the correlation with
        the neighbour to the right and below. For brightness also how often each pair
        of quantized residuals stand beside, and above, each other.
    """
    channels = cv2.cvtColor(np.asarray(crop, np.float32) / 255, cv2.COLOR_RGB2YCrCb)
    found: list[np.ndarray] = []
    for place in range(3):
        for kernel in FILTERS.values():
            residual = cv2.filter2D(channels[..., place] * 255, cv2.CV_32F, kernel)
            found.append(_moments(residual))
            if place == 0:
                found.append(_pairs(residual))
    return np.concatenate(found).astype(np.float32)


def high_pass(crops: np.ndarray) -> np.ndarray:
    """Shows what the filter `square5` leaves of each channel, around middle gray.

    Args:
        crops: `[B, H, W, 3]` in [0, 255].

    Returns:
        Likewise, float32: an input for a network of images.
    """
    residuals = [
        cv2.filter2D(np.asarray(crop, np.float32), cv2.CV_32F, FILTERS["square5"])
        for crop in crops
    ]
    return np.clip(127.5 + _GAIN * np.stack(residuals), 0, 255)


def _moments(residual: np.ndarray) -> np.ndarray:
    centered = residual - residual.mean()
    squared = centered * centered
    variance, fourth = float(squared.mean()), float((squared * squared).mean())
    beside, below = (
        float((centered[1:, 1:] * shifted).mean()) / (variance + _TINY**2)
        for shifted in (centered[1:, :-1], centered[:-1, 1:])
    )
    magnitude = float(np.abs(centered).mean())
    kurtosis = (fourth + _TINY**4) / (variance**2 + _TINY**4)
    spreads = np.log([np.sqrt(variance) + _TINY, magnitude + _TINY, kurtosis])
    return np.array([*spreads, beside, below])


def _pairs(residual: np.ndarray) -> np.ndarray:
    """Shares of pairs of levels, in rows and in columns, `[2 * L**2]`."""
    count = 2 * _LEVELS + 1
    levels = np.clip(np.rint(residual), -_LEVELS, _LEVELS).astype(np.int16) + _LEVELS
    joined = (
        levels[:, 1:] * count + levels[:, :-1],
        levels[1:] * count + levels[:-1],
    )
    return np.concatenate(
        [np.bincount(x.ravel(), minlength=count**2) / x.size for x in joined]
    )
