"""What a report shows of one clip: time line, tracks and key frames."""

from collections.abc import Mapping, Sequence
from typing import Any

from dfdetect import calibration
from dfdetect.report_page import heads, marks, timeline, wording
from dfdetect.report_page.pictures import SAME_SECONDS, Pictures


def parts(
    result: Mapping[str, Any],
    pictures: Pictures,
    thresholds: calibration.Thresholds,
) -> list[str]:
    """The parts of the page about a clip.

    Args:
        result: See `page.Report.add`.
        pictures: What is shown of it; its key frames are small.
        thresholds: See `calibration.verdict`.
    """
    found = [timeline.of(result, thresholds)]
    if result["tracks"]:
        found.append(_tracks(result["tracks"], thresholds))
    if pictures.heads or any("nearest_real" in head for head in result["heads"]):
        found.append(heads.listed(result, pictures.heads, thresholds))
    if pictures.key_frames:
        shown = "\n".join(
            _key_frame(time, content, result["frames"], thresholds)
            for time, content in pictures.key_frames
        )
        found.append(f'<div class="frames">\n{shown}\n</div>')
    return [part for part in found if part]


def _tracks(
    tracks: Sequence[Mapping[str, Any]], thresholds: calibration.Thresholds
) -> str:
    rows = "\n".join(_track(track, thresholds) for track in tracks)
    names = ("Track", "From", "To", "Heads", "Fake probability", "Verdict")
    columns = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<div class="wide"><table class="tracks">'
        f"<thead><tr>{columns}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
    )


def _track(track: Mapping[str, Any], thresholds: calibration.Thresholds) -> str:
    probability = track["fake_probability"]
    verdict = track.get("verdict", marks.verdict(probability, thresholds))
    return (
        f'<tr><th scope="row">{timeline.swatch(track["track"])} {track["track"]:d}</th>'
        f"<td>{wording.clock(track['first_time'])}</td>"
        f"<td>{wording.clock(track['last_time'])}</td>"
        f'<td class="number">{track["num_heads"]:,}</td>'
        f'<td class="number">{wording.percent(probability)}</td>'
        f"<td>{wording.tag(verdict)}</td></tr>"
    )


def _key_frame(
    time: float,
    content: bytes,
    frames: Sequence[Mapping[str, Any]],
    thresholds: calibration.Thresholds,
) -> str:
    nearest = min(frames, key=lambda x: abs(x["time"] - time), default=None)
    found = []
    if nearest and abs(nearest["time"] - time) <= SAME_SECONDS:
        found = nearest["heads"]
    names = [
        "" if head.get("track") is None else f"{head['track']:d}" for head in found
    ]
    described = f"Frame at {wording.clock(time)}"
    picture = marks.shot(content, described, found, names, thresholds)
    return f"<div>{picture}<p>{wording.clock(time)}</p></div>"
