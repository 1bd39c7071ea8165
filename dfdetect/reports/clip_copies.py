"""Writes a copy of a clip with its heads marked, and a chart."""

import bisect
import itertools
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from dfdetect import files
from dfdetect.media import clip_encoding, drawing, video
from dfdetect.metrics import calibration
from dfdetect.pipeline import result_lines
from dfdetect.reports.page import thumbnails

if TYPE_CHECKING:
    import matplotlib.figure

Result = result_lines.ResultLine

_MOST_FRAMES_PER_SECOND = 60.0
_LONGEST_STILL = 600.0  # Seconds; longer ones may be errors of the time stamps.

# Seconds; between sightings further apart a head may have been anywhere.
_FURTHEST_SIGHTINGS = 2.0
_SECONDS_SHOWN = 0.25  # Around a single sighting.

_MOST_NAMED_TRACKS = 10


def write_copy(path: str, result: Result, target: str) -> None:
    """Writes a clip with its heads marked, as MPEG-4 without sound.

    Boxes and probabilities between two nearby judged frames are interpolated. After a
    track's number the copy shows that it decides, or why it was set aside; tracks that
    were set aside are gray. The copy has a constant rate, at most 60 frames a second.

    Args:
        path: File of the clip.
        result: Result line of the clip.
        target: File to write, which ends in .mp4; it is renamed once it is complete.

    Raises:
        OSError: It cannot be written, or the clip can no longer be read; nothing is
            left behind.
    """
    sightings = _collect_sightings(result)
    roles = _describe_roles(result)
    try:
        reader = video.Reader(path, video.Sampling(count=-1))
        frames = iter(reader)
        first = next(frames, None)
        if first is None:
            raise OSError(f"{path} has no frame that can be decoded.")
        rate = min(1 / reader.interval, _MOST_FRAMES_PER_SECOND)
        height, width = (side // 2 * 2 for side in first.image.shape[:2])
        with clip_encoding.open_clip_writer(target, rate, (width, height)) as writer:
            for frame, count in _count_repeats(first, frames, reader, rate):
                marked = _fit(_draw_marks(frame, sightings, roles), (width, height))
                for _ in range(count):
                    writer.write(marked)
    except ValueError as error:  # The clip could be read a moment ago.
        raise OSError(str(error)) from error


def _count_repeats(
    first: video.Frame, others: Iterator[video.Frame], reader: video.Reader, rate: float
) -> Iterator[tuple[video.Frame, int]]:
    """Yields the frames of a copy of constant rate, and how often it has each.

    A frame is shown until the next one is, the last one until the end of the clip.
    Frames that are shown for less than half a frame of the copy may be left out.
    """
    shown, begin = first, 0
    for frame in itertools.chain(others, [None]):
        time = max(reader.duration, shown.time) if frame is None else frame.time
        end = round(time * rate)
        if frame is None and not begin:
            end = max(end, 1)
        if end > begin:
            yield shown, min(end - begin, math.ceil(_LONGEST_STILL * rate))
            begin = end
        if frame is not None:
            shown = frame


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image, after an odd row or column has been cut off."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    image = image[:height, :width]
    if (width, height) == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def read_key_frames(result: Result) -> list[tuple[float, bytes]]:
    """Reads the frames of a clip that a report shows.

    Args:
        result: Result line of the clip.

    Returns:
        Seconds of each frame, and a JPEG without marks.
    """
    wanted = thumbnails.choose_key_times(result)
    chosen = {
        frame["index"]: frame["time"]
        for frame in result["frames"]
        if any(abs(frame["time"] - x) <= thumbnails.SAME_SECONDS for x in wanted)
    }
    return [
        (chosen[frame.index], drawing.encode_image(frame.image, ".jpg"))
        for frame in video.read_frames(result["path"], sorted(chosen))
    ]


def write_chart(
    result: Result, thresholds: calibration.Thresholds, target: str
) -> None:
    """Writes a PNG of the fake probability over time, a line for each track."""
    files.write(target, drawing.encode_figure(draw_chart(result, thresholds)))


def draw_chart(
    result: Result, thresholds: calibration.Thresholds
) -> "matplotlib.figure.Figure":
    """Draws the fake probability over time, a line for each track.

    Ten tracks are named, those that matter before those that were set aside, and the
    most suspicious first; the others are gray. Tracks that were set aside are dashed.
    Cuts are dotted lines, and the band of "uncertain" is shaded.
    """
    # Imported here, as images need no figure.
    from matplotlib import figure

    drawn = figure.Figure(figsize=(10, 4), layout="constrained")
    axes = drawn.add_subplot()
    axes.axhspan(
        thresholds["real_below"], thresholds["fake_from"], color="0.9", zorder=0
    )
    axes.axhline(thresholds["fake_from"], color="0.6", linewidth=0.8, zorder=1)
    by_suspicion = sorted(
        (x for x in result["tracks"] if x["fake_probability"] is not None),
        key=lambda track: (
            not track.get("matters", True),
            -(track["fake_probability"] or 0.0),
        ),
    )
    roles = _describe_roles(result)
    is_mattering = {x["track"]: x.get("matters", True) for x in result["tracks"]}
    named = {x["track"]: x for x in by_suspicion[:_MOST_NAMED_TRACKS]}
    for number, seen in sorted(
        _collect_sightings(result).items(), key=lambda x: x[0] in named
    ):
        times = [time for time, _, _ in seen]
        values = [probability for _, _, probability in seen]
        track = named.get(number)
        style: dict[str, Any] = {"color": "0.8"}
        if track:
            style = {
                "label": f"track {number}: {track['fake_probability']:.2f} "
                f"{track['verdict']}{_in_brackets(roles.get(number, ''))}"
            }
        if not is_mattering.get(number, True):
            style["linestyle"] = "--"
        axes.plot(times, values, marker="o", markersize=3, linewidth=1, **style)
    for before, after in zip(result["frames"], result["frames"][1:], strict=False):
        if before["shot"] != after["shot"]:
            middle = (before["time"] + after["time"]) / 2
            axes.axvline(middle, color="0.5", linewidth=0.8, linestyle=":")
    # A name may hold what matplotlib takes for a formula.
    title = os.path.basename(result["path"]).replace("$", r"\$")
    axes.set_title(title.encode(errors="replace").decode())
    axes.set(xlabel="seconds", ylabel="fake probability", ylim=(-0.02, 1.02))
    end = max([result["duration"] or 0, *(x["time"] for x in result["frames"])])
    axes.set_xlim(0, max(end, 1e-3))
    if named:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return drawn


# Times, boxes and probabilities (NaN where not judged) of one track, by time.
_Sightings = list[tuple[float, np.ndarray, float]]


def _collect_sightings(result: Result) -> dict[int, _Sightings]:
    """Collects where each track was seen."""
    found: dict[int, _Sightings] = {}
    for frame in result["frames"]:
        for head in frame["heads"]:
            value = head["fake_probability"]
            value = math.nan if value is None else value
            sighting = (frame["time"], np.array(head["box"]), value)
            found.setdefault(head["track"], []).append(sighting)
    return found


def _describe_roles(result: Result) -> dict[int, str]:
    """Describes in a few words which track decides, and why others do not."""
    roles = {
        track["track"]: ", ".join(track["set_aside"])
        for track in result["tracks"]
        if track.get("set_aside")
    }
    deciding = result.get("deciding_track")
    # A single track always decides.
    if deciding is not None and len(result["tracks"]) > 1:
        roles[deciding] = "decides"
    return roles


def _in_brackets(words: str) -> str:
    return f" ({words})" if words else ""


def _draw_marks(
    frame: video.Frame, sightings: dict[int, _Sightings], roles: dict[int, str]
) -> np.ndarray:
    numbers, boxes, probabilities, muted = [], [], [], []
    for number, box, probability in _find_heads_at(frame.time, sightings):
        role = roles.get(number, "")
        numbers.append(f"#{number} {role}".strip())
        muted.append(role not in ("", "decides"))
        boxes.append(box)
        probabilities.append(probability)
    shown = np.array(boxes).reshape(-1, 4)
    return drawing.annotate(
        frame.image, shown, probabilities, notes=numbers, muted=muted
    )


def _find_heads_at(
    time: float, sightings: dict[int, _Sightings]
) -> Iterator[tuple[int, np.ndarray, float]]:
    """Yields number, box and probability of each track that is visible at a time."""
    for number, seen in sightings.items():
        # A time stamp of the result is rounded.
        after = bisect.bisect_right(seen, time + 1e-3, key=lambda sighting: sighting[0])
        near = seen[max(after - 1, 0) : after + 1]
        if 0 < after < len(seen):
            (start, box, value), (end, next_box, next_value) = near
            if end - start <= _FURTHEST_SIGHTINGS:
                share = (time - start) / max(end - start, 1e-9)
                if not math.isnan(next_value):
                    value += share * (next_value - value)
                yield number, box + share * (next_box - box), value
                continue
        start, box, value = min(near, key=lambda sighting: abs(sighting[0] - time))
        if abs(start - time) <= _SECONDS_SHOWN:
            yield number, box, value
