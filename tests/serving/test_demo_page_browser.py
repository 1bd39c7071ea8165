"""The page of `dfdetect serve --demo` in a real Chromium, with the default weights."""

import json
import os
import pathlib

import cv2
import numpy as np
import PIL.Image
import pytest

import chromium_support
import serving_support
import tiny_pipeline
from dfdetect import boxes
from dfdetect.export import saved_pipeline
from dfdetect.media import samples, source_files
from dfdetect.metrics import calibration
from dfdetect.pipeline import deepfake_pipeline, embedding, findings
from dfdetect.retrieval import neighbours as neighbours_module
from dfdetect.retrieval.entries import Entry
from dfdetect.retrieval.index import Index
from dfdetect.serving import demo_page, options

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium_support.PATH is None, reason="no Chromium: apt-get install chromium"
    ),
]

TOKEN = "s3cret"
SIZES = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
MAPS = "document.querySelectorAll('#marks .map').length"


@pytest.fixture(scope="module")
def version(tmp_path_factory, run_script):
    """The folder of the exported default weights."""
    base = tmp_path_factory.mktemp("dfdetect")
    run_script("serve/export.py", f"--output={base}")
    return base / "1"


@pytest.fixture(scope="module")
def url(version):
    """Of the page of a server with a token, that takes files below 1.5 MB."""
    rest_port = serving_support.free_port()
    process = serving_support.start_process(
        *("--model_base_path", version.parent, "--model_name", "dfdetect", "--demo"),
        *("--port", "0", "--rest_api_port", rest_port),
        *("--max_request_bytes", 2_000_000),
        environment={options.TOKEN_VARIABLE: TOKEN},
    )
    yield f"http://127.0.0.1:{rest_port}{demo_page.PATH}"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


# What a person sees of them, whatever they look like.
IDS = ("NaN.jpg", "<b>bold</b>.png", f"{'long' * 60}.jpg", '"Infinity" \\ é.png', "e")


@pytest.fixture(scope="module")
def with_index():
    """A pipeline that finds three heads in everything, and knows five images."""
    plain = tiny_pipeline.build()
    margin = plain.manifest["classifier"]["crop_margin"]
    described = embedding.describe(plain.manifest, "content", margin)
    rows = np.random.default_rng(0).normal(size=(len(IDS), described["dimension"]))
    entries = [Entry(id, label=i % 3 - 1) for i, id in enumerate(IDS)]
    neighbours = neighbours_module.Neighbours(
        Index(rows, entries, embedding=described), top_k=len(IDS), exact=True
    )
    return deepfake_pipeline.DeepfakePipeline(
        *plain._models(), plain.manifest, neighbours
    )


@pytest.fixture(scope="module")
def known_url(with_index, tmp_path_factory):
    """Of the page of a server of a graph with an index; it wants no token."""
    base = tmp_path_factory.mktemp("known")
    saved_pipeline.save(with_index, str(base / "1"))
    with serving_support.in_process(
        model_base_path=str(base), model_name="known", demo=True
    ) as started:
        yield started.client.url + demo_page.PATH


@pytest.fixture(scope="module")
def expected(version):
    """The function `expected(path)`: the line of `dfdetect detect`."""
    graph = saved_pipeline.load(str(version))
    thresholds = graph.manifest["classifier"]["thresholds"]

    def line(path):
        source = source_files.Source(str(path), "")
        (found,) = findings.find_in_sources(graph.detect, [source], thresholds)
        return found.result | {"path": pathlib.Path(path).name}

    return line


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    started = chromium_support.Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def browser(chromium, url):
    """At the page, with the token given."""
    chromium.call("Fetch.disable")
    chromium.resize(*SIZES["desktop"])
    chromium.go(url)
    give_token(chromium)
    return chromium


def give_token(browser):
    browser.until("document.activeElement.id == 'token'")
    browser.write(TOKEN)
    browser.press("Enter")
    browser.until("document.querySelector('#model').textContent != ''")


