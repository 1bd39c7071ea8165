"""The list of a file's heads in a report: crop, heat map, and what is like it."""

from collections.abc import Mapping, Sequence
from typing import Any

from dfdetect import labels
from dfdetect.metrics import calibration
from dfdetect.reports.page import formatting, marks
from dfdetect.reports.page.thumbnails import Head


def listed(
    result: Mapping[str, Any],
    images: Mapping[int, Head],
    thresholds: calibration.Thresholds,
) -> str:
    """The heads of an image, or those that stand for the tracks of a clip, in order.

    Args:
        result: See `page.Report.add`; at least one head.
        images: Of heads, by their place in the result.
        thresholds: See `calibration.decide_verdict`.
    """
    reasons = {x["track"]: x.get("set_aside") for x in result.get("tracks", ())}
    found = list(enumerate(result["heads"]))
    judged = [(i, head) for i, head in found if head["fake_probability"] is not None]
    parts = []
    if judged:
        parts.append('<ol class="heads">')
        parts += [
            _item(
                *(i, head, result, images.get(i, Head()), thresholds),
                reasons.get(head.get("track")) or (),
            )
            for i, head in judged
        ]
        parts.append("</ol>")
    left = sum(i not in images for i, _ in judged)
    if images and left:
        parts.append(
            f'<p class="note">{formatting.count(left, "less suspicious head")} '
            "without an image, to keep this page small.</p>"
        )
    small = ", ".join(
        f"{head.get('track', i + 1):d} ({_size(head, result)})"
        for i, head in found
        if head["fake_probability"] is None
    )
    noun = "track" if result["kind"] == "video" else "head"
    if small:
        parts.append(f'<p class="note">Too small to be judged: {noun} {small}</p>')
    return "\n".join(parts)


def _item(
    i: int,
    head: Mapping[str, Any],
    result: Mapping[str, Any],
    shown: Head,
    thresholds: calibration.Thresholds,
    set_aside: Sequence[str],
) -> str:
    name = f"Head {i + 1}"
    if "track" in head:
        name = f"Track {head['track']:d} at {formatting.clock(head['time'])}"
    probability = head["fake_probability"]
    verdict = marks.verdict(probability, thresholds)
    tag = formatting.tag(
        calibration.doubt_unfamiliar(verdict, bool(head.get("unfamiliar")))
    )
    aside = f" · set aside: {formatting.set_aside(set_aside)}" if set_aside else ""
    images = "".join(
        f"<figure>{formatting.image(content, f'{name}, {about}')}"
        f"<figcaption>{about}</figcaption></figure>"
        for content, about in ((shown.crop, "as judged"), (shown.heat, "heat map"))
        if content
    )
    images += "".join(
        _nearest(head, name, shown)
        for name in labels.NAMES
        if f"nearest_{name}" in head
    )
    return (
        f"<li><p><b>{name}</b> {tag}</p>"
        f'<p class="small">fake probability {formatting.percent(probability)} · '
        f"{_score(head)} · {_size(head, result)}{_familiar(head)}{aside}</p>"
        + (f'<div class="crops">{images}</div>' if images else "")
        + "</li>"
    )


def _score(head: Mapping[str, Any]) -> str:
    """How sure the detector is, or that it was not asked."""
    if head["score"] is None:
        return "given crop"
    return f"detector {head['score']:.2f}"


def _size(head: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Width and height in pixels of the original."""
    top, left, bottom, right = head["box"]
    width, height = result["width"] or 0, result["height"] or 0
    return f"{(right - left) * width:.0f} × {(bottom - top) * height:.0f} px"


def _nearest(head: Mapping[str, Any], name: str, shown: Head) -> str:
    """The known image of a label that is most like a head."""
    nearest = head[f"nearest_{name}"]
    if not nearest:
        return (
            f'<figure class="words"><figcaption>no {name} one in the index'
            "</figcaption></figure>"
        )
    content = shown.nearest.get(name, b"")
    source = formatting.name(nearest.get("source") or nearest["id"])
    image = formatting.image(content, f"Nearest known {name}") if content else ""
    return (
        f"<figure{'' if image else ' class=words'}>{image}<figcaption>"
        f"nearest {name}: {nearest['similarity']:.2f}<br>{source}"
        "</figcaption></figure>"
    )


def _familiar(head: Mapping[str, Any]) -> str:
    familiarity = head.get("familiarity")
    if familiarity is None:
        return ""
    words = f" · familiarity {formatting.percent(familiarity)}"
    return words + (" · <b>unfamiliar</b>" if head.get("unfamiliar") else "")
