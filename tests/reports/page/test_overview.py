"""The overview of many files, and the rows of all."""

import re

import pytest

from dfdetect.reports import result_files
from dfdetect.reports.page import overview


def _survey(bins=None, **more):
    return result_files.Survey(bins=bins or {}, **more)


def _bar(place, number):
    return [number if i == place else 0 for i in range(result_files.NUM_BINS)]


def test_a_few_among_millions_have_a_bar_that_is_seen():
    found = _survey({"real": _bar(0, 9_000_000), "fake": _bar(19, 3)})
    bars = re.findall(
        r'<rect class="(\w+)" .* y="(.*?)" .* height="(.*?)">', overview.render(found)
    )
    assert [name for name, _, _ in bars] == ["real", "fake"]
    (real_top, real), (fake_top, fake) = ([float(x) for x in bar[1:]] for bar in bars)
    assert real > 70 * fake >= 140
    assert real_top + real == pytest.approx(fake_top + fake)  # They stand alike.


def test_parts_of_bars_stay_in_the_field():
    bins = {"real": _bar(9, 1_000_000)}
    bins |= {name: _bar(9, 1) for name in ("uncertain", "fake", "none")}
    tops = re.findall(r' y="(.*?)"', overview.render(_survey(bins)))
    assert len(tops) == 4 and min(map(float, tops)) >= 0


@pytest.mark.parametrize(("number", "is_open"), [(3, True), (1000, False)])
def test_many_links_are_folded(number, is_open):
    pages = [f"r-pages/{i}.html" for i in range(number)]
    found = _survey(num_lines=1000 * number - 600)
    text = overview.render(found, pages, 1000)
    assert text.count("<details open>") == is_open
    assert text.count("<details") == 1 and text.count("<a ") == number
    assert 'href="r-pages/1.html" title="Files 1,001 to 2,000">2</a>' in text
    last = f"Files {1000 * (number - 1) + 1:,} to {1000 * number - 600:,}"
    assert last in text


def test_a_row_says_why_a_file_is_unreadable():
    line = {
        "path": "a.jpg",
        "kind": "image",
        "status": "unreadable",
        "heads": [],
        "verdict": None,
        "fake_probability": None,
        "warning": "JPEG, <cut> short",
    }
    names = {"caption": "c", "title": "t", "start": "../r.html", "before": "1.html"}
    text = overview.render_listing([line], first=7, **names)
    assert "unreadable<br><small>JPEG, &lt;cut&gt; short</small>" in text
    # Above and below the rows.
    assert text.count('rel="prev">Previous</a>') == 2 and "Next" not in text