def shows(browser, path):
    """The JSON that the page shows of an image, once all is there."""
    browser.choose("#file", path)
    browser.until("!document.querySelector('#result').hidden")
    # Those of which the detector is not sure have theirs once they are unfolded.
    browser.evaluate("document.querySelector('#weak').open = true")
    judged = "document.querySelectorAll('.scale').length"
    browser.until(f"{MAPS} == {judged}")
    return json.loads(browser.evaluate("document.querySelector('#json').textContent"))


def fails(browser, path):
    """What the page says when there is nothing to show."""
    browser.choose("#file", path)
    browser.until("document.querySelector('#problem').innerText.trim() != ''")
    assert browser.evaluate("document.querySelector('#result').hidden")
    return browser.text("#problem p")


def ranked(heads):
    """Heads of a line as the page shows them: most suspicious first."""
    return sorted(heads, key=lambda head: -(head["fake_probability"] or -1.0))


def check_same(found, wanted):
    np.testing.assert_allclose(
        [[*head["box"], head["score"]] for head in found["heads"]],
        [[*head["box"], head["score"]] for head in wanted["heads"]],
        atol=1e-5,
    )
    probabilities = [
        [head["fake_probability"] for head in line["heads"]] for line in (found, wanted)
    ]
    np.testing.assert_allclose(*np.array(probabilities, float), atol=1e-4)
    for key in ("path", "kind", "status", "width", "height", "verdict"):
        assert found[key] == wanted[key], key


def check_quiet(browser, url):
    """Nothing asked of others, and nothing to complain of."""
    origin = url.removesuffix(demo_page.PATH)
    asked = browser.told("Network.requestWillBeSent")
    assert asked
    assert all(sent["request"]["url"].startswith(f"{origin}/") for sent in asked)
    assert not browser.told("Runtime.exceptionThrown")
    assert not browser.told("Runtime.consoleAPICalled")
    told = [entry["entry"] for entry in browser.told("Log.entryAdded")]
    # That the token is wanted.
    assert all("401" in entry["text"] for entry in told), told


@pytest.mark.parametrize("size", SIZES)
def test_a_portrait_shows_boxes_probabilities_and_heat_maps(
    browser, url, expected, size, tmp_path
):
    browser.resize(*SIZES[size])
    found = shows(browser, source_files.find_sample())
    check_same(found, expected(source_files.find_sample()))
    heads = found["heads"]
    assert heads and heads[0]["fake_probability"] is not None
    # Over the image, each box has its place and its probability.
    places = browser.evaluate("""[...document.querySelectorAll('.box')].map(box => {
        const a = box.getBoundingClientRect();
        const b = document.querySelector('#image').getBoundingClientRect();
        return [box.innerText, (a.top - b.top) / b.height, (a.left - b.left) / b.width,
                (a.bottom - b.top) / b.height, (a.right - b.left) / b.width];
    })""")
    by_rank = ranked(heads)
    for text, *place in places:
        head = by_rank[int(text.split(":")[0]) - 1]
        assert text.split(": ")[1] == f"{100 * head['fake_probability']:.0f} %"
        np.testing.assert_allclose(place, head["box"], atol=0.01)
    assert len(places) == len(heads) == browser.evaluate(MAPS)
    # To be read once, and announced.
    assert browser.text("#verdict") == f"Verdict: {found['verdict']}"
    assert found["verdict"] in browser.text("[role=status]")
    status = "document.querySelector('[role=status]').getBoundingClientRect()"
    assert browser.evaluate(f"{status}.width") <= 1
    assert browser.text(".research") == "For research only"
    assert "No heat map" not in browser.text("#result")
    # It fits, and fingers meet what they aim at.
    assert browser.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    small = browser.evaluate("""[...document.querySelectorAll('.button, summary')]
        .filter(x => x.checkVisibility() && x.getBoundingClientRect().height < 44)
        .map(x => x.innerText)""")
    assert small == []
    assert ("Take an image" in browser.text("#drop")) == (size == "phone")
    check_quiet(browser, url)
    folder = pathlib.Path(os.environ.get("DFDETECT_SCREENSHOTS") or tmp_path)
    browser.screenshot(folder / f"{size}.png")


