"""Detects hard cuts between the shots of a clip, by color histograms."""

import cv2
import numpy as np

# In FaceForensics++, sampled twice a second, histograms of consecutive views overlap by
# at least .82 within a scene, and by at most .31 across scenes.
_MIN_OVERLAP = 0.6

_VIEW_SIZE = (64, 36)
_HISTOGRAM_BINS = (8, 4, 8)  # Hue, saturation, value.


class ShotCounter:
    """Numbers the shots of a clip, from 0, given views of it in order.

    A hard cut changes the colors from one view to the next. A slow dissolve may be
    missed, and a flash may count as a cut.
    """

    def __init__(self) -> None:
        self._shot = 0
        self._histogram: np.ndarray | None = None

    def add(self, image: np.ndarray) -> int:
        """Returns the number of the shot of the next view.

        Args:
            image: uint8 `[height, width, 3]`, BGR; at most half a second after the
                previous view.
        """
        histogram = _histogram(image)
        if self._histogram is not None:
            self._shot += _overlap(histogram, self._histogram) < _MIN_OVERLAP
        self._histogram = histogram
        return self._shot


def _histogram(image: np.ndarray) -> np.ndarray:
    """Computes the color histogram of an image, float32 with a sum of 1."""
    small = cv2.resize(image, _VIEW_SIZE, interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_BGR2HSV)
    ranges = [0, 180, 0, 256, 0, 256]
    counts = cv2.calcHist([hsv], [0, 1, 2], None, list(_HISTOGRAM_BINS), ranges)
    return counts / counts.sum()


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.minimum(one, other).sum())
