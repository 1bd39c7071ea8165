import base64
import html
import json
import os
import re
import tracemalloc
import types

import cv2
import numpy as np
import pytest

import report_page_support as support
import tiny_pipeline
from dfdetect import console, manifest
from dfdetect.cli import main as cli
from dfdetect.export import saved_pipeline
from dfdetect.reports import page as report_page
from dfdetect.reports.page import about, formatting, marks, thumbnails, timeline
from dfdetect.retrieval import index as retrieval_index

BAND = support.THRESHOLDS


@pytest.fixture(scope="module")
def graph(saved_tiny):
    """The folder of an exported graph, and what it loads as."""
    return saved_tiny, saved_pipeline.load(saved_tiny)


@pytest.fixture
def loaded(graph, monkeypatch):
    """The folder of the graph, which the command finds loaded."""
    directory, model = graph
    loads = {directory: model}
    monkeypatch.setattr(saved_pipeline, "load", lambda path, say: loads[path])
    return directory


def written(path, *results, **more):
    with support.report(path, **more) as page:
        for result in results:
            page.add(result)
    return support.Page(path)


def data_of(attributes):
    start, data = attributes["src"].split(",", 1)
    assert start == "data:image/jpeg;base64"
    return base64.b64decode(data)


def test_each_file_has_a_row_and_an_entry(tmp_path):
    page = written(
        tmp_path / "r.html",
        support.image_result("a.jpg"),
        support.image_result("b.jpg", (0.1,), "real"),
        support.unreadable("c.jpg"),
        support.clip_result("d.mp4"),
    )
    rows = [row for row in page.all("tr") if "data-file" in row]
    assert [(x["data-file"], x["data-verdict"], x["data-status"]) for x in rows] == [
        ("f1", "fake", "ok"),
        ("f2", "real", "ok"),
        ("f3", "none", "unreadable"),
        ("f4", "fake", "ok"),
    ]
    links = [x["href"] for x in page.all("a") if x["href"].startswith("#f")]
    assert links == ["#f1", "#f2", "#f3", "#f4"]
    assert [x["id"] for x in page.all("article")] == ["f1", "f2", "f3", "f4"]
    assert "Deepfake report: 4 files fake 2 real 1 no verdict 1" in page.text
    # Without scripts there is nothing to press.
    assert not page.all("button")
    assert "hidden" in page.all("div", id="controls")[0]
    assert "Head 1 fake fake probability 90.0 % · detector 0.80 · 80 × 120 px" in (
        page.text
    )
    assert "Too small to be judged: head 2 (80 × 120 px)" in page.text


def test_an_empty_report_is_a_page(tmp_path):
    page = written(tmp_path / "r.html")
    assert "Deepfake report: 0 files" in page.text and not page.all("article")


@pytest.mark.parametrize(
    "name",
    [support.NASTY, "</title></script><svg onload=alert(1)>", '" onclick="alert(1)'],
)
def test_names_do_no_harm(tmp_path, name):
    known = {"id": name, "source": name, "similarity": 0.5}
    image = support.image_result(name, (0.5,), "uncertain")
    image["heads"][0] |= {"nearest_real": known, "nearest_fake": None}
    content = support.jpeg(support.drawn())
    with support.report(tmp_path / "r.html", thumbnails={name: content}) as report:
        report.add_image(support.drawn(), image)
        report.add(support.clip_result(name))
        report.add(support.unreadable(name), problem=name)
    page = support.Page(tmp_path / "r.html")
    # Names stand as they are, in the table, at the entry and where they are known.
    assert page.texts.count(name) == 8
    assert len(page.all("script")) == 1
    assert {x["src"].split(",")[0] for x in page.all("img")} == {
        "data:image/jpeg;base64"
    }
    assert not [a for _, x in page.tags for a in x if a.startswith("on")]


@pytest.mark.parametrize(
    "name, shown",
    [
        ("größe 人.jpg", "größe 人.jpg"),
        ("a\nb\t.jpg", "a\\nb\\t.jpg"),
        ("not\udcffutf8", "not\\udcffutf8"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("{{ title }} {% raw %}", "{{ title }} {% raw %}"),
    ],
)
def test_names_show_what_cannot_be_seen(tmp_path, name, shown):
    page = written(tmp_path / "r.html", support.unreadable(name))
    assert page.texts.count(shown) == 2


def test_nothing_is_fetched_and_nothing_else_may_run(tmp_path):
    described = tiny_pipeline.build().manifest
    told = about.render(
        described,
        BAND,
        command=["detect", "a.jpg"],
        has_heat_maps=True,
        index_manifest={},
    )
    page = written(tmp_path / "r.html", support.clip_result(), about=told)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "action", "poster", "srcset", "xlink:href"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, value)
    (style,) = re.findall("<style>(.*?)</style>", page.source, re.DOTALL)
    assert "url(" not in style and "@import" not in style
    assert "http" not in re.sub("http-equiv", "", page.source)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy["content"]


