"""A clip's fake probability over time for each track, as inline SVG."""

from collections.abc import Mapping
from typing import Any

import markupsafe

from dfdetect.metrics import calibration
from dfdetect.reports.page import formatting

# The plot is stretched to the width of the page; text keeps its size.
_WIDTH, _HEIGHT = 1000, 100
_LABELS = 5  # on the time axis

# Uninterrupted runs of (time, probability).
_Runs = list[list[tuple[float, float]]]


def render(
    result: Mapping[str, Any], thresholds: calibration.Thresholds
) -> markupsafe.Markup:
    """Renders the time line of a clip, empty where no head has a probability.

    Args:
        result: Result of a video, see `page.ReportPage.add`.
        thresholds: Drawn as two lines.
    """
    curves = _find_curves(result)
    if not curves:
        return markupsafe.Markup("")
    end = result.get("duration") or max(
        [frame["time"] for frame in result["frames"]]
        + [track["last_time"] for track in result["tracks"]]
    )
    end = max(end, 1e-3)
    # Where both are the same, one label is enough.
    limits = {thresholds["real_below"]: "real below"}
    limits |= {thresholds["fake_from"]: "fake from"}
    names = " and ".join(str(track) for track in curves)
    clock = formatting.format_clock(end)
    return formatting.TEMPLATES.render(
        "timeline.html",
        description=f"Fake probability from 0 to {clock} of track {names}",
        width=_WIDTH,
        height=_HEIGHT,
        times=_describe_times(end),
        limits=[_describe_limit(limit, name) for limit, name in limits.items()],
        curves=[
            {
                "style": formatting.choose_track_style(track),
                "path": _draw_path(runs, end),
                "dots": _draw_dots(runs, end),
            }
            for track, runs in curves.items()
        ],
    )


def _find_curves(result: Mapping[str, Any]) -> dict[int, _Runs]:
    """Finds the runs of each track; where it is away, another one begins."""
    curves: dict[int, _Runs] = {}
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


def _draw_path(runs: _Runs, end: float) -> str:
    return "".join(
        "M" + "L".join(f"{_WIDTH * t / end:.1f} {_y(p):.1f}" for t, p in run)
        for run in runs
    )


def _draw_dots(runs: _Runs, end: float) -> str:
    """Draws lines without a length: round ends make them dots that do not stretch."""
    return "".join(
        f"M{_WIDTH * t / end:.1f} {_y(p):.1f}h0" for run in runs for t, p in run
    )


def _y(probability: float) -> float:
    return _HEIGHT * (1 - probability)


def _describe_times(end: float) -> list[dict[str, str]]:
    anchors = ["start", *["middle"] * (_LABELS - 2), "end"]
    shares = [i / (_LABELS - 1) for i in range(_LABELS)]
    return [
        {
            "x": f"{100 * share:.0f}%",
            "anchor": anchor,
            "label": formatting.format_clock(share * end),
        }
        for share, anchor in zip(shares, anchors, strict=True)
    ]


def _describe_limit(limit: float, name: str) -> dict[str, str]:
    return {
        "y": f"{_y(limit):.1f}",
        "label": f"{name} {formatting.format_percent(limit)}",
        # Above its line, in a plot that is 150 px high and 8 px down.
        "label_y": f"{max(20, 5 + 150 * (1 - limit)):.0f}",
    }
