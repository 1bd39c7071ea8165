"""The page of `dfdetect detect --report` in a real Chromium, from the file."""

import base64
import os
import pathlib
import re
import zlib

import pytest

import chromium_support
import report_page_support as support
import tiny_pipeline
from dfdetect.reports import page
from dfdetect.reports.page import about

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium_support.PATH is None, reason="no Chromium: apt-get install chromium"
    ),
]

SIZES = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
NAMES = ["z10.jpg", "z9.jpg", support.NASTY, "clips/a.mp4", "broken.jpg", "none.jpg"]
SHOWN = """[...document.querySelectorAll('#files tbody tr')]
    .filter(row => row.checkVisibility()).map(row => row.cells[1].textContent)"""
ENTRIES = """[...document.querySelectorAll('article')]
    .filter(entry => entry.checkVisibility()).map(entry => entry.id)"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Of a report on four images, a clip and a broken file, with everything."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    content = support.jpeg(support.drawn(480, 640))
    known = {"id": "k", "source": "known/" + support.NASTY, "similarity": 0.75}
    told = about.render(
        tiny_pipeline.build().manifest,
        support.THRESHOLDS,
        command=["detect", "x"],
        has_heat_maps=True,
        index_manifest={},
    )
    frames = [(0.5 + i, support.jpeg(support.drawn(360, 640, i))) for i in range(8)]
    with support.report(path, about=told, thumbnails={"k": content}) as report:
        for name, probabilities, verdict in (
            (NAMES[0], (0.91, 0.2), "fake"),
            (NAMES[1], (0.05,), "real"),
            (NAMES[2], (0.5, None), "uncertain"),
        ):
            result = support.image_result(name, probabilities, verdict)
            for head in result["heads"]:
                head |= {"nearest_real": known, "nearest_fake": None}
            report.add_image(support.drawn(480, 640), result)
        report.add(support.clip_result(NAMES[3]), page.Thumbnails(key_frames=frames))
        report.add(support.unreadable(NAMES[4]), problem="cannot be decoded")
        report.add_image(
            support.drawn(480, 640),
            support.image_result(NAMES[5], (), None, status="no_head"),
        )
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    started = chromium_support.Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def browser(chromium, url):
    """At the page, on a desk."""
    chromium.resize(*SIZES["desktop"])
    chromium.go(url)
    chromium.until("!document.querySelector('#controls').hidden")
    return chromium


def press_tabs(browser, wanted, most=40):
    """Goes on with the keyboard until an element has the focus."""
    for _ in range(most):
        browser.press("Tab")
        if browser.evaluate(f"document.activeElement.matches({wanted!r})"):
            return
    raise AssertionError(f"the keyboard does not come to {wanted}")


def choose(browser, selector, value):
    browser.evaluate(
        f"(x => {{ x.value = {value!r}; "
        "x.dispatchEvent(new Event('input', {bubbles: true})); })"
        f"(document.querySelector({selector!r}))"
    )


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_asks_for_nothing(browser, url, size, tmp_path):
    browser.resize(*SIZES[size])
    browser.go(url)
    browser.pump(0.3)
    asked = {x["request"]["url"] for x in browser.told("Network.requestWillBeSent")}
    assert {x for x in asked if not x.startswith("data:image/jpeg;base64,")} == {url}
    assert not browser.told("Runtime.exceptionThrown")
    assert not browser.told("Runtime.consoleAPICalled")
    # No name ran, and the policy had nothing to stop.
    assert not browser.told("Log.entryAdded")
    assert browser.evaluate("document.title") == "Deepfake report: 6 files"
    # It fits, sideways.
    assert browser.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert browser.evaluate(SHOWN) == NAMES
    assert browser.evaluate("""[...document.images].every(x => x.naturalWidth > 0)""")
    folder = pathlib.Path(os.environ.get("DFDETECT_SCREENSHOTS") or tmp_path)
    browser.screenshot(folder / f"report-{size}.png")


def test_boxes_lie_where_the_heads_are(browser):
    found = browser.evaluate("""[...document.querySelectorAll('#f1 .line')].map(x => {
        const a = x.getBoundingClientRect();
        const b = document.querySelector('#f1 .shot img').getBoundingClientRect();
        return [(a.top - b.top) / b.height, (a.left - b.left) / b.width,
                (a.bottom - b.top) / b.height, (a.right - b.left) / b.width];
    })""")
    wanted = [head["box"] for head in support.image_result("", (0.2, 0.9))["heads"]]
    # The most suspicious, here the first, is drawn last.
    for box, place in zip(wanted[::-1], found, strict=True):
        assert place == pytest.approx(box, abs=0.01)
    browser.evaluate("document.querySelector('#marked').click()")
    assert not browser.evaluate("document.querySelector('.marks').checkVisibility()")


def test_columns_sort_by_number_name_and_verdict(browser):
    def click(column):
        browser.evaluate(
            f"document.querySelectorAll('#files th button')[{column}].click()"
        )
        return browser.evaluate(SHOWN)

    # Probabilities fall; what has none stands last, whichever way.
    assert click(3)[:4] == [NAMES[0], NAMES[3], NAMES[2], NAMES[1]]
    assert click(3) == [NAMES[i] for i in (1, 2, 3, 0, 4, 5)]
    # The entries follow.
    assert browser.evaluate(ENTRIES) == ["f2", "f3", "f4", "f1", "f5", "f6"]
    # 9 before 10.
    assert click(1)[-2:] == ["z9.jpg", "z10.jpg"]
    assert click(2)[2:4] == [NAMES[2], NAMES[1]]
    state = "[...document.querySelectorAll('#files th')].map(x => x.ariaSort)"
    assert browser.evaluate(state)[:4] == [None, None, "descending", None]
    assert click(0) == NAMES


def test_files_are_filtered_by_name_verdict_and_status(browser):
    assert browser.text("#shown") == "6 of 6 shown"
    choose(browser, "#words", "<SCRIPT>")
    assert browser.evaluate(SHOWN) == [NAMES[2]]
    assert browser.evaluate(ENTRIES) == ["f3"]
    assert browser.text("#shown") == "1 of 6 shown"
    choose(browser, "#words", "")
    choose(browser, "#verdict", "fake")
    assert browser.evaluate(SHOWN) == [NAMES[0], NAMES[3]]
    choose(browser, "#verdict", "none")
    choose(browser, "#status", "unreadable")
    assert browser.evaluate(SHOWN) == [NAMES[4]]
    choose(browser, "#words", "nothing")
    assert browser.evaluate(SHOWN) == [] and browser.text("#shown") == "0 of 6 shown"


def test_the_keyboard_alone_is_enough(browser):
    press_tabs(browser, "#words")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.evaluate(outline) == "solid"
    browser.write("z")
    assert browser.evaluate(SHOWN) == NAMES[:2]
    press_tabs(browser, "#verdict")
    browser.press("ArrowDown")
    assert browser.evaluate(SHOWN) == NAMES[:1]
    press_tabs(browser, "th:nth-child(4) button")
    browser.press("Enter")
    sort = "document.querySelector('th:nth-child(4)').ariaSort"
    assert browser.evaluate(sort) == "descending"
    # The focus stays, so that pressing again turns the order.
    browser.press(" ")
    assert browser.evaluate(sort) == "ascending"
    press_tabs(browser, "a[href='#f1']")
    browser.press("Enter")
    assert browser.evaluate("document.querySelector('article:target').id") == "f1"
    place = "document.querySelector('#f1').getBoundingClientRect().top"
    assert -1 <= browser.evaluate(place) < SIZES["desktop"][1]


def test_paper_has_all_rows_and_no_controls(browser):
    choose(browser, "#words", "z9")
    browser.evaluate("document.querySelector('#marked').click()")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(SHOWN) == NAMES
    assert len(browser.evaluate(ENTRIES)) == 6
    assert not browser.evaluate("document.querySelector('#controls').checkVisibility()")
    assert browser.evaluate("document.querySelector('.marks').checkVisibility()")
    printed = browser.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
    browser.call("Emulation.setEmulatedMedia", media="")
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    # Three whole images, four crops, four known ones and eight frames; the same
    # image may be kept once.
    assert len(re.findall(rb"/Subtype ?/Image", pdf)) >= 9
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    assert any(b" Tj" in inflated(x) or b" TJ" in inflated(x) for x in streams)


def inflated(data):
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""


def test_without_scripts_it_is_a_plain_table(chromium, url):
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    chromium.call("Page.navigate", url=url)
    chromium.pump(2)
    chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    # Asked from outside; nothing of the page ran.
    assert chromium.evaluate("document.querySelectorAll('#files tbody tr').length") == 6
    assert chromium.evaluate("document.querySelectorAll('th button').length") == 0
    assert not chromium.evaluate(
        "document.querySelector('#controls').checkVisibility()"
    )


def test_it_is_dark_where_a_person_wants_it(browser):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = browser.evaluate(ground)
    wanted = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", features=wanted)
    dark = browser.evaluate(ground)
    browser.call("Emulation.setEmulatedMedia", features=wanted, media="print")
    printed = browser.evaluate(ground)
    browser.call("Emulation.setEmulatedMedia", features=[], media="")
    assert dark != light and printed == "rgb(255, 255, 255)"