def test_a_page_is_replaced_by_a_whole_one_only(tmp_path):
    path = tmp_path / "new" / "r.html"
    written(path, support.unreadable("first.jpg"))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), support.report(path) as page:
        page.add(support.unreadable("second.jpg"))
        # What has come lies in files without a name.
        assert os.listdir(path.parent) == ["r.html"]
        raise KeyboardInterrupt
    assert path.read_bytes() == before and os.listdir(path.parent) == ["r.html"]
    written(path, support.unreadable("third.jpg"))
    assert b"third.jpg" in path.read_bytes() and os.listdir(path.parent) == ["r.html"]


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    shown = thumbnails.Thumbnails(support.jpeg(support.drawn(600, 800)))
    peaks = []
    for count in (20, 200):
        tracemalloc.start()
        with support.report(tmp_path / "r.html", num_files=1000) as page:
            for _ in range(count):
                page.add(support.image_result(), shown)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    size = (tmp_path / "r.html").stat().st_size
    assert size > 200 * len(shown.image)
    assert peaks[1] < 1.1 * peaks[0] and peaks[1] < size / 2


@pytest.mark.parametrize("num_files, most", [(1, 400_000), (1000, 68_000)])
def test_images_of_a_file_have_a_bound(num_files, most):
    assert thumbnails.compute_max_bytes(num_files) == most
    # Noise, of which no JPEG is small, with more heads than there is room for.
    image = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3)).astype(np.uint8)
    result = support.image_result(probabilities=np.linspace(0.1, 0.9, 40).tolist())
    for i, head in enumerate(result["heads"]):
        left, top = 0.1 * (i % 8), 0.15 * (i // 8)
        head["box"] = [top, left, top + 0.12, left + 0.09]

    def explainer(image, boxes):
        regions = [[0, 0, 200 + i, 200 + i] for i in range(len(boxes))]
        return np.int32(regions), np.full((len(boxes), 8, 8), 0.5, np.float32)

    found = thumbnails.make_thumbnails(
        image, result["heads"], margin=1.3, max_bytes=most, explainer=explainer
    )
    heads = found.heads.values()
    total = sum(len(head.crop) + len(head.heat) for head in heads)
    assert len(found.image) + total <= most
    assert 0 < len(found.heads) < 40
    # The most suspicious ones.
    assert set(found.heads) == set(range(40 - len(found.heads), 40))
    assert cv2.imdecode(np.frombuffer(found.image, np.uint8), 1).shape[1] <= 1024


def test_a_small_image_keeps_its_size():
    content = thumbnails.encode_jpeg(support.drawn(60, 80), 640, 10**6)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), 1).shape == (60, 80, 3)


def test_crops_are_what_the_classifier_saw():
    image = np.zeros((300, 400, 3), np.uint8)
    image[80:160, 60:140] = (250, 40, 40)
    head = {"box": [80 / 300, 60 / 400, 160 / 300, 140 / 400], "fake_probability": 0.5}
    found = thumbnails.make_thumbnails(image, [head], margin=1.0, max_bytes=10**5)
    crop = cv2.imdecode(np.frombuffer(found.heads[0].crop, np.uint8), 1)
    assert crop.shape == (80, 80, 3)
    np.testing.assert_allclose(crop[..., ::-1].mean((0, 1)), (250, 40, 40), atol=4)
    assert found.heads[0].heat == b""


def test_nearest_known_images_are_shown(tmp_path):
    result = support.image_result(probabilities=(0.5,))
    result["heads"][0] |= {
        "nearest_real": {"id": "r1", "source": "real/1.png", "similarity": 0.8312},
        "nearest_fake": None,
        "familiarity": 0.004,
        "unfamiliar": True,
    }
    known = support.jpeg(support.drawn(90, 90, seed=1))
    with support.report(tmp_path / "r.html", thumbnails={"r1": known}) as report:
        report.add_image(support.drawn(), result)
    page = support.Page(tmp_path / "r.html")
    (shown,) = page.all("img", alt="Nearest known real")
    assert data_of(shown) == known
    assert "nearest real: 0.83 real/1.png no fake one in the index" in page.text
    assert "familiarity 0.4 % · unfamiliar" in page.text
    assert "Familiarity" in page.texts and page.all("td", **{"data-value": "0.004"})


