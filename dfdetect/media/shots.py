"""Tells where one shot of a clip ends and the next begins."""

import cv2
import numpy as np

# Of the clips of FaceForensics++, seen twice a second, no two views in a row share
# less than .82 of their colours, and no views of two scenes more than .31.
_LEAST_SHARED = 0.6

_VIEW_SIZE = (64, 36)
_HISTOGRAM_BINS = (8, 4, 8)  # hue, saturation, value


class Shots:
    """Numbers the shots of a clip, from 0, by views of it in order.

    A hard cut changes the colours from one view to the next. A slow dissolve may pass
    unseen, and a flash may be taken for a cut.
    """

    def __init__(self) -> None:
        self._shot = 0
        self._colours: np.ndarray | None = None

    def look(self, image: np.ndarray) -> int:
        """The number of the shot that a view is of.

        Args:
            image: uint8 `[height, width, 3]`, BGR as OpenCV decodes it; half a second
                or less behind the last one.
        """
        colours = _colours(image)
        if self._colours is not None:
            self._shot += _shared(colours, self._colours) < _LEAST_SHARED
        self._colours = colours
        return self._shot


def _colours(image: np.ndarray) -> np.ndarray:
    """A histogram, float32 with a sum of 1."""
    small = cv2.resize(image, _VIEW_SIZE, interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_BGR2HSV)
    ranges = [0, 180, 0, 256, 0, 256]
    counts = cv2.calcHist([hsv], [0, 1, 2], None, list(_HISTOGRAM_BINS), ranges)
    return counts / counts.sum()


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.minimum(one, other).sum())
