"""Reads clips: one pass from the first frame to the last one wanted, never a seek.

A seek decodes from the key frame before it, and the clips of FaceForensics++ have two
to four key frames in all. Frames come upright: OpenCV turns them as the clip says.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from dfdetect import shots

# Clips are read beside each other; threads within one would only wait for each other.
_OPEN_PARAMETERS = [cv2.CAP_PROP_N_THREADS, 1]

_SECONDS_BETWEEN_VIEWS = 0.5  # See `shots`.
_TINY = 1e-4  # Seconds; below what time stamps tell apart.
# Headers are a frame or two off; a clip that was cut short lacks more.
_LEAST_SHARE = 0.99
_LEAST_MISSING = 0.2  # Seconds.


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
        index: Position in the clip, from 0.
        time: When it is shown, in seconds from the start.
        image: uint8 `[height, width, 3]`, upright RGB.
        shot: Number of its shot, from 0, where `Reader` read it.
    """

    index: int
    time: float
    image: np.ndarray
    shot: int = 0


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are looked at.

    Attributes:
        count: So many, those shown at the middles of equal parts of the clip's time;
            -1 for all.
        every: Rather one in so many seconds, from the first on.
    """

    count: int = 32
    every: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1 and self.count != -1:
            raise ValueError(f"count must be from 1 on, or -1, got {self.count}.")
        if self.every is not None and not self.every > 0:
            raise ValueError(f"every must be above 0 seconds, got {self.every}.")


class Reader:
    """A clip, read once from its first frame to its last; iterate over it once.

    Memory holds one frame at a time. Time stamps decide, so that the rate may vary.
    Where the clip does not say how long it is, it is gone through once before.

    Args:
        path: Of the clip, or the URL of a stream.
        sampling: Which frames to yield.

    Attributes:
        size: Width and height of upright frames in pixels, as its header promises.
        duration: Seconds, as its header promises, or as measured.
        interval: Seconds from frame to frame, as its header promises.
        num_read: How many frames have been read so far.
        warning: After the last frame, what was wrong, or "".

    Raises:
        ValueError: It is no clip that can be decoded.
    """

    def __init__(
        self, path: str | os.PathLike, sampling: Sampling | None = None
    ) -> None:
        self._sampling = sampling or Sampling()
        self._open = _Capture(path)
        self._capture = self._open.capture
        self.size = (
            int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.interval = 1 / rate if 0 < rate < 1e6 else 0.04
        promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) * self.interval
        self._is_promised = 0 < promised < 1e9 and rate > 0
        self.duration = promised
        if not self._is_promised:
            by_parts = self._sampling.every is None and self._sampling.count > 0
            self.duration = _measured(path, self.interval) if by_parts else 0.0
        self.num_read = 0
        self.warning = ""

    def __iter__(self) -> Iterator[Frame]:
        with self._open:
            yield from self._frames()

    def _frames(self) -> Iterator[Frame]:
        counted = shots.Shots()
        time, interval = -self.interval, self.interval
        next_wanted, next_view = self._first_wanted_after(-1.0), 0.0
        while self._capture.grab():
            index, before = self.num_read, time
            self.num_read += 1
            time = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if time <= before:  # No time stamp.
                time = before + self.interval
            interval = time - before
            # The last frame that begins before it, were the rate that of the header.
            shown_until = time + self.interval - _TINY
            is_wanted = shown_until > next_wanted
            if not is_wanted and time < next_view:
                continue
            decoded, image = self._capture.retrieve()
            if not decoded:
                continue
            shot = counted.look(image)
            next_view = time + _SECONDS_BETWEEN_VIEWS
            if is_wanted:
                next_wanted = self._first_wanted_after(shown_until)
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                yield Frame(index, max(time, 0.0), image, shot)
        self._check_end(time + interval if self.num_read else 0.0)

    def _first_wanted_after(self, time: float) -> float:
        """The next time whose frame is wanted, at `time` at the earliest, or never."""
        if self._sampling.every is not None:
            return max(0, math.ceil(time / self._sampling.every)) * self._sampling.every
        count = self._sampling.count
        if count < 0:
            return 0.0
        part = self.duration / count
        number = max(0, math.ceil(time / part - 0.5)) if part else int(time >= 0)
        return (number + 0.5) * part if number < count else math.inf

    def _check_end(self, end: float) -> None:
        if not self._is_promised:
            return
        missing = self.duration - end
        if end < _LEAST_SHARE * self.duration and missing > _LEAST_MISSING:
            self.warning = (
                f"cut short: {end:.1f} of {self.duration:.1f} seconds could be read"
            )


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


def _measured(path: str | os.PathLike, interval: float) -> float:
    """Seconds of a clip, by going through it; of frames without times, `interval`."""
    with _Capture(path) as capture:
        time, last = -interval, interval
        while capture.grab():
            before, time = time, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if time <= before:
                time = before + interval
            last = time - before
        return time + last


class _Capture:
    """An open clip; OpenCV's captures know no `with`."""

    def __init__(self, path: str | os.PathLike) -> None:
        name = os.fspath(path)
        self.capture = cv2.VideoCapture()
        with _openable(name) as where:
            self.capture.open(where, cv2.CAP_FFMPEG, _OPEN_PARAMETERS)
        if not self.capture.isOpened():
            raise ValueError(f"{name} is no clip that can be decoded.")

    def __enter__(self) -> cv2.VideoCapture:
        return self.capture

    def __exit__(self, *error: object) -> None:
        self.capture.release()


@contextlib.contextmanager
def _openable(name: str) -> Iterator[str]:
    """A name of the same file or stream that OpenCV can take."""
    try:
        name.encode()
    except UnicodeEncodeError:
        # OpenCV ends the process where a name is no UTF-8.
        try:
            descriptor = os.open(name, os.O_RDONLY)
        except OSError as error:
            raise ValueError(f"{name!r} cannot be opened.") from error
        try:
            yield f"/dev/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        # FFmpeg takes what stands before a colon for a protocol.
        yield name if "://" in name else os.path.abspath(name)
