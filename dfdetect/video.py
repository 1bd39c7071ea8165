"""Reads clips: one pass from the first frame to the last one wanted, never a seek.

A seek decodes from the key frame before it, and the clips of FaceForensics++ have two
to four key frames in all.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

# Clips are read beside each other; threads within one would only wait for each other.
_OPEN_PARAMETERS = [cv2.CAP_PROP_N_THREADS, 1]


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
        index: Position in the clip, from 0.
        time: When it is shown, in seconds from the start.
        image: uint8 `[height, width, 3]`, upright RGB.
    """

    index: int
    time: float
    image: np.ndarray


def bin_centres(num_frames: int, count: int) -> list[int]:
    """The middle frames of `count` equal parts of a clip; all frames of a shorter one.

    Args:
        num_frames: Frames of the clip.
        count: Frames wanted, or -1 for all.
    """
    if count < 0 or count >= num_frames:
        return list(range(num_frames))
    return [(2 * part + 1) * num_frames // (2 * count) for part in range(count)]


def num_frames(path: str | os.PathLike, decode: bool = False) -> int:
    """How many frames a clip has.

    Args:
        path: Of the clip.
        decode: Go through the clip instead of believing its header: the only way to
            see that it is cut short.

    Raises:
        ValueError: It is no clip that can be decoded.
    """
    with _Capture(path) as capture:
        if not decode:
            return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        count = 0
        while capture.grab():
            count += 1
        return count


def frames(path: str | os.PathLike, indices: Sequence[int]) -> Iterator[Frame]:
    """Yields frames of a clip, in one pass that ends with the last of `indices`.

    A clip that is shorter than it says gives fewer.

    Args:
        path: Of the clip.
        indices: Positions wanted, rising.

    Raises:
        ValueError: It is no clip that can be decoded.
    """
    with _Capture(path) as capture:
        position = -1
        for index in indices:
            while position < index:
                if not capture.grab():
                    return
                position += 1
            time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            decoded, image = capture.retrieve()
            if not decoded:
                return
            yield Frame(index, time, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


class _Capture:
    """An open clip; OpenCV's captures know no `with`."""

    def __init__(self, path: str | os.PathLike) -> None:
        self._capture = cv2.VideoCapture(
            os.fspath(path), cv2.CAP_FFMPEG, _OPEN_PARAMETERS
        )
        if not self._capture.isOpened():
            raise ValueError(f"{os.fspath(path)} is no clip that can be decoded.")

    def __enter__(self) -> cv2.VideoCapture:
        return self._capture

    def __exit__(self, *error: object) -> None:
        self._capture.release()
