"""When the frames of a clip are shown: measured, as headers are often wrong.

A recorder that was killed tells no duration or too short a one, a clip that was cut
short too long a one, one that was trimmed without encoding counts frames that are not
shown, and in transport streams that were joined time begins anew. To read what is
stored, without decoding it, takes a hundredth of the time of decoding.
"""

import dataclasses
import math
import os
import statistics

import av

from dfdetect.media import clip_decoding

DEFAULT_INTERVAL = 0.04  # Seconds from frame to frame where nothing tells more.

# Containers whose headers promise a duration; of others FFmpeg estimates it.
_PROMISING_FORMATS = {"mov", "matroska", "avi", "asf", "flv", "mxf"}

# Headers are a frame or two off, or, for sound, a little more.
_TOLERATED_SHARE = 0.01
_TOLERATED_SECONDS = 0.2

# A step back of time stamps that is no jitter, and a leap of a stream whose time may
# begin anew (FFmpeg's own limit), in seconds.
_LEAST_STEP_BACK = 0.5
_LEAST_LEAP = 10.0
_MAY_BEGIN_ANEW = 0x0200  # AVFMT_TS_DISCONT of avformat.h.


class Clock:
    """Lets time go on where time stamps begin anew, or lack.

    Args:
        interval: Seconds from frame to frame where nothing tells more.
        may_leap: Whether a great leap is a new beginning, as in transport streams.
        start: The time stamp of time 0; by default the first one.
    """

    def __init__(
        self, interval: float, may_leap: bool, start: float | None = None
    ) -> None:
        self._interval = interval
        self._may_leap = may_leap
        self._origin = start
        self._last = -interval

    def tick(self, stamp: float | None) -> float:
        """The time in seconds of the next frame: above that of the last one.

        Args:
            stamp: Its time stamp in seconds, or None.
        """
        following = self._last + self._interval
        if stamp is None:
            self._last = following
            return following
        if self._origin is None:
            self._origin = stamp
        step = stamp - self._origin - self._last
        if step < -_LEAST_STEP_BACK or (self._may_leap and step > _LEAST_LEAP):
            self._origin = stamp - following
            step = self._interval
        self._last = self._last + step if step > 0 else following
        return self._last


@dataclasses.dataclass(frozen=True)
class Timing:
    """What is known of the time of a clip before it is decoded, in seconds.

    Attributes:
        start: The time stamp of the first frame, or None without time stamps.
        last: When the last frame is shown, from the first on.
        duration: From the first frame to the end of the last, or 0 if unknown.
        promised: The duration that the header promises, or 0.
        stored: What of `promised` is stored, sound included.
        interval: From frame to frame.
        longest_step: From one frame to the next.
    """

    start: float | None
    last: float
    duration: float
    promised: float
    stored: float
    interval: float
    longest_step: float

    def problem(self, last: float) -> str:
        """What is wrong with the clip, or "".

        Args:
            last: The time of the last frame that could be decoded.
        """
        is_whole = last > self.last - self.interval / 2
        end = self.stored if is_whole else last + self.interval
        wanted = max(self.promised, self.duration)
        if _is_far_below(end, wanted):
            return f"cut short: {end:.1f} of {wanted:.1f} seconds could be read"
        # Writers of clips of varying rate forget as much as two frames.
        surely = self.duration - 2 * self.longest_step
        if self.promised and _is_far_below(self.promised, surely):
            return (
                f"its header is wrong: it promises {self.promised:.1f} seconds, and "
                f"there are {self.duration:.1f}"
            )
        return ""


def may_leap(clip: clip_decoding.OpenClip) -> bool:
    """Whether time stamps of the format may begin anew: of MPEG streams."""
    return bool(int(clip.container.format.flags) & _MAY_BEGIN_ANEW)


