import html.parser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfdetect.reports import document, markdown_html


class _Cells(html.parser.HTMLParser):
    """The texts of cells, paragraphs and captions, and the names of all tags."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags = [], set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("td", "th", "p", "caption"):
            self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data


# What means something to Markdown or HTML, and words between.
_PIECES = st.sampled_from(
    [*"\\`*_{}[]()<>#+-.!|&;:~\"'=/", "a", "b ", "1", "é", "amp;", "&lt;", "http://"]
)


@settings(deadline=None, derandomize=True)
@given(st.lists(_PIECES, min_size=1, max_size=30).map("".join))
def test_any_text_is_shown_as_it_is(text):
    shown = " ".join(text.split())
    section = document.Section(
        "Title",
        [document.Text(text), document.Table(["a", "b"], [["x", text]], text)],
    )
    page = _Cells(str(document.render_sections([section])))
    texts = [" ".join(x.split()) for x in page.texts]
    if shown:
        assert texts == [shown, shown, "a", "b", "x", shown]
    known = "section h2 p div table caption strong thead tbody tr th td"
    assert page.tags <= set(known.split())


def test_tables_say_what_their_heads_head():
    found = markdown_html.convert("**C**\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    for part in (
        '<div class="wide" tabindex="0">',
        "<caption><strong>C</strong></caption>",
        '<th scope="col">a</th>',
        '<th scope="row">1</th>',
        "<td>2</td>",
    ):
        assert part in found
    assert "<p>" not in found


def test_a_table_without_rows_has_none():
    found = markdown_html.convert("| a | b |\n|---|---|")
    assert '<th scope="col">b</th>' in found and "<td" not in found


def test_html_within_markdown_is_text():
    found = markdown_html.convert("<b>x</b>\n\n<script>alert(1)</script>")
    assert "&lt;b&gt;" in found and "<script" not in found


def test_an_image_that_is_not_given_is_an_error():
    with pytest.raises(KeyError, match=r"1\.png"):
        markdown_html.convert("![A plot](1.png)")
