"""What a report says of one file: its row in the table, and its part of the page."""

from collections.abc import Mapping
from typing import Any

from dfdetect.metrics import calibration
from dfdetect.reports.page import clip_entry, formatting, marks
from dfdetect.reports.page import heads as heads_module
from dfdetect.reports.page.thumbnails import Thumbnails

# The first ones are seen on a phone.
COLUMNS = ("#", "File", "Verdict", "Fake probability", "Heads", "Status", "Kind")
# With an index: the least of the heads of an image.
FAMILIARITY = "Familiarity"

# In this order they are sorted.
_RANKS = (None, "real", "uncertain", "fake")


def row(number: int, result: Mapping[str, Any], with_index: bool) -> str:
    """A row of the summary.

    Args:
        number: Of the file, from 1.
        result: See `page.Report.add`.
        with_index: Whether there is a column for the familiarity.
    """
    probability, verdict = result["fake_probability"], result["verdict"]
    heads = num_heads(result)
    cells = [
        f'<td data-value="{number}">{number}</td>',
        '<th scope="row"><a '
        f'href="#f{number}">{formatting.name(result["path"])}</a></th>',
        f'<td data-value="{_RANKS.index(verdict)}">{formatting.tag(verdict)}</td>',
        _number(probability, formatting.percent(probability)),
        _number(heads),
        f"<td>{formatting.text(result['status'])}</td>",
        f"<td>{formatting.text(result['kind'])}</td>",
    ]
    if with_index:
        known = [head.get("familiarity") for head in result["heads"]]
        least = min((value for value in known if value is not None), default=None)
        cells.append(_number(least, formatting.percent(least)))
    return (
        f'<tr data-file="f{number}" '
        f'data-verdict="{formatting.text(verdict or "none")}" '
        f'data-status="{formatting.text(result["status"])}">{"".join(cells)}</tr>\n'
    )


def article(
    number: int,
    result: Mapping[str, Any],
    thumbnails: Thumbnails,
    problem: str,
    thresholds: calibration.Thresholds,
) -> str:
    """The part of the page about one file.

    Args:
        number: Of the file, from 1.
        result: See `page.Report.add`.
        thumbnails: What is shown of it.
        problem: Why there is no answer, or "".
        thresholds: See `calibration.decide_verdict`.
    """
    parts = [
        f'<article id="f{number}" aria-labelledby="n{number}">',
        f'<h3 id="n{number}"><span class="number">{number}</span> '
        f"{formatting.name(result['path'])}</h3>",
        f"<p>{_facts(result)}</p>",
    ]
    for words in (problem, result.get("warning")):
        if words:
            parts.append(f'<p class="problem">{formatting.text(words)}</p>')
    if result["kind"] == "video":
        parts += clip_entry.parts(result, thumbnails, thresholds)
    else:
        parts += _image(result, thumbnails, thresholds)
    parts.append('<p class="up"><a href="#summary">To the table</a></p></article>\n')
    return "\n".join(parts)


def num_heads(result: Mapping[str, Any]) -> int | None:
    """Heads of an image, or tracks of a clip; None of what was not looked at."""
    if result["status"] in ("unreadable", "too_large"):
        return None
    return len(result["tracks"] if result["kind"] == "video" else result["heads"])


def _number(value: float | None, shown: str = "") -> str:
    if value is None:
        return f'<td class="number">{formatting.NOTHING}</td>'
    return f'<td class="number" data-value="{value}">{shown or value}</td>'


def _facts(result: Mapping[str, Any]) -> str:
    """The line below a file's name."""
    is_clip = result["kind"] == "video"
    facts = [formatting.text(result["kind"])]
    if result["width"] and result["height"]:
        facts.append(f"{result['width']:d} × {result['height']:d} px")
    if result.get("duration"):
        facts.append(formatting.clock(result["duration"]))
    if is_clip and result["frames"]:
        facts.append(formatting.count(len(result["frames"]), "frame"))
    heads = num_heads(result)
    if heads is not None:
        facts.append(formatting.count(heads, "track" if is_clip else "head"))
    facts.append(f"status {formatting.text(result['status'])}")
    probability = result["fake_probability"]
    if probability is not None:
        facts.insert(0, f"fake probability {formatting.percent(probability)}")
    return f"{formatting.tag(result['verdict'])} {' · '.join(facts)}"


def _image(
    result: Mapping[str, Any],
    thumbnails: Thumbnails,
    thresholds: calibration.Thresholds,
) -> list[str]:
    parts = []
    if thumbnails.image:
        names = [str(i + 1) for i in range(len(result["heads"]))]
        described = f"{formatting.visible(result['path'])}: " + formatting.count(
            len(names), "head"
        )
        parts.append(
            marks.shot(thumbnails.image, described, result["heads"], names, thresholds)
        )
    if result["heads"]:
        parts.append(heads_module.listed(result, thumbnails.heads, thresholds))
    return parts