def test_the_report_of_a_run_takes_thumbnails_from_the_index(tmp_path):
    known = support.jpeg(support.drawn(96, 96, seed=2))
    entries = (retrieval_index.Entry("k1", thumbnail=known),)
    index = types.SimpleNamespace(snapshot=lambda: (None, entries))
    described = tiny_pipeline.build().manifest
    result = support.image_result(probabilities=(0.5,))
    nearest = {"id": "k1", "source": "k/1.png", "similarity": 0.5}
    result["heads"][0] |= {"nearest_real": None, "nearest_fake": nearest}
    path = tmp_path / "r.html"
    with report_page.open_page(
        str(path),
        described,
        BAND,
        command=["detect"],
        num_files=1,
        index_manifest={},
        index=index,
    ) as report:
        report.add_image(support.drawn(), result)
    page = support.Page(path)
    assert data_of(*page.all("img", alt="Nearest known fake")) == known
    assert "no real one in the index" in page.text and "unlike anything" in page.text


def test_a_clip_has_its_time_line_tracks_and_key_frames(tmp_path):
    result = support.clip_result()
    frames = [
        (0.5 + i, support.jpeg(support.drawn(720, 1280, seed=i)))
        for i in range(0, 8, 2)
    ]
    with support.report(tmp_path / "r.html") as report:
        report.add(result, report_page.Thumbnails(key_frames=[*frames, (9.0, b"no")]))
    page = support.Page(tmp_path / "r.html")
    assert page.all("svg", **{"aria-label": "Fake probability from 0 to 0:08.0 of "
                              "track 1 and 2"})  # fmt: skip
    assert "1 0:00.5 0:07.5 8 90.0 % fake –" in page.text
    # Of a line that does not say which track decided, nothing is said.
    assert "decides" not in page.text and not page.all("tr", **{"class": "aside"})
    assert "2 0:00.5 0:07.5 6 20.0 % real" in page.text
    shown = page.all("img")
    assert [x["alt"] for x in shown] == [
        f"Frame at 0:0{time}" for time in ("0.5", "2.5", "4.5", "6.5")
    ]
    assert {(x["width"], x["height"]) for x in shown} == {("320", "180")}
    # A box for each head of the frame of that time; at 4.5 s track 2 is away.
    assert len(page.all("rect", **{"class": "line"})) == 7
    assert "1: 84 %" in page.texts and "video · 640 × 360 px · 0:08.0" in page.text


def test_a_clip_shows_its_tracks_most_suspicious_heads(tmp_path):
    result = support.clip_result() | {"warning": "cut short <after> 8 s"}
    near = {"id": "k", "source": "k.png", "similarity": 0.5}
    result["heads"][1] |= {"nearest_real": near, "nearest_fake": None}
    assert thumbnails.choose_key_times(result) == [0.5 + i for i in range(8)]
    known = support.jpeg(support.drawn(96, 96, seed=2))
    frames = [(7.5, support.jpeg(support.drawn(360, 640)))]
    with support.report(tmp_path / "r.html", thumbnails={"k": known}) as report:
        report.add_clip(result, frames)
    page = support.Page(tmp_path / "r.html")
    assert "cut short <after> 8 s" in page.text
    assert "Track 1 at 0:07.5 fake fake probability 94.0 %" in page.text
    assert "Track 2 at 0:02.5 real fake probability 20.0 %" in page.text
    (crop,) = page.all("img", alt="Track 1 at 0:07.5, as judged")
    pixels = cv2.imdecode(np.frombuffer(data_of(crop), np.uint8), 1)
    # The box of 160 x 144 px, with its margin, made small.
    assert pixels.shape == (112, 112, 3)
    assert data_of(*page.all("img", alt="Nearest known real")) == known