def at_known(chromium, known_url, size):
    chromium.call("Fetch.disable")
    chromium.resize(*SIZES[size])
    chromium.go(known_url)
    chromium.until("document.querySelector('#model').textContent != ''")


@pytest.mark.parametrize("size", SIZES)
def test_known_images_are_shown_for_each_head(
    chromium, known_url, with_index, size, tmp_path
):
    at_known(chromium, known_url, size)
    content = samples.draw_samples(2)[1]
    (tmp_path / "drawn.png").write_bytes(content)
    found = shows(chromium, tmp_path / "drawn.png")
    outputs = with_index.neighbours(np.array([content], object))
    names = {-1: None, 0: "real", 1: "fake"}
    words = []
    assert len(found["heads"]) == 3
    for head in ranked(found["heads"]):
        i = found["heads"].index(head)
        ids, values, labels = (
            outputs[f"neighbour_{name}"][0, i].numpy().tolist()
            for name in ("ids", "similarities", "labels")
        )
        known = head["neighbours"]
        assert [x["id"] for x in known] == [id.decode() for id in ids]
        assert [x["label"] for x in known] == [names[label] for label in labels]
        np.testing.assert_allclose([x["similarity"] for x in known], values, atol=1e-4)
        words.append(
            [
                f"{x['label'] or 'unknown'} {x['id']}, "
                f"similarity\u00a0{x['similarity']:.2f}".replace("-0.00", "0.00")
                for x in known
            ]
        )
    read = chromium.evaluate("""[...document.querySelectorAll('.cards > li')].map(
        head => [head.querySelector('h3').textContent,
            [...head.querySelectorAll('.known li')].map(x => x.textContent)])""")
    assert [text for _, text in sorted(read)] == words
    # The last two are folded away, and within reach of the keyboard.
    folded = "document.querySelector('.known details')"
    assert chromium.evaluate(f"{folded}.querySelector('li').checkVisibility()") is False
    chromium.evaluate(f"{folded}.querySelector('summary').focus()")
    chromium.press("Enter")
    assert chromium.evaluate(f"{folded}.querySelector('li').checkVisibility()")
    assert chromium.text(".known summary") == "2 more"
    assert chromium.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    small = chromium.evaluate("""[...document.querySelectorAll('summary')]
        .filter(x => x.checkVisibility() && x.getBoundingClientRect().height < 44)
        .map(x => x.innerText)""")
    assert small == []
    origin = known_url.removesuffix(demo_page.PATH)
    asked = chromium.told("Network.requestWillBeSent")
    assert all(sent["request"]["url"].startswith(f"{origin}/") for sent in asked)
    for name in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
        assert not chromium.told(name)
    assert not chromium.told("Log.entryAdded")
    folder = pathlib.Path(os.environ.get("DFDETECT_SCREENSHOTS") or tmp_path)
    chromium.screenshot(folder / f"known_{size}.png")


def test_small_heads_and_busy_servers_have_no_known_images(
    chromium, known_url, tmp_path
):
    at_known(chromium, known_url, "desktop")
    PIL.Image.new("RGB", (12, 12), (90, 120, 90)).save(tmp_path / "small.png")
    found = shows(chromium, tmp_path / "small.png")
    assert found["status"] == "head_too_small"
    assert chromium.evaluate("document.querySelector('.known')") is None
    # Of both requests, the second is for them.
    (tmp_path / "drawn.png").write_bytes(samples.draw_samples(2)[1])
    chromium.events.clear()
    chromium.call("Fetch.enable", patterns=[{"urlPattern": "*:predict"}])
    chromium.choose("#file", tmp_path / "drawn.png")
    for count in (1, 2):
        while len(paused := chromium.told("Fetch.requestPaused")) < count:
            chromium.pump()
        request = {"requestId": paused[-1]["requestId"]}
        if count == 1:
            chromium.call("Fetch.continueRequest", **request)
        else:
            chromium.call("Fetch.fulfillRequest", **request, responseCode=503)
    chromium.call("Fetch.disable")
    told = "No known images: The server is busy"
    chromium.until(f"document.querySelector('.known')?.innerText.startsWith('{told}')")
    # What else there is to see is there.
    chromium.evaluate("document.querySelector('#weak').open = true")
    chromium.until(f"{MAPS} == 3")
    assert "neighbours" not in chromium.text("#json")


