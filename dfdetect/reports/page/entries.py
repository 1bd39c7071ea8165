"""What a report says of one file: its row in the table, and its part of the page."""

from collections.abc import Mapping
from typing import Any

import markupsafe

from dfdetect.metrics import calibration
from dfdetect.reports.page import clip_entry, formatting, marks
from dfdetect.reports.page import heads as heads_module
from dfdetect.reports.page.thumbnails import Thumbnails

# The first ones fit on a phone.
COLUMNS = ("#", "File", "Verdict", "Fake probability", "Heads", "Status", "Kind")
# With an index: the least of the heads of an image.
FAMILIARITY = "Familiarity"

# In the order in which they are sorted.
_RANKS = (None, "real", "uncertain", "fake")


def render_row(
    number: int,
    result: Mapping[str, Any],
    with_familiarity: bool,
    is_linked: bool = True,
) -> markupsafe.Markup:
    """Renders a row of the summary.

    Args:
        number: Number of the file, from 1.
        result: See `page.ReportPage.add`.
        with_familiarity: Whether there is a column for the familiarity.
        is_linked: Whether the name links to the file's part of the page.
    """
    known = [head.get("familiarity") for head in result["heads"]]
    return formatting.TEMPLATES.render(
        "row.html",
        number=number,
        result=result,
        rank=_RANKS.index(result["verdict"]),
        num_heads=count_heads(result),
        with_familiarity=with_familiarity,
        is_linked=is_linked,
        familiarity=min((value for value in known if value is not None), default=None),
    )


def render_article(
    number: int,
    result: Mapping[str, Any],
    *,
    thumbnails: Thumbnails,
    problem: str,
    thresholds: calibration.Thresholds,
) -> markupsafe.Markup:
    """Renders the part of the page about one file.

    Args:
        number: Number of the file, from 1.
        result: See `page.ReportPage.add`.
        thumbnails: Images of the file.
        problem: Why there is no answer, or "".
        thresholds: See `calibration.decide_verdict`.
    """
    render = clip_entry.render if result["kind"] == "video" else _render_image
    return formatting.TEMPLATES.render(
        "article.html",
        number=number,
        result=result,
        facts=_list_facts(result),
        problems=list(dict.fromkeys(filter(None, (problem, result.get("warning"))))),
        content=render(result, thumbnails, thresholds),
    )


def count_heads(result: Mapping[str, Any]) -> int | None:
    """Counts heads of an image, or tracks of a clip; None where none was sought."""
    if result["status"] in ("unreadable", "too_large"):
        return None
    return len(result["tracks"] if result["kind"] == "video" else result["heads"])


def _list_facts(result: Mapping[str, Any]) -> list[str]:
    """Lists the parts of the line below a file's name."""
    is_clip = result["kind"] == "video"
    facts = [result["kind"]]
    if result["width"] and result["height"]:
        facts.append(f"{result['width']:d} × {result['height']:d} px")
    if result.get("duration"):
        facts.append(formatting.format_clock(result["duration"]))
    if is_clip and result["frames"]:
        facts.append(formatting.format_count(len(result["frames"]), "frame"))
    heads = count_heads(result)
    if heads is not None:
        facts.append(formatting.format_count(heads, "track" if is_clip else "head"))
    facts.append(f"status {result['status']}")
    probability = result["fake_probability"]
    if probability is not None:
        shown = formatting.format_percent(probability)
        facts.insert(0, f"fake probability {shown}")
    return facts


def _render_image(
    result: Mapping[str, Any],
    thumbnails: Thumbnails,
    thresholds: calibration.Thresholds,
) -> markupsafe.Markup:
    found = result["heads"]
    shot = None
    if thumbnails.image:
        number = formatting.format_count(len(found), "head")
        shot = marks.render_shot(
            thumbnails.image,
            f"{formatting.escape_unprintable(result['path'])}: {number}",
            heads=found,
            names=[str(i + 1) for i in range(len(found))],
            thresholds=thresholds,
        )
    heads = None
    if found:
        heads = heads_module.render_list(result, thumbnails.heads, thresholds)
    return formatting.TEMPLATES.render("image.html", shot=shot, heads=heads)