def test_a_clip_tells_which_track_decides_and_which_are_set_aside(tmp_path):
    result = support.clip_result()
    first, second = result["tracks"]
    first |= {"matters": False, "set_aside": ["small", "doubtful"]}
    second |= {"matters": True, "set_aside": []}
    main = {"track": 2, "fake_probability": 0.2, "verdict": "real"}
    result |= {"deciding_track": 2, "main_person": main}
    content = support.jpeg(support.drawn(360, 640))
    frames = [(0.5 + i, content) for i in (2, 7)]
    with support.report(tmp_path / "r.html") as report:
        report.add_clip(result, frames)
    page = support.Page(tmp_path / "r.html")
    assert "Track 2 decides; 1 track set aside. The main person is the same." in (
        page.text
    )
    why = "set aside: small beside the main person, the detector doubts it"
    assert f"90.0 % fake {why}" in page.text
    assert "20.0 % real decides" in page.text
    assert "detector 0.90 · 160 × 144 px · set aside: small" in page.text
    assert len(page.all("tr", **{"class": "aside"})) == 1
    # Over each key frame the box of track 1 is faint.
    assert [x["class"] for x in page.all("g")] == [
        "fake aside",
        "real",
        "fake aside",
        "none",
    ]
    result["main_person"] = {"track": 1, "fake_probability": 0.9, "verdict": "fake"}
    page = written(tmp_path / "r.html", result)
    assert "The main person is track 1: 90.0 % fake" in page.text


def test_what_is_set_aside_is_shown_last():
    result = support.clip_result()
    result["frames"] = [{"time": 1.0 * i, "heads": []} for i in range(40)]
    result["heads"] = [
        {"time": 1.0 * i, "fake_probability": i / 40, "track": i} for i in range(40)
    ]
    # The two most suspicious.
    result["tracks"] = [{"track": i, "matters": i < 38} for i in range(40)]
    assert thumbnails.choose_key_times(result) == [1.0 * i for i in range(26, 38)]


def test_key_times_are_few_and_hold_the_most_suspicious():
    result = support.clip_result()
    result["frames"] = [{"time": 0.25 * i, "heads": []} for i in range(100)]
    result["heads"] = [{"time": 3.0, "fake_probability": 0.9}]
    times = thumbnails.choose_key_times(result)
    assert len(times) == 12 and 3.0 in times and times == sorted(set(times))
    assert max(np.diff(times)) <= 2.5
    result["heads"] = [
        {"time": 0.25 * i, "fake_probability": i / 40} for i in range(40)
    ]
    assert thumbnails.choose_key_times(result) == [0.25 * i for i in range(28, 40)]


def test_a_curve_breaks_where_a_track_is_away():
    drawn = timeline.render(support.clip_result(), BAND)
    first, second = re.findall('<path class="track t[12]" d="([^"]*)"', drawn)
    assert first.count("M") == 1 and first.startswith("M62.5 20.0L187.5 18.0L")
    # Three frames, away in two, two frames, and one without a probability.
    assert second == ("M62.5 80.0L187.5 80.0L312.5 80.0M687.5 80.0L812.5 80.0")
    assert "real below 30.0 %" in drawn and "fake from 70.0 %" in drawn


def test_a_clip_without_heads_has_no_time_line(tmp_path):
    result = support.clip_result() | {"tracks": [], "status": "no_head"}
    result |= {"fake_probability": None, "verdict": None, "duration": None}
    result["frames"] = [{"index": 0, "time": 0.0, "heads": []}]
    assert timeline.render(result, BAND) == ""
    page = written(tmp_path / "r.html", result)
    assert "status no_head" in page.text and not page.all("svg")


def test_boxes_are_in_per_cent_and_inside():
    heads = [
        {"box": [0.1, 0.2, 0.5, 0.6], "fake_probability": 0.9},
        {"box": [-0.1, 0.9, 0.3, 1.2], "fake_probability": None},
    ]
    drawn = marks.render_boxes(heads, ["<1>", ""], BAND)
    assert 'x="20.00%" y="10.00%" width="40.00%" height="40.00%"' in drawn
    assert 'x="90.00%" y="0.00%" width="10.00%" height="30.00%"' in drawn
    assert "&lt;1&gt;: 90 %" in drawn and 'text-anchor="end">?<' in drawn


@pytest.mark.parametrize(
    "seconds, shown", [(0, "0:00.0"), (59.96, "1:00.0"), (62.5, "1:02.5")]
)
def test_clock(seconds, shown):
    assert formatting.format_clock(seconds) == shown