def test_results_are_saved_and_copied(chromium, known_url, tmp_path):
    at_known(chromium, known_url, "desktop")
    chromium.evaluate("document.querySelector('#example').click()")
    chromium.until("!document.querySelector('#result').hidden")
    chromium.evaluate("document.querySelector('#weak').open = true")
    chromium.until(f"{MAPS} == 3")
    chromium.call(
        "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path)
    )

    def click(name, done):
        chromium.evaluate(f"document.querySelector('#{name}').click()")
        told = f"document.querySelector('#{name} ~ [role=status]').textContent"
        chromium.until(f"{told} != ''")
        assert chromium.evaluate(told) == done

    def saved(name):
        while not (tmp_path / name).is_file():
            chromium.pump()
        return tmp_path / name

    shown = json.loads(chromium.evaluate("document.querySelector('#json').textContent"))
    click("save-json", "Saved.")
    assert json.loads(saved("example.json").read_text()) == shown
    assert shown["path"] == "example.jpg" and len(shown["heads"]) == 3
    click("save-image", "Saved.")
    with PIL.Image.open(saved("example_marked.png")) as marked:
        assert marked.size == (shown["width"], shown["height"])
        pixels = np.asarray(marked.convert("RGB")).astype(int)
    plain = cv2.imdecode(np.frombuffer(samples.draw_samples(3)[2], np.uint8), 1)
    changed = np.abs(pixels - plain[..., ::-1]).max(-1) > 60
    for top, left, bottom, right in (head["box"] for head in shown["heads"]):
        row = round((top + bottom) / 2 * shown["height"])
        for edge in (left, right):
            column = round(edge * shown["width"])
            assert changed[row, max(column - 3, 0) : column + 4].any()

    chromium.call("Emulation.setFocusEmulationEnabled", enabled=True)
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    chromium.call("Browser.grantPermissions", permissions=permissions)
    click("copy-json", "Copied.")
    assert json.loads(chromium.evaluate("navigator.clipboard.readText()")) == shown
    click("copy-image", "Copied.")
    kinds = "navigator.clipboard.read().then(x => x[0].types)"
    assert chromium.evaluate(kinds) == ["image/png"]


def test_heads_come_by_suspicion_and_weak_ones_are_folded(chromium, known_url):
    at_known(chromium, known_url, "desktop")
    thresholds = {"real_below": 0.3, "fake_from": 0.7}

    def shown(*heads):
        """Titles of cards, shown and folded, by scores and probabilities."""
        outputs = {
            "status": 0,
            "num_heads": len(heads),
            "boxes": [[0.1, 0.1, 0.5, 0.5]] * len(heads),
            "head_scores": [score for score, _ in heads],
            "fake_probabilities": [probability for _, probability in heads],
            "fake_probability": max((p or 0.0 for _, p in heads), default=None),
        }
        chromium.evaluate(f"""Promise.all([import('./heads.js'), import('./result.js'),
            fetch('info.json').then(x => x.json())]).then(([h, r, information]) => {{
            information = {{...information, thresholds: {json.dumps(thresholds)}}};
            const outputs = {json.dumps(outputs)};
            const line = h.resultLine('a', outputs, null, information);
            r.show(line, outputs, null, information);
        }})""")
        titles = """[...document.querySelectorAll('#%s > li')].map(
            x => x.querySelector('h3').textContent + ':' + (x.querySelector(
            '.scale + p')?.textContent ?? ''))"""
        assert chromium.evaluate("document.querySelector('#weak').open") is False
        return [chromium.evaluate(titles % name) for name in ("heads", "weak-heads")]

    one = "Head 1 decides the verdict:80.0 % fake"
    assert shown((0.9, 0.2), (0.4, 0.5), (0.6, 0.8), (0.3, None)) == [
        [one, "Head 3 :20.0 % fake"],
        ["Head 2 :50.0 % fake", "Head 4 not judged:"],
    ]
    assert chromium.text("#weak-count").startswith("2 heads more")
    # The one that decides is never folded, and neither are all.
    assert shown((0.9, 0.2), (0.4, 0.8)) == [[one, "Head 2 :20.0 % fake"], []]
    assert chromium.evaluate("document.querySelector('#weak').hidden")
    assert shown((0.4, None)) == [["Head 1 not judged:"], []]
    assert shown((0.4, 0.8)) == [["Head 1 :80.0 % fake"], []]


