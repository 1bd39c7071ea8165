"""What a report shows of one clip: time line, tracks and key frames."""

from collections.abc import Mapping
from typing import Any

import markupsafe

from dfdetect.metrics import calibration
from dfdetect.reports.page import formatting, heads, marks, thumbnails, timeline
from dfdetect.reports.page.thumbnails import SAME_SECONDS, Thumbnails


def render(
    result: Mapping[str, Any],
    shown: Thumbnails,
    thresholds: calibration.Thresholds,
) -> markupsafe.Markup:
    """Renders the part of the page about a clip.

    Args:
        result: See `page.ReportPage.add`.
        shown: Images of the clip; its key frames are small.
        thresholds: See `calibration.decide_verdict`.
    """
    tracks = [
        (
            track,
            track.get("verdict", marks.judge(track["fake_probability"], thresholds)),
        )
        for track in result["tracks"]
    ]
    has_heads = shown.heads or any("nearest_real" in head for head in result["heads"])
    deciding_track = result.get("deciding_track")
    # Result lines of earlier versions do not say which track decided.
    main_person = None if deciding_track is None else result.get("main_person")
    return formatting.TEMPLATES.render(
        "clip.html",
        deciding_track=deciding_track,
        main_person=main_person,
        num_aside=len(thumbnails.find_set_aside(result)),
        timeline=timeline.render(result, thresholds),
        tracks=tracks,
        heads=heads.render_list(result, shown.heads, thresholds) if has_heads else "",
        key_frames=[
            (time, _render_key_frame(time, content, result, thresholds))
            for time, content in shown.key_frames
        ],
    )


def _render_key_frame(
    time: float,
    content: bytes,
    result: Mapping[str, Any],
    thresholds: calibration.Thresholds,
) -> markupsafe.Markup:
    nearest = min(result["frames"], key=lambda x: abs(x["time"] - time), default=None)
    found = []
    if nearest and abs(nearest["time"] - time) <= SAME_SECONDS:
        found = nearest["heads"]
    aside = thumbnails.find_set_aside(result)
    return marks.render_shot(
        content,
        f"Frame at {formatting.format_clock(time)}",
        heads=found,
        names=[
            "" if head.get("track") is None else f"{head['track']:d}" for head in found
        ],
        thresholds=thresholds,
        muted=[head.get("track") in aside for head in found],
    )