def test_about_tells_thresholds_words_and_command():
    described = tiny_pipeline.build().manifest
    told = html.unescape(
        about.render(
            described,
            BAND,
            command=["detect", "my file.jpg", "--explain"],
            has_heat_maps=True,
        )
    )
    assert "dfdetect detect 'my file.jpg' --explain" in told
    assert "less than 25 % of the judged frames" in told
    for words in ("0.3", "0.7", "heat map", "uncertain", "no verdict (null)", "2: the"):
        assert words in told
    assert "set by" in told and "model's own are 0.5 and 0.5" in told
    for status in ("ok", "no_head", "unreadable", "too_large", "head_too_small"):
        assert f'<th scope="row">{status}</th>' in told
    assert "tensorflow" in told and "Model card" not in told
    assert "familiarity" not in told


def test_the_default_weights_bring_their_card():
    parts = {
        part: manifest.read(
            os.path.join(about.model_directory.DEFAULT_WEIGHTS, part), part
        )
        for part in ("detector", "classifier")
    }
    described = {**parts, "min_head_size": 56}
    own = parts["classifier"]["thresholds"]
    told = about.render(described, own, command=[])
    assert "Model card" in told and "What to expect" in told
    assert "<script" not in told and "http" not in told
    assert "of the reals were called fake" in told
    changed = parts["classifier"] | {"temperature": 3.0}
    described |= {"classifier": changed}
    assert "Model card" not in about.render(described, own, command=[])


def test_the_command_writes_a_report(loaded, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), support.drawn(seed=i)[..., ::-1])
    (folder / "<script>alert(1)<%2fscript>.jpg").write_bytes(b"broken")
    path = tmp_path / "new" / "folder" / "r.html"
    arguments = ["detect", str(folder), "--model", loaded, "--explain"]
    assert cli.main([*arguments, "--report", str(path)]) == console.UNREAD
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    page = support.Page(path)
    assert len(page.all("article")) == len(lines) == 4
    whole = [x for x in page.all("img") if x["alt"].startswith(str(folder))]
    assert [(x["width"], x["height"]) for x in whole] == [("400", "300")] * 3
    judged = [
        head["fake_probability"] is not None for x in lines for head in x["heads"]
    ]
    assert (
        len([x for x in page.all("img") if "heat map" in x["alt"]]) == sum(judged) > 0
    )
    assert "no image that can be decoded" in page.text
    assert f"--report {path}" in page.text
    assert os.listdir(path.parent) == ["r.html"]


@pytest.mark.parametrize("name, words", [
    ("report.txt", "--report must end in .html"),
    ("folder.html", "--report must be a file, not a folder"),
    ("file/r.html", "--report: "),
    ("page.html", "--report must not be one of the inputs"),
])  # fmt: skip
def test_a_wrong_report_is_a_usage_error(tmp_path, capsys, name, words):
    (tmp_path / "folder.html").mkdir()
    for file in ("file", "page.html"):
        (tmp_path / file).write_text("x")
    with pytest.raises(SystemExit) as stop:
        arguments = ["detect", str(tmp_path / "page.html")]
        cli.main([*arguments, "--report", str(tmp_path / name)])
    assert stop.value.code == console.USAGE
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert (tmp_path / "page.html").read_text() == "x"


def test_heat_maps_of_a_clip_are_of_its_most_suspicious_tracks(tmp_path):
    asked = []

    def explainer(image, boxes):
        asked.append((image.shape, boxes.round(2).tolist()))
        return np.array([[10, 20, 60, 60]]), np.ones((1, 8, 8), np.float32)

    result = support.clip_result()
    head = result["heads"][0]
    # Six tracks in one frame, and one that is too small.
    result["heads"] = [
        {**head, "track": i, "fake_probability": p}
        for i, p in enumerate((0.1, 0.6, 0.5, None, 0.4, 0.9, 0.8))
    ]
    content = support.jpeg(support.drawn(360, 640))
    frames = [(head["time"], content)]
    with support.report(tmp_path / "r.html", explainer=explainer) as page:
        page.add_clip(result, frames)
    page = support.Page(tmp_path / "r.html")
    shown = [x["alt"] for x in page.all("img") if "alt" in x]
    assert len(asked) == 4 and asked[0][0] == (360, 640, 3)
    assert [x for x in shown if "heat map" in x] == [
        f"Track {i} at 0:07.5, heat map" for i in (1, 2, 5, 6)
    ]
    assert sum("as judged" in x for x in shown) == 6
