"""What a report shows of one clip: time line, tracks and key frames."""

from collections.abc import Mapping
from typing import Any

from dfdetect.metrics import calibration
from dfdetect.reports.page import formatting, heads, marks, thumbnails, timeline
from dfdetect.reports.page.thumbnails import SAME_SECONDS, Thumbnails


def parts(
    result: Mapping[str, Any],
    thumbnails: Thumbnails,
    thresholds: calibration.Thresholds,
) -> list[str]:
    """The parts of the page about a clip.

    Args:
        result: See `page.Report.add`.
        thumbnails: What is shown of it; its key frames are small.
        thresholds: See `calibration.decide_verdict`.
    """
    found = [_decision(result), timeline.of(result, thresholds)]
    if result["tracks"]:
        found.append(_tracks(result, thresholds))
    if thumbnails.heads or any("nearest_real" in head for head in result["heads"]):
        found.append(heads.listed(result, thumbnails.heads, thresholds))
    if thumbnails.key_frames:
        shown = "\n".join(
            _key_frame(time, content, result, thresholds)
            for time, content in thumbnails.key_frames
        )
        found.append(f'<div class="frames">\n{shown}\n</div>')
    return [part for part in found if part]


def _decision(result: Mapping[str, Any]) -> str:
    """The sentence that tells which track decided; "" of earlier versions' lines."""
    deciding, main = result.get("deciding_track"), result.get("main_person")
    if deciding is None or not main:
        return ""
    number_aside = sum(not track.get("matters", True) for track in result["tracks"])
    words = f"Track {deciding:d} decides"
    if number_aside:
        words += f"; {formatting.count(number_aside, 'track')} set aside"
    words += ". The main person is "
    if main["track"] == deciding:
        words += "the same."
    else:
        words += (
            f"track {main['track']:d}: {formatting.percent(main['fake_probability'])} "
            f"{formatting.tag(main['verdict'])}"
        )
    return f"<p>{words}</p>"


def _tracks(result: Mapping[str, Any], thresholds: calibration.Thresholds) -> str:
    deciding = result.get("deciding_track")
    rows = "\n".join(
        _track(track, track["track"] == deciding, thresholds)
        for track in result["tracks"]
    )
    names = ("Track", "From", "To", "Heads", "Fake probability", "Verdict", "Decides")
    columns = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<div class="wide"><table class="tracks">'
        f"<thead><tr>{columns}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
    )


def _track(
    track: Mapping[str, Any], decides: bool, thresholds: calibration.Thresholds
) -> str:
    probability = track["fake_probability"]
    verdict = track.get("verdict", marks.verdict(probability, thresholds))
    part = "<b>decides</b>" if decides else "may decide"
    if "matters" not in track:
        part = formatting.NOTHING
    elif not track["matters"]:
        part = f"set aside: {formatting.set_aside(track['set_aside'])}"
    kind = "" if track.get("matters", True) else ' class="aside"'
    return (
        f"<tr{kind}>"
        f'<th scope="row">{timeline.swatch(track["track"])} {track["track"]:d}</th>'
        f"<td>{formatting.clock(track['first_time'])}</td>"
        f"<td>{formatting.clock(track['last_time'])}</td>"
        f'<td class="number">{track["num_heads"]:,}</td>'
        f'<td class="number">{formatting.percent(probability)}</td>'
        f"<td>{formatting.tag(verdict)}</td><td>{part}</td></tr>"
    )


def _key_frame(
    time: float,
    content: bytes,
    result: Mapping[str, Any],
    thresholds: calibration.Thresholds,
) -> str:
    nearest = min(result["frames"], key=lambda x: abs(x["time"] - time), default=None)
    found = []
    if nearest and abs(nearest["time"] - time) <= SAME_SECONDS:
        found = nearest["heads"]
    names = [
        "" if head.get("track") is None else f"{head['track']:d}" for head in found
    ]
    described = f"Frame at {formatting.clock(time)}"
    aside = thumbnails.set_aside(result)
    muted = [head.get("track") in aside for head in found]
    image = marks.shot(content, described, found, names, thresholds, muted)
    return f"<div>{image}<p>{formatting.clock(time)}</p></div>"
