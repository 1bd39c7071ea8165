"""A clip's fake probability over time for each track, as inline SVG."""

from collections.abc import Mapping
from typing import Any

from dfdetect.metrics import calibration
from dfdetect.reports.page import formatting

# The classes t0 to t5 of the style sheet: a colour and a dash each.
NUM_STYLES = 6

# The plot is stretched to the width of the page; what is written stays as it is.
_WIDTH, _HEIGHT = 1000, 100
_LABELS = 5  # on the time axis


def of(result: Mapping[str, Any], thresholds: calibration.Thresholds) -> str:
    """The time line of a clip's result, or "" when there is nothing to draw.

    Args:
        result: Of a video; see `page.Report.add`.
        thresholds: Drawn as two lines.
    """
    curves = _curves(result)
    if not curves:
        return ""
    end = result.get("duration") or max(
        [frame["time"] for frame in result["frames"]]
        + [track["last_time"] for track in result["tracks"]]
    )
    end = max(end, 1e-3)
    drawn = [
        f'<path class="track {style(track)}" d="{_path(runs, end)}"/>'
        f'<path class="dots {style(track)}" d="{_dots(runs, end)}"/>'
        for track, runs in curves.items()
    ]
    # Where both are the same, one word is enough.
    limits = {thresholds["real_below"]: "real below"}
    limits |= {thresholds["fake_from"]: "fake from"}
    lines = "".join(
        f'<path class="limit" d="M0 {_y(limit):.1f}H{_WIDTH}"/>' for limit in limits
    )
    names = " and ".join(str(track) for track in curves)
    about = f"Fake probability from 0 to {formatting.clock(end)} of track {names}"
    # What is written stands before the curves, so that it covers none.
    field = f'<rect class="field" width="{_WIDTH}" height="{_HEIGHT}"/>{lines}'
    return (
        '<figure class="timeline"><svg role="img" '
        f'aria-label="{formatting.text(about)}">'
        f"{_stretched(field)}{_labels(end, limits)}{_stretched(''.join(drawn))}</svg>"
        "<figcaption>Fake probability over time, 0 % below and 100 % above; the lines "
        "across are the thresholds.</figcaption></figure>"
    )


def style(track: int) -> str:
    """The class of a track, in time line and legend."""
    return f"t{track % NUM_STYLES}"


def swatch(track: int) -> str:
    """A piece of a track's line, for the legend."""
    return (
        '<svg class="swatch" aria-hidden="true">'
        f'<path class="track {style(track)}" d="M0 6H36"/></svg>'
    )


def _stretched(drawn: str) -> str:
    """Over the whole width, below an edge for labels."""
    return (
        '<svg x="0" y="8" width="100%" height="150" preserveAspectRatio="none" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">{drawn}</svg>'
    )


def _curves(result: Mapping[str, Any]) -> dict[int, list[list[tuple[float, float]]]]:
    """Of each track its runs of times and probabilities; a gap begins a new one."""
    curves: dict[int, list[list[tuple[float, float]]]] = {}
    before: set[Any] = set()
    for frame in result["frames"]:
        now = set()
        for head in frame["heads"]:
            track = head.get("track")
            if track is None or head["fake_probability"] is None:
                continue
            runs = curves.setdefault(track, [])
            if track not in before or not runs:
                runs.append([])
            runs[-1].append((frame["time"], head["fake_probability"]))
            now.add(track)
        before = now
    return curves


def _path(runs: list[list[tuple[float, float]]], end: float) -> str:
    return "".join(
        "M" + "L".join(f"{_WIDTH * t / end:.1f} {_y(p):.1f}" for t, p in run)
        for run in runs
    )


def _dots(runs: list[list[tuple[float, float]]], end: float) -> str:
    """Lines without a length, which round ends make dots that are not stretched."""
    return "".join(
        f"M{_WIDTH * t / end:.1f} {_y(p):.1f}h0" for run in runs for t, p in run
    )


def _y(probability: float) -> float:
    return _HEIGHT * (1 - probability)


def _labels(end: float, limits: dict[float, str]) -> str:
    places = [
        (i / (_LABELS - 1), "start" if i == 0 else "end" if i == _LABELS - 1 else "")
        for i in range(_LABELS)
    ]
    times = "".join(
        f'<text x="{100 * x:.0f}%" y="174" text-anchor="{anchor or "middle"}">'
        f"{formatting.clock(x * end)}</text>"
        for x, anchor in places
    )
    # Above the line that it tells, of a plot that is 150 px high and 8 px down.
    values = "".join(
        f'<text class="value" x="4" y="{max(20, 5 + 150 * (1 - limit)):.0f}">'
        f"{name} {formatting.percent(limit)}</text>"
        for limit, name in limits.items()
    )
    return times + values
