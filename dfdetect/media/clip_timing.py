"""Measures when the frames of a clip are shown, because headers are often wrong.

The header of an interrupted recording has no duration or one that is too short, that of
a truncated file one that is too long, a clip trimmed without re-encoding counts frames
that are not shown, and in concatenated transport streams the time stamps start again.
Reading the packets without decoding takes a hundredth of the time of decoding.
"""

import dataclasses
import math
import os
import statistics

import av

from dfdetect.media import clip_decoding

DEFAULT_INTERVAL = 0.04  # Seconds between frames if the clip has no rate.

# Containers whose headers state a duration; for others FFmpeg estimates it.
_FORMATS_WITH_DURATION = {"mov", "matroska", "avi", "asf", "flv", "mxf"}

# Durations of headers are off by a frame or two, or by a little more with sound.
_TOLERANCE_SHARE = 0.01
_TOLERANCE_SECONDS = 0.2

# Time stamps that step back by more than jitter, or that leap by FFmpeg's own limit in
# a format with discontinuities, start again. In seconds.
_MIN_STEP_BACK = 0.5
_MIN_LEAP = 10.0
_HAS_DISCONTINUITIES = 0x0200  # AVFMT_TS_DISCONT of avformat.h.


class Clock:
    """Turns time stamps, which may be missing or start again, into rising times.

    Args:
        interval: Seconds between frames without time stamps.
        may_leap: Whether a large leap is a restart, as in transport streams.
        start: Time stamp of time 0; by default the first one.
    """

    def __init__(
        self, interval: float, may_leap: bool, start: float | None = None
    ) -> None:
        self._interval = interval
        self._may_leap = may_leap
        self._origin = start
        self._last = -interval

    def tick(self, stamp: float | None) -> float:
        """Returns the time in seconds of the next frame, above that of the last one.

        Args:
            stamp: Time stamp of the frame in seconds, or None.
        """
        following = self._last + self._interval
        if stamp is None:
            self._last = following
            return following
        if self._origin is None:
            self._origin = stamp
        step = stamp - self._origin - self._last
        if step < -_MIN_STEP_BACK or (self._may_leap and step > _MIN_LEAP):
            self._origin = stamp - following
            step = self._interval
        self._last = self._last + step if step > 0 else following
        return self._last


@dataclasses.dataclass(frozen=True)
class Timing:
    """Timing of a clip, measured without decoding it, in seconds.

    Attributes:
        start: Time stamp of the first frame, or None without time stamps.
        last: Time of the last frame, counted from the first.
        duration: Time from the first frame to the end of the last, or 0 if unknown.
        promised: Duration that the header states, or 0.
        stored: The part of `promised` that the file contains, sound included.
        interval: Typical time between frames.
        longest_step: Longest time between frames.
    """

    start: float | None
    last: float
    duration: float
    promised: float
    stored: float
    interval: float
    longest_step: float

    def is_whole(self, last: float) -> bool:
        """Whether the clip's last frame could be decoded.

        Args:
            last: Time of the last frame that could be decoded.
        """
        return last > self.last - self.interval / 2

    def problem(self, last: float) -> str:
        """Describes what is wrong with the clip; "" if nothing is.

        Args:
            last: See `is_whole`.
        """
        end = self.stored if self.is_whole(last) else last + self.interval
        wanted = max(self.promised, self.duration)
        if _is_far_below(end, wanted):
            return f"cut short: {end:.1f} of {wanted:.1f} seconds could be read"
        # Encoders of variable frame rates omit up to two frames from the duration.
        at_least = self.duration - 2 * self.longest_step
        if self.promised and _is_far_below(self.promised, at_least):
            return (
                f"its header is wrong: it promises {self.promised:.1f} seconds, and "
                f"there are {self.duration:.1f}"
            )
        return ""


def may_leap(clip: clip_decoding.OpenClip) -> bool:
    """Whether time stamps may start again in the format, as in MPEG streams."""
    return bool(int(clip.container.format.flags) & _HAS_DISCONTINUITIES)


def read_duration(clip: clip_decoding.OpenClip) -> float:
    """Returns the duration in seconds that the header of a clip states, or 0."""
    formats = set(clip.container.format.name.split(","))
    if not _FORMATS_WITH_DURATION & formats:
        return 0.0
    stream = clip.stream
    if "avi" in formats and stream.frames and clip.interval:
        # FFmpeg adjusts the duration of a truncated file.
        return stream.frames * clip.interval
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return max((clip.container.duration or 0) / av.time_base, 0.0)


def measure_timing(clip: clip_decoding.OpenClip) -> Timing:
    """Measures the timing of a clip from its packets, decoding only if necessary.

    A stream can be read only once; for it the values of the header are returned.

    Args:
        clip: An open clip; its file is opened a second time for the measurement.
    """
    promised = read_duration(clip)
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
        # `promised` is that of the longest stream and counts from time 0, which may
        # be long before the first frame.
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
    """Returns the time span of the video, and where the other streams end."""
    spans: dict[int, _Span] = {}
    leaps = may_leap(clip)
    for packet in clip.packets(video_only=False):
        if packet.stream.type in ("video", "audio") and not packet.is_discard:
            spans.setdefault(packet.stream.index, _Span(leaps)).add(packet)
    video = spans.pop(clip.stream.index, _Span(leaps))
    return video, [span.end + span.last_duration for span in spans.values()]


class _Span:
    """Time span of a stream, from its packets in decoding order."""

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
            if step < -_MIN_STEP_BACK or (self._leaps and step > _MIN_LEAP):
                moved = self.end + self.last_duration - shown
                self._shift += moved
                shown, decoded = shown + moved, decoded + moved
        self._last_decoded = decoded
        self._stamps.append(shown)
        self.start = min(self.start, shown)
        if shown > self.end:
            self.end, self.last_duration = shown, duration

    def interval(self) -> float:
        """The median step, or 0."""
        steps = self.steps()
        return statistics.median(steps) if steps else 0.0

    def steps(self) -> list[float]:
        """Seconds between consecutive frames."""
        stamps = sorted(self._stamps)
        return [b - a for a, b in zip(stamps, stamps[1:], strict=False) if b > a]


def _is_far_below(seconds: float, wanted: float) -> bool:
    missing = wanted - seconds
    return missing > max(_TOLERANCE_SHARE * wanted, _TOLERANCE_SECONDS)