def test_the_keyboard_alone_is_enough(browser):
    browser.call("Page.setInterceptFileChooserDialog", enabled=True)
    browser.until("document.activeElement.id == 'file'")
    assert (
        browser.evaluate("""getComputedStyle(
        document.querySelector('#file + label')).outlineStyle""")
        == "solid"
    )
    browser.press(" ")
    while not browser.told("Page.fileChooserOpened"):
        browser.pump()
    node = browser.told("Page.fileChooserOpened")[0]["backendNodeId"]
    browser.call(
        "DOM.setFileInputFiles", backendNodeId=node, files=[source_files.find_sample()]
    )
    browser.call("Page.setInterceptFileChooserDialog", enabled=False)
    browser.until("!document.querySelector('#result').hidden")
    reached = []
    focused = "document.activeElement.id || document.activeElement.tagName"
    while reached[-1:] != ["json"] and len(reached) < 20:
        browser.press("Tab")
        reached.append(browser.evaluate(focused))
        if reached[-1] == "heat-shown":
            shown = "getComputedStyle(document.querySelector('.map')).display"
            browser.until(f"{MAPS} > 0")
            assert browser.evaluate(shown) != "none"
            browser.press(" ")
            assert browser.evaluate(shown) == "none"
        if reached[-1] == "SUMMARY":
            browser.press("Enter")
    assert [name for name in reached if name != "weak-count"] == [
        *("example", "save-image", "copy-image", "heat-shown"),
        *("SUMMARY", "save-json", "copy-json", "json"),
    ]
    assert '"fake_probability"' in browser.text("#json")


