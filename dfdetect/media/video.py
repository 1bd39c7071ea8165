"""Reads clips in one pass, from the first frame to the last one wanted, never seeking.

A seek decodes from the previous key frame, and a clip of FaceForensics++ has only two
to four of them. Frames are upright and in display geometry, with square pixels.
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
_EPSILON = 1e-4  # Seconds; less than the resolution of time stamps.


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
        index: Position in the clip, from 0.
        time: Seconds from the start.
        image: uint8 `[height, width, 3]`, upright RGB.
        shot: Number of its shot, from 0; set by `Reader` only.
    """

    index: int
    time: float
    image: np.ndarray
    shot: int = 0


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Selects the frames of a clip.

    Attributes:
        count: Number of frames, at the middles of equal parts of the clip's duration;
            -1 for all.
        every: Seconds between frames, from the first on; replaces `count` if given.
    """

    count: int = 32
    every: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1 and self.count != -1:
            raise ValueError(f"count must be from 1 on, or -1, got {self.count}.")
        if self.every is not None and not self.every > 0:
            raise ValueError(f"every must be above 0 seconds, got {self.every}.")


class Reader:
    """Iterates once over the frames of a clip, from the first to the last.

    Memory holds two frames at a time. Frames are selected by time stamps, so that the
    rate may vary: a frame is shown until the next one is, the last one until the end
    of the clip; of a stream, for the interval of its header. The duration is measured
    first, because headers are often wrong.

    Args:
        path: Path of the clip, or URL of a stream.
        sampling: Which frames to yield.

    Attributes:
        size: Width and height of upright frames in pixels, in display geometry.
        duration: Measured seconds; for a stream, those of its header, or 0.
        interval: Seconds between frames.
        num_read: Number of frames read so far.
        is_cut_short: After the last frame, whether the end is missing.
        warning: What is wrong as far as it is known, complete after the last frame.

    Raises:
        clip_decoding.UnreadableClipError: The file cannot be decoded as a clip; a
            `ValueError`.
    """

    def __init__(
        self, path: str | os.PathLike, sampling: Sampling | None = None
    ) -> None:
        self._sampling = sampling or Sampling()
        self._clip = clip_decoding.OpenClip(path)
        self._timing = clip_timing.measure_timing(self._clip)
        self.size = self._clip.size
        self._decoded: Iterator[clip_frame.DecodedFrame] = iter(())
        # The decoder would reject larger frames without giving the reason.
        if not self.is_too_large:
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

    @property
    def is_too_large(self) -> bool:
        """Whether frames have too many pixels, as stored or in display geometry."""
        return self.size[0] * self.size[1] > image_status.MAX_PIXELS

    @property
    def problem(self) -> str:
        """Why reading ended before the end of the file or stream; "" if it did not."""
        return self._clip.problem

    def __iter__(self) -> Iterator[Frame]:
        with self._clip:
            yield from self._frames()

    def _frames(self) -> Iterator[Frame]:
        shot_counter = shots.ShotCounter()
        next_wanted, next_view = self._first_wanted_after(-1.0), 0.0
        has_yielded, last = False, -self.interval
        for shown in self._shown():
            last = shown.time
            # Wanted is the last frame at or before a time.
            is_wanted = shown.end - _EPSILON > next_wanted
            # Of a clip whose end is missing, its middle may be.
            is_wanted |= shown.is_last and not has_yielded
            if not is_wanted and shown.time < next_view:
                continue
            try:
                image = shown.decoded.image()
            except av.FFmpegError:
                self._clip.num_damaged += 1
                continue
            self._note_hdr(shown.decoded)
            shot = shot_counter.add(image)
            next_view = shown.time + _SECONDS_BETWEEN_VIEWS
            if is_wanted:
                next_wanted = self._first_wanted_after(shown.end - _EPSILON)
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                has_yielded = True
                yield Frame(shown.index, max(shown.time, 0.0), image, shot)
        self._check(last)

    def _shown(self) -> Iterator["_Shown"]:
        """Yields the frames with the times between which they are shown."""
        clock = clip_timing.Clock(
            self.interval, clip_timing.may_leap(self._clip), self._timing.start
        )
        # Of a stream nobody knows when the next frame comes.
        is_live = not os.path.isfile(self._clip.name)
        before = None
        for index, decoded in enumerate(self._all_decoded()):
            self.num_read = index + 1
            time = clock.tick(decoded.stamp)
            shown = _Shown(index, time, time + self.interval, decoded)
            if is_live:
                yield shown
                continue
            if before is not None:
                yield dataclasses.replace(before, end=time)
            before = shown
        if before is not None:
            is_whole = self._timing.is_whole(before.time)
            end = max(before.end, self.duration) if is_whole else before.end
            yield dataclasses.replace(before, end=end, is_last=True)

    def _all_decoded(self) -> Iterator[clip_frame.DecodedFrame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._decoded

    def _first_wanted_after(self, time: float) -> float:
        """Returns the first time from `time` on whose frame is wanted, or infinity.

        Minus infinity where all are.
        """
        if self._sampling.every is not None:
            return max(0, math.ceil(time / self._sampling.every)) * self._sampling.every
        count = self._sampling.count
        if count < 0:
            return -math.inf
        part = self.duration / count
        number = max(0, math.ceil(time / part - 0.5)) if part else int(time >= 0)
        return (number + 0.5) * part if number < count else math.inf

    def _note_hdr(self, decoded: clip_frame.DecodedFrame) -> None:
        if decoded.hdr and not self.warning:
            self.warning = (
                f"{decoded.hdr} of high dynamic range: its colors look washed out"
            )

    def _check(self, last: float) -> None:
        """Sets `is_cut_short` and `warning` after the last frame."""
        problem = self._timing.problem(last)
        self.is_cut_short = problem.startswith("cut short")
        problems = [problem] if problem else []
        if self.warning:  # Of the first frame.
            problems.append(self.warning)
        damaged = self._clip.num_damaged
        if damaged and not self.is_cut_short:
            problems.append(f"{damaged} of its frames could not be decoded")
        self.warning = "; ".join(problems)


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A decoded frame and when it is shown, in seconds from the start."""

    index: int
    time: float
    end: float
    decoded: clip_frame.DecodedFrame
    is_last: bool = False


def bin_centers(num_frames: int, count: int) -> list[int]:
    """Returns the middle frames of `count` equal parts of a clip, or all frames.

    Args:
        num_frames: Number of frames of the clip.
        count: Number of frames wanted, or -1 for all.
    """
    if count < 0 or count >= num_frames:
        return list(range(num_frames))
    return [(2 * part + 1) * num_frames // (2 * count) for part in range(count)]


def count_frames(path: str | os.PathLike) -> int:
    """Counts the frames of a clip that can be decoded, by decoding all of it.

    Raises:
        clip_decoding.UnreadableClipError: The file cannot be decoded as a clip.
    """
    with clip_decoding.OpenClip(path) as clip:
        return sum(1 for _ in clip.frames())


def read_frames(path: str | os.PathLike, indices: Sequence[int]) -> Iterator[Frame]:
    """Yields frames of a clip, in one pass that ends with the last of `indices`.

    Ends early if the clip is shorter, or if a frame cannot be converted.

    Args:
        path: Path of the clip.
        indices: Positions of the wanted frames, ascending.

    Raises:
        clip_decoding.UnreadableClipError: The file cannot be decoded as a clip.
    """
    with clip_decoding.OpenClip(path) as clip:
        timing = clip_timing.measure_timing(clip)
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
