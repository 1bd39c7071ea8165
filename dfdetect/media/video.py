"""Reads clips: one pass from the first frame to the last one wanted, never a seek.

A seek decodes from the key frame before it, and the clips of FaceForensics++ have two
to four key frames in all. Frames come upright and in display geometry: pixels that are
not square are made so.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence

import av
import cv2
import numpy as np

from dfdetect.media import clip_decoding, clip_frame, clip_timing, image_status, shots

_SECONDS_BETWEEN_VIEWS = 0.5  # See `shots`.
_TINY = 1e-4  # Seconds; below what time stamps tell apart.


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
    What a file holds is measured before, without decoding it: headers are often wrong.

    Args:
        path: Of the clip, or the URL of a stream.
        sampling: Which frames to yield.

    Attributes:
        size: Width and height of upright frames in pixels, in display geometry.
        duration: Seconds, as measured; of a stream, as promised, or 0.
        interval: Seconds from frame to frame.
        num_read: How many frames have been read so far.
        is_cut_short: After the last frame, whether the end is missing.
        warning: After the last frame, what was wrong, or "".

    Raises:
        clip_decoding.UnreadableClipError: It is no clip that can be decoded; a
            `ValueError`.
    """

    def __init__(
        self, path: str | os.PathLike, sampling: Sampling | None = None
    ) -> None:
        self._sampling = sampling or Sampling()
        self._clip = clip_decoding.OpenClip(path)
        self._timing = clip_timing.measure(self._clip)
        self.size = self._clip.size
        self._decoded: Iterator[clip_frame.DecodedFrame] = iter(())
        # Else the decoder would refuse it, and nobody learn why.
        if self.size[0] * self.size[1] <= image_status.MAX_PIXELS:
            self._decoded = self._clip.frames()
            self._first = next(self._decoded, None)
            if self._first is None:
                self._clip.close()
                detail = f"no frame of its {self._clip.codec} could be decoded"
                raise clip_decoding.UnreadableClipError(self._clip.name, detail)
            self.size = self._first.size
        else:
            self._first = None
        self.interval = self._timing.interval
        self.duration = self._timing.duration
        self.num_read = 0
        self.is_cut_short = False
        self.warning = ""

    def __iter__(self) -> Iterator[Frame]:
        with self._clip:
            yield from self._frames()

    def _frames(self) -> Iterator[Frame]:
        clock = clip_timing.Clock(
            self.interval, clip_timing.may_leap(self._clip), self._timing.start
        )
        counted = shots.Shots()
        time, hdr = -self.interval, ""
        next_wanted, next_view = self._first_wanted_after(-1.0), 0.0
        for decoded in self._all_decoded():
            index = self.num_read
            self.num_read += 1
            time = clock.tick(decoded.stamp)
            # The last frame that begins before it, were the rate that of the header.
            shown_until = time + self.interval - _TINY
            is_wanted = shown_until > next_wanted
            if not is_wanted and time < next_view:
                continue
            try:
                image = decoded.image()
            except av.FFmpegError:
                self._clip.num_damaged += 1
                continue
            hdr = hdr or decoded.hdr
            shot = counted.look(image)
            next_view = time + _SECONDS_BETWEEN_VIEWS
            if is_wanted:
                next_wanted = self._first_wanted_after(shown_until)
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                yield Frame(index, max(time, 0.0), image, shot)
        self._check(time, hdr)

    def _all_decoded(self) -> Iterator[clip_frame.DecodedFrame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._decoded

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

    def _check(self, last: float, hdr: str) -> None:
        """Notes what was wrong, once all is read."""
        problem = self._timing.problem(last)
        self.is_cut_short = problem.startswith("cut short")
        problems = [problem] if problem else []
        if hdr:
            problems.append(f"{hdr} of high dynamic range: its colors look washed out")
        damaged = self._clip.num_damaged
        if damaged and not self.is_cut_short:
            problems.append(f"{damaged} of its frames could not be decoded")
        self.warning = "; ".join(problems)


def bin_centres(num_frames: int, count: int) -> list[int]:
    """The middle frames of `count` equal parts of a clip; all frames of a shorter one.

    Args:
        num_frames: Frames of the clip.
        count: Frames wanted, or -1 for all.
    """
    if count < 0 or count >= num_frames:
        return list(range(num_frames))
    return [(2 * part + 1) * num_frames // (2 * count) for part in range(count)]


def num_frames(path: str | os.PathLike) -> int:
    """How many frames of a clip can be decoded: goes through all of it.

    Raises:
        clip_decoding.UnreadableClipError: It is no clip that can be decoded.
    """
    with clip_decoding.OpenClip(path) as clip:
        return sum(1 for _ in clip.frames())


def frames(path: str | os.PathLike, indices: Sequence[int]) -> Iterator[Frame]:
    """Yields frames of a clip, in one pass that ends with the last of `indices`.

    A clip that has fewer, or of which one cannot be converted, gives fewer.

    Args:
        path: Of the clip.
        indices: Positions wanted, rising.

    Raises:
        clip_decoding.UnreadableClipError: It is no clip that can be decoded.
    """
    with clip_decoding.OpenClip(path) as clip:
        timing = clip_timing.measure(clip)
        clock = clip_timing.Clock(
            timing.interval, clip_timing.may_leap(clip), timing.start
        )
        decoded = enumerate(clip.frames())
        for wanted in indices:
            for index, frame in decoded:
                time = clock.tick(frame.stamp)
                if index == wanted:
                    break
            else:
                return
            try:
                image = frame.image()
            except av.FFmpegError:
                return
            yield Frame(index, max(time, 0.0), cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