def test_problems_are_told_in_words(browser, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8" * 800_000)
    PIL.Image.new("L", (9000, 8000)).save(tmp_path / "many.png")
    assert fails(browser, tmp_path / "empty.jpg") == "The file is empty."
    assert "text.jpg is not an image" in fails(browser, tmp_path / "text.jpg")
    assert "has 1.6 MB; this server takes 1.5 MB" in fails(
        browser, tmp_path / "large.jpg"
    )
    assert "more than 64 megapixels" in fails(browser, tmp_path / "many.png")
    assert browser.evaluate("document.querySelector('#again').hidden")
    browser.evaluate(
        "document.dispatchEvent(new DragEvent('drop', "
        "{dataTransfer: new DataTransfer()}))"
    )
    assert browser.text("#problem p") == "That is not a file."
    PIL.Image.new("RGB", (80, 60), (90, 120, 90)).save(tmp_path / "green.png")
    assert shows(browser, tmp_path / "green.png")["status"] == "no_head"
    assert "No head was found" in browser.text("#reason")


def test_a_busy_server_is_asked_again(browser, tmp_path):
    PIL.Image.new("RGB", (80, 60), (90, 120, 90)).save(tmp_path / "green.png")
    answers = {503: "The server is busy", 504: "took too long", 500: "answered 500: no"}
    for status, words in answers.items():
        browser.call("Fetch.enable", patterns=[{"urlPattern": "*:predict"}])
        browser.events.clear()
        browser.choose("#file", tmp_path / "green.png")
        while not browser.told("Fetch.requestPaused"):
            browser.pump()
        browser.call(
            "Fetch.fulfillRequest",
            requestId=browser.told("Fetch.requestPaused")[0]["requestId"],
            responseCode=status,
            body="eyJlcnJvciI6ICJubyJ9",  # {"error": "no"}
        )
        browser.until("document.querySelector('#problem').innerText.trim() != ''")
        assert words in browser.text("#problem")
        browser.call("Fetch.disable")
        browser.evaluate("document.querySelector('#again').focus()")
        browser.press("Enter")
        browser.until("!document.querySelector('#result').hidden")
        assert browser.text("#problem").strip() == ""
        # The button has gone, and the focus with it to what there is to read.
        assert browser.evaluate("document.activeElement.id") == "verdict"


def test_a_wrong_token_is_told_and_none_is_kept(chromium, url):
    chromium.call("Fetch.disable")
    chromium.go(url)
    chromium.until("document.activeElement.id == 'token'")
    assert chromium.text("#problem p") == "This server asks for a token."
    chromium.write("wrong")
    chromium.press("Enter")
    chromium.until(
        "document.querySelector('#problem p').innerText.startsWith('That is not')"
    )
    give_token(chromium)
    kept = "localStorage.length + sessionStorage.length + document.cookie.length"
    assert chromium.evaluate(kept) == 0
    assert chromium.evaluate("document.querySelector('#token').value") == ""
    chromium.go(url)
    chromium.until("document.activeElement.id == 'token'")


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp"])
def test_images_are_turned_as_the_graph_turns_them(browser, expected, tmp_path, name):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    with PIL.Image.open(source_files.find_sample()) as portrait:
        portrait.save(tmp_path / name, exif=exif)
    check_same(shows(browser, tmp_path / name), expected(tmp_path / name))


def test_squares_and_verdicts_are_those_of_the_package(browser):
    random = np.random.default_rng(0)
    height, width, margin = 481, 640, 1.3
    corners = random.random((300, 2, 2), np.float32) * np.float32(1.1)
    # Halves of pixels, where rounding shows.
    corners[:100] = np.round(corners[:100] * 2 * 640) / (2 * 640)
    corners = np.sort(np.clip(corners, 0, 1), axis=1).reshape(-1, 4)
    ratio = boxes.margin_ratio(margin).as_integer_ratio()
    found = browser.evaluate(
        "import('./heads.js').then(m => m.squareCrops("
        f"{json.dumps(corners.tolist())}, {height}, {width}, {list(ratio)})"
        ".map(s => [s.y, s.x, s.side]))"
    )
    wanted = boxes.square_crops(corners, height, width, margin)
    np.testing.assert_array_equal(found, np.asarray(wanted))

    thresholds = {"real_below": 0.3, "fake_from": float(np.float32(0.7))}
    values = [0.0, 0.3, 0.7, 0.2999, 0.5, 1.0, *np.float32([0.3, 0.7]).tolist()]
    found = browser.evaluate(
        f"import('./heads.js').then(m => {values}.map(p => m.verdict(p, "
        f"{json.dumps(thresholds)})))"
    )
    assert found == [
        calibration.decide_verdict(float(np.float32(value)), thresholds)
        for value in values
    ]


def test_a_person_may_want_no_motion_and_a_dark_page(browser):
    def style(selector, name, pseudo=""):
        return browser.evaluate(
            f"getComputedStyle(document.querySelector({selector!r}), {pseudo!r}).{name}"
        )

    light = style("body", "backgroundColor")
    browser.evaluate("document.querySelector('#status').classList.add('busy')")
    assert style("#status", "animationName", "::before") == "turn"
    wishes = {"prefers-color-scheme": "dark", "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.call("Emulation.setEmulatedMedia", features=features)
    assert style("#status", "animationName", "::before") == "none"
    assert style("body", "backgroundColor") != light
    browser.call("Emulation.setEmulatedMedia", features=[])