def promise(clip: clip_decoding.OpenClip) -> float:
    """The duration in seconds that the header of a clip promises, or 0."""
    formats = set(clip.container.format.name.split(","))
    if not _PROMISING_FORMATS & formats:
        return 0.0
    stream = clip.stream
    if "avi" in formats and stream.frames and clip.interval:
        # FFmpeg corrects the duration where the file is cut short.
        return stream.frames * clip.interval
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return max((clip.container.duration or 0) / av.time_base, 0.0)


def measure(clip: clip_decoding.OpenClip) -> Timing:
    """Reads all that is stored of a clip, without decoding more than it must.

    Of a stream, which comes but once, it returns what is promised.

    Args:
        clip: As it was opened; it is opened once more to be measured.
    """
    promised = promise(clip)
    interval = clip.interval or DEFAULT_INTERVAL
    if not os.path.isfile(clip.name):
        return Timing(None, 0.0, promised, 0.0, promised, interval, interval)
    with clip_decoding.OpenClip(clip.name) as measured:
        video, ends = _spans(measured)
    interval = clip.interval or video.interval() or DEFAULT_INTERVAL
    if video.lacks_stamps:
        with clip_decoding.OpenClip(clip.name) as measured:
            count = sum(1 for _ in measured.frames())
        duration = interval * count
        last = duration - interval
        return Timing(None, last, duration, 0.0, duration, interval, interval)
    last = video.end - video.start
    duration = last + (video.last_duration or interval)
    stored = duration
    if promised and (not clip.stream.duration or "asf" in clip.container.format.name):
        # It is of the longest stream, and counts from time 0, from which the first
        # frame may be far away.
        origin = 0.0 if 0 <= video.start < promised else video.start
        stored = max(end - origin for end in (video.start + duration, *ends))
    return Timing(
        start=video.start,
        last=last,
        duration=duration,
        promised=promised,
        stored=stored,
        interval=interval,
        longest_step=max(video.steps(), default=interval),
    )


def _spans(clip: clip_decoding.OpenClip) -> tuple["_Span", list[float]]:
    """When the frames of a clip are shown, and where its other streams end."""
    spans: dict[int, _Span] = {}
    leaps = may_leap(clip)
    for packet in clip.packets(video_only=False):
        if packet.stream.type in ("video", "audio") and not packet.is_discard:
            spans.setdefault(packet.stream.index, _Span(leaps)).add(packet)
    video = spans.pop(clip.stream.index, _Span(leaps))
    return video, [span.end + span.last_duration for span in spans.values()]


class _Span:
    """From when to when a stream lasts, by its packets in the order of decoding."""

    def __init__(self, leaps: bool) -> None:
        self._leaps = leaps
        self._shift = 0.0
        self._last_decoded: float | None = None
        self._stamps: list[float] = []
        self.start, self.end = math.inf, -math.inf
        self.last_duration = 0.0
        self.lacks_stamps = True

    def add(self, packet: av.Packet) -> None:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.time_base:
            return
        self.lacks_stamps = False
        base = float(packet.time_base)
        duration = (packet.duration or 0) * base
        shown = stamp * base + self._shift
        decoded = shown if packet.dts is None else packet.dts * base + self._shift
        if self._last_decoded is not None:
            step = decoded - self._last_decoded
            if step < -_LEAST_STEP_BACK or (self._leaps and step > _LEAST_LEAP):
                moved = self.end + self.last_duration - shown
                self._shift += moved
                shown, decoded = shown + moved, decoded + moved
        self._last_decoded = decoded
        self._stamps.append(shown)
        self.start = min(self.start, shown)
        if shown > self.end:
            self.end, self.last_duration = shown, duration

    def interval(self) -> float:
        """The middle one of the steps, or 0."""
        steps = self.steps()
        return statistics.median(steps) if steps else 0.0

    def steps(self) -> list[float]:
        """Seconds from each frame to the next."""
        stamps = sorted(self._stamps)
        return [b - a for a, b in zip(stamps, stamps[1:], strict=False) if b > a]


def _is_far_below(seconds: float, wanted: float) -> bool:
    missing = wanted - seconds
    return missing > max(_TOLERATED_SHARE * wanted, _TOLERATED_SECONDS)
