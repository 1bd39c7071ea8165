import base64
import html.parser
import re

import pytest

from dfdetect.reports import document

PNG = b"\x89PNG\r\n\x1a\n of a plot"
SECTIONS = [
    document.Section(
        "All & <everything>",
        [
            document.Text("Mind the 1 < 2 | gap", is_warning=True),
            document.Table(
                ["name", "AUC"],
                [["<script>alert(1)</script>", document.Link(".5 [.4, .6]", "2. b/c")]],
                "A caption",
            ),
        ],
    ),
    document.Section(
        "2. b/c",
        [
            document.Image("1.png", PNG, 'A "plot"'),
            document.Image("2.png", PNG, "Another"),
            document.Table([], [["a_b *c*", "x\ny"]]),
        ],
    ),
]


class _Reader(html.parser.HTMLParser):
    """Checks that tags close in order; keeps texts and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.attributes = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_html_is_one_whole_file():
    text = document.to_html("Figures of <x>", SECTIONS)
    page = _Reader(text)
    assert "Figures of <x>" in page.texts and "<script>alert(1)</script>" in page.texts
    assert "<script" not in text
    places = [v for _, name, v in page.attributes if name in ("src", "href", "action")]
    ids = {v for _, name, v in page.attributes if name == "id"}
    assert len(places) == 3
    for place in places:
        assert place.startswith("data:image/png;base64,") or place[1:] in ids
    assert not re.search(r"url\(|@import|https?:", text)
    assert base64.b64encode(PNG).decode() in text
    assert ("p", "class", "warning") in page.attributes


def test_markdown_escapes_and_links():
    text = document.to_markdown("Figures", SECTIONS)
    lines = text.splitlines()
    assert lines[0] == "# Figures"
    assert r"> **Warning:** Mind the 1 \< 2 \| gap" in lines
    assert r"| \<script\>alert(1)\</script\> | [.5 [.4, .6]](#2-b-c) |" in lines
    assert '<a id="2-b-c"></a>' in lines
    assert r"| a_b \*c\* | x y |" in lines
    assert '![A "plot"](1.png)' in lines
    assert document.collect_images(SECTIONS) == {"1.png": PNG, "2.png": PNG}


@pytest.mark.parametrize("write", [document.to_markdown, document.to_html])
def test_nothing_is_a_page(write):
    assert "Empty" in write("Empty", [])
