"""What stands before the files where they are many: numbers, a histogram and pages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import markupsafe

from dfdetect.reports import result_files
from dfdetect.reports.page import entries, formatting

_WIDTH, _HEIGHT = 800, 160
_GAP = 4  # Between bars.
_LEAST_HEIGHT = 2  # Of a part of a bar, so that a few among millions are seen.
_MOST_OPEN = 50  # Links to pages that are shown unasked.
# From the bottom of a bar up.
_STACK = ("real", "uncertain", "fake", "none")


def render(
    survey: result_files.Survey, pages: Sequence[str] = (), files_per_page: int = 0
) -> markupsafe.Markup:
    """Renders the overview.

    Args:
        survey: What the result lines hold.
        pages: Links to the pages of all files.
        files_per_page: Most files of each.
    """
    totals = [sum(column) for column in zip(*survey.bins.values(), strict=True)]
    highest = max(totals, default=0)
    return formatting.TEMPLATES.render(
        "overview.html",
        verdicts=survey.verdicts,
        statuses=survey.statuses,
        kinds=survey.kinds,
        num_files=survey.num_lines,
        bars=_build_bars(survey.bins, highest),
        width=_WIDTH,
        height=_HEIGHT,
        highest=highest,
        description=_describe(totals),
        pages=[
            (page, name_files(place, files_per_page, survey.num_lines))
            for place, page in enumerate(pages)
        ],
        most_open=_MOST_OPEN,
        files_per_page=files_per_page,
    )


def name_files(place: int, files_per_page: int, num_files: int) -> str:
    """Says which of all files the page at a place from 0 on lists, counted from 1."""
    first = place * files_per_page
    return f"Files {first + 1:,} to {min(first + files_per_page, num_files):,}"


def render_listing(
    lines: Iterable[Mapping[str, Any]],
    *,
    first: int,
    caption: str,
    title: str,
    start: str,
    before: str = "",
    after: str = "",
) -> str:
    """Renders a page of one row for each file, without images.

    Args:
        lines: Result lines.
        first: Number of the first file, from 1 on.
        caption: Caption of the table.
        title: Title of the page.
        start: Link to the overview.
        before: Link to the page before, or "".
        after: Link to the next page, or "".
    """
    return formatting.TEMPLATES.render(
        "listing.html",
        title=title,
        style=formatting.load_asset("style.css"),
        columns=entries.COLUMNS,
        caption=caption,
        rows=[
            entries.render_row(number, line, False, is_linked=False)
            for number, line in enumerate(lines, first)
        ],
        start=start,
        before=before,
        after=after,
    )


def _build_bars(bins: Mapping[str, Sequence[int]], highest: int) -> list[dict]:
    bars = []
    width = _WIDTH / result_files.NUM_BINS
    tallest = _HEIGHT - len(_STACK) * _LEAST_HEIGHT
    for place in range(result_files.NUM_BINS):
        y = float(_HEIGHT)
        low, high = (100 * (place + i) / result_files.NUM_BINS for i in (0, 1))
        for verdict in _STACK:
            number = bins.get(verdict, [0] * result_files.NUM_BINS)[place]
            if not number:
                continue
            height = max(number / highest * tallest, _LEAST_HEIGHT)
            y -= height
            bars.append(
                {
                    "style": formatting.choose_style_class(verdict),
                    "x": round(place * width + _GAP / 2, 2),
                    "y": round(y, 2),
                    "width": round(width - _GAP, 2),
                    "height": round(height, 2),
                    "title": f"{low:.0f} to {high:.0f} %: {number:,} {verdict}",
                }
            )
    return bars


def _describe(totals: Sequence[int]) -> str:
    numbers = ", ".join(f"{number:,}" for number in totals)
    share = 100 // result_files.NUM_BINS
    return f"Histogram of fake probabilities, in steps of {share} %: {numbers}"
