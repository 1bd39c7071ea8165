"""The list of an image's heads in a report: crop, heat map, and what is like it."""

from collections.abc import Mapping
from typing import Any

from dfdetect import calibration, labels
from dfdetect.report_page import marks, wording
from dfdetect.report_page.pictures import Head


def listed(
    result: Mapping[str, Any],
    pictures: Mapping[int, Head],
    thresholds: calibration.Thresholds,
) -> str:
    """The heads of an image in their order, each with what is shown of it.

    Args:
        result: See `page.Report.add`; at least one head.
        pictures: Of heads, by their place in the result.
        thresholds: See `calibration.verdict`.
    """
    items = "\n".join(
        _item(i, head, result, pictures.get(i, Head()), thresholds)
        for i, head in enumerate(result["heads"])
    )
    left = sum(
        head["fake_probability"] is not None and i not in pictures
        for i, head in enumerate(result["heads"])
    )
    note = ""
    if pictures and left:
        note = (
            f'<p class="note">{wording.count(left, "less suspicious head")} '
            "without a picture, to keep this page small.</p>"
        )
    return f'<ol class="heads">\n{items}\n</ol>{note}'


def _item(
    i: int,
    head: Mapping[str, Any],
    result: Mapping[str, Any],
    shown: Head,
    thresholds: calibration.Thresholds,
) -> str:
    probability = head["fake_probability"]
    tag = wording.tag(marks.verdict(probability, thresholds))
    top, left, bottom, right = head["box"]
    size = (
        f"{(right - left) * (result['width'] or 0):.0f} × "
        f"{(bottom - top) * (result['height'] or 0):.0f} px"
    )
    judged = (
        "too small to be judged"
        if probability is None
        else (f"fake probability {wording.percent(probability)}")
    )
    images = "".join(
        f"<figure>{wording.image(content, f'Head {i + 1}, {about}')}"
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
        f"<li><p><b>Head {i + 1}</b> {tag}</p>"
        f'<p class="small">{judged} · detector {head["score"]:.2f} · {size}'
        f"{_familiar(head)}</p>"
        + (f'<div class="crops">{images}</div>' if images else "")
        + "</li>"
    )


def _nearest(head: Mapping[str, Any], name: str, shown: Head) -> str:
    """The known picture of a label that is most like a head."""
    nearest = head[f"nearest_{name}"]
    if not nearest:
        return (
            f'<figure class="words"><figcaption>no {name} one in the index'
            "</figcaption></figure>"
        )
    content = shown.nearest.get(name, b"")
    source = wording.name(nearest.get("source") or nearest["id"])
    picture = wording.image(content, f"Nearest known {name}") if content else ""
    return (
        f"<figure{'' if picture else ' class=words'}>{picture}<figcaption>"
        f"nearest {name}: {nearest['similarity']:.2f}<br>{source}"
        "</figcaption></figure>"
    )


def _familiar(head: Mapping[str, Any]) -> str:
    familiarity = head.get("familiarity")
    if familiarity is None:
        return ""
    words = f" · familiarity {wording.percent(familiarity)}"
    return words + (" · <b>unfamiliar</b>" if head.get("unfamiliar") else "")
