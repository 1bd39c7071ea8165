"""The list of a file's heads in a report: crop, heat map, and nearest known images."""

from collections.abc import Mapping
from typing import Any

import markupsafe

from dfdetect import labels
from dfdetect.metrics import calibration
from dfdetect.reports.page import formatting, marks
from dfdetect.reports.page.thumbnails import HeadImages


def render_list(
    result: Mapping[str, Any],
    images: Mapping[int, HeadImages],
    thresholds: calibration.Thresholds,
) -> markupsafe.Markup:
    """Renders the heads of an image, or the most suspicious one of each track.

    Args:
        result: See `page.ReportPage.add`; at least one head.
        images: Images of heads, by their places in the result.
        thresholds: See `calibration.decide_verdict`.
    """
    reasons = {x["track"]: x.get("set_aside") for x in result.get("tracks", ())}
    heads = list(enumerate(result["heads"]))
    judged = [(i, head) for i, head in heads if head["fake_probability"] is not None]
    return formatting.TEMPLATES.render(
        "heads.html",
        heads=[
            {
                **_describe(i, head, result),
                **_describe_images(head, images.get(i, HeadImages())),
                "verdict": calibration.doubt_unfamiliar(
                    marks.judge(head["fake_probability"], thresholds),
                    bool(head.get("unfamiliar")),
                ),
                "set_aside": reasons.get(head.get("track")),
            }
            for i, head in judged
        ],
        num_without_image=sum(i not in images for i, _ in judged) if images else 0,
        noun="track" if result["kind"] == "video" else "head",
        too_small=[
            f"{head.get('track', i + 1):d} ({_format_size(head, result)})"
            for i, head in heads
            if head["fake_probability"] is None
        ],
    )


def _describe(
    i: int, head: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any]:
    name = f"Head {i + 1}"
    if "track" in head:
        time = formatting.format_clock(head["time"])
        name = f"Track {head['track']:d} at {time}"
    # No detector looked at a given crop.
    is_given = head["score"] is None
    return {
        "name": name,
        "fake_probability": head["fake_probability"],
        "detector": "given crop" if is_given else f"detector {head['score']:.2f}",
        "size": _format_size(head, result),
        "familiarity": head.get("familiarity"),
        "is_unfamiliar": head.get("unfamiliar"),
    }


def _describe_images(head: Mapping[str, Any], images: HeadImages) -> dict[str, Any]:
    shown = ((images.crop, "as judged"), (images.heat, "heat map"))
    return {
        "images": [(content, caption) for content, caption in shown if content],
        "nearest": [
            _describe_nearest(head[f"nearest_{label}"], label, images)
            for label in labels.NAMES
            if f"nearest_{label}" in head
        ],
    }


def _describe_nearest(
    nearest: Mapping[str, Any] | None, label: str, images: HeadImages
) -> dict[str, Any]:
    """Describes the known image of a label that is most like a head."""
    if not nearest:
        return {"label": label, "source": None, "content": b""}
    return {
        "label": label,
        "source": nearest.get("source") or nearest["id"],
        "similarity": f"{nearest['similarity']:.2f}",
        "content": images.nearest.get(label, b""),
    }


def _format_size(head: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Formats width and height in pixels of the original."""
    top, left, bottom, right = head["box"]
    width, height = result["width"] or 0, result["height"] or 0
    return f"{(right - left) * width:.0f} × {(bottom - top) * height:.0f} px"
