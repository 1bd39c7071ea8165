"""`dfdetect detect --crops`, and what it is made of."""

import csv
import io
import json
import math
import os
import pathlib
import subprocess
import sys
import types
from importlib import resources

import cv2
import jsonschema
import numpy as np
import pytest
import tensorflow as tf

import serving_support
import tiny_pipeline
from dfdetect import boxes, console, labels
from dfdetect.cli import main
from dfdetect.export import saved_pipeline
from dfdetect.media import image_status
from dfdetect.pipeline import embedding, given_crops, result_formats
from dfdetect.retrieval import index, storage
from dfdetect.retrieval.entries import Entry

SERVE = pathlib.Path(__file__).resolve().parents[2] / "serve"
WHOLE = [0.0, 0.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of an exported graph, and what it loads as."""
    directory = str(tmp_path_factory.mktemp("graph") / "1")
    saved_pipeline.save(
        tiny_pipeline.build(thresholds={"real_below": 0.4, "fake_from": 0.6}), directory
    )
    return directory, saved_pipeline.load(directory)


@pytest.fixture
def graph(exported, monkeypatch):
    """The folder of the graph, which the command finds loaded."""
    directory, model = exported
    loads = {directory: model}
    monkeypatch.setattr(saved_pipeline, "load", lambda path, say: loads[path])
    return directory


@pytest.fixture
def model(exported):
    return exported[1]


def _image(seed, height=60, width=90):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def crops(tmp_path):
    """A folder: five images of many shapes, one of them broken, and a clip."""
    folder = tmp_path / "crops"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), _image(0))
    cv2.imwrite(str(folder / "b.jpg"), _image(1, 400, 300))
    (folder / "c.jpg").write_bytes(b"no image")
    cv2.imwrite(str(folder / "d.bmp"), _image(2, 7, 5))
    cv2.imwrite(str(folder / "e.png"), _image(3, 80, 80)[..., 0])
    (folder / "f.mp4").write_bytes(b"passed over")
    return folder


def _run(capsys, *arguments):
    code = main.main(["detect", "--crops", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def _lines(text):
    return [json.loads(line) for line in text.splitlines()]


def _contents(folder):
    return [x.read_bytes() for x in sorted(folder.glob("[a-e].*"))]


def _signature(model, contents):
    found = model.classify_crops(tf.constant(contents, tf.string))
    return found["fake_probability"].numpy()


def test_an_image_that_is_called_like_a_clip_is_a_crop(graph, crops, capsys):
    (crops / "a.png").rename(crops / "a.mp4")
    code, out, _ = _run(capsys, crops / "a.mp4", "--model", graph)
    assert code == 0 and [x["kind"] for x in _lines(out)] == ["image"]


def test_lines_are_those_of_the_signature_exactly(graph, model, crops, capsys):
    code, out, err = _run(capsys, crops, "--model", graph, "--batch_size", 1)
    assert code == console.UNREAD
    results = _lines(out)
    names = [os.path.basename(x["path"]) for x in results]
    assert names == ["a.png", "b.jpg", "c.jpg", "d.bmp", "e.png"]
    schema = resources.files("dfdetect") / "schema" / "result.schema.json"
    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
    for result, content in zip(results, _contents(crops), strict=True):
        validator.validate(result)
        (expected,) = _signature(model, [content])
        if math.isnan(expected):
            continue
        expected = round(float(expected), 6)
        assert result["heads"] == [
            {"box": WHOLE, "score": None, "fake_probability": expected}
        ]
        assert result["fake_probability"] == expected
        verdict = (
            "real" if expected < 0.4 else "fake" if expected >= 0.6 else "uncertain"
        )
        assert (result["status"], result["verdict"]) == ("ok", verdict)
        assert result["kind"] == "image"
    assert [(x["width"], x["height"]) for x in results] == [
        *((90, 60), (300, 400), (None, None), (5, 7), (80, 80))
    ]
    broken = results[2]
    assert broken["status"] == "unreadable" and broken["heads"] == []
    assert broken["fake_probability"] is None and broken["verdict"] is None
    assert "c.jpg': no image that can be decoded" in err
    # Images of several probabilities, or the comparison would say little.
    assert len({x["fake_probability"] for x in results}) > 3


def test_a_batch_equals_its_images(graph, model, crops, capsys):
    _, out, _ = _run(capsys, crops, "--model", graph, "--batch_size", 8)
    found = [x["fake_probability"] for x in _lines(out)]
    expected = _signature(model, _contents(crops))
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == math.isnan(other)
        assert one is None or one == pytest.approx(other, abs=2e-6)


def test_no_detector_is_asked(exported, monkeypatch, crops, capsys):
    directory, model = exported

    def refuse(_):
        raise AssertionError("A head was looked for.")

    without = types.SimpleNamespace(**vars(model))
    without.detect = without.detect_frames = refuse
    loads = {directory: without}
    monkeypatch.setattr(saved_pipeline, "load", lambda path, say: loads[path])
    assert _run(capsys, crops / "a.png", "--model", directory)[0] == 0


def test_detections_of_nothing_and_of_what_cannot_be_read(model):
    detect = given_crops.as_detections(model.classify_crops)
    empty = detect(tf.constant([], tf.string))
    assert empty["boxes"].shape == (0, 1, 4) and empty["status"].shape == (0,)
    found = detect(tf.constant([b"no image"]))
    assert found["status"].numpy() == [image_status.UNREADABLE]
    assert found["num_heads"].numpy() == [0] and not found["boxes"].numpy().any()
    # As everywhere, padding is zeros.
    assert found["head_scores"].numpy() == found["fake_probabilities"].numpy() == [[0]]
    assert math.isnan(found["fake_probability"].numpy()[0])


def test_a_table_has_a_row_without_a_score(graph, crops, capsys):
    _, out, _ = _run(capsys, crops / "a.png", "--model", graph, "--csv")
    header, row = csv.reader(io.StringIO(out))
    assert tuple(header) == result_formats.CSV_COLUMNS
    cells = dict(zip(header, row, strict=True))
    assert (cells["head"], cells["score"], cells["ymax"]) == ("0", "", "1.0")
    assert cells["head_fake_probability"] == cells["fake_probability"] != ""


def test_copies_are_framed_and_explained_all_over(
    graph, model, crops, tmp_path, capsys
):
    image = crops / "a.png"
    before = image.read_bytes()
    plain, explained = tmp_path / "plain", tmp_path / "explained"
    arguments = [image, "--model", graph]
    _run(capsys, *arguments, "--output", plain)
    _run(capsys, *arguments, "--output", explained, "--explain")
    assert image.read_bytes() == before
    frame, heat = (cv2.imread(str(x / "a.png")).astype(int) for x in (plain, explained))
    assert frame.shape == heat.shape == (60, 90, 3)
    inside = np.s_[25:-3, 3:-3]  # Below the label.
    np.testing.assert_array_equal(frame[inside], cv2.imread(str(image))[inside])
    # The map is that of the file, over the whole of an image that is not square.
    found = model.explain(tf.constant([before]))["heat_map"].numpy()[0]
    hot = cv2.resize(found, (90, 60), interpolation=cv2.INTER_LINEAR)
    changed = np.abs(heat - frame).max(axis=-1)
    assert (changed[inside][hot[inside] > 0.2] > 0).mean() > 0.9
    assert changed[inside][hot[inside] < 0.001].max(initial=0) <= 1


def test_a_report_shows_the_whole_crop(graph, crops, tmp_path, capsys):
    report = tmp_path / "report.html"
    code, _, _ = _run(capsys, crops, "--model", graph, "--report", report, "--explain")
    page = report.read_text("utf-8")
    assert code == console.UNREAD
    assert page.count("given crop · ") == 4 and "detector 0." not in page
    assert "No detector looked at it" in page
    # Of each image itself, its crop and its heat map.
    assert page.count("data:image/jpeg;base64,") == 4 * 3
    assert "No detector looked at it" not in _plain_report(graph, crops, tmp_path)


def _plain_report(graph, crops, tmp_path):
    report = tmp_path / "plain.html"
    main.main(
        ["detect", str(crops / "a.png"), "--model", graph, "--report", str(report)]
    )
    return report.read_text("utf-8")


def test_a_crop_in_a_report_is_what_the_classifier_saw():
    from dfdetect.reports.page import thumbnails

    image = np.zeros((50, 100, 3), np.uint8)
    image[:, :10] = (250, 40, 40)
    head = {"box": WHOLE, "fake_probability": 0.5}
    found = thumbnails.make_thumbnails(image, [head], margin=None, max_bytes=10**5)
    crop = cv2.imdecode(np.frombuffer(found.heads[0].crop, np.uint8), 1)
    assert crop.shape == (50, 100, 3)
    assert crop[:, :8, 2].min() > 150 > crop[:, 20:].max()


def test_it_resumes_what_was_judged_as_crops_only(graph, crops, tmp_path, capsys):
    journal = tmp_path / "noted.jsonl"
    arguments = ["--model", graph, "--resume", journal]
    _, first, _ = _run(capsys, crops / "a.png", *arguments)
    noted = journal.read_text().splitlines()
    assert len(noted) == 2
    _, both, _ = _run(capsys, crops / "a.png", crops / "b.jpg", *arguments)
    assert both.startswith(first) and both.count("\n") == 2
    with pytest.raises(SystemExit) as stop:
        main.main(["detect", str(crops / "a.png"), *map(str, arguments)])
    assert stop.value.code == console.USAGE
    assert "crops (there True, here None)" in capsys.readouterr().err


def test_known_crops_are_told(graph, model, crops, tmp_path, capsys):
    embedder = embedding.Embedder(model, "content")
    paths = [crops / name for name in ("a.png", "b.jpg", "e.png")]
    rows = [x.embeddings[0] for x in embedder([path.read_bytes() for path in paths])]
    entries = [Entry(path.name, label=i % 2) for i, path in enumerate(paths)]
    known = index.Index(np.stack(rows), entries, embedding=embedder.describe())
    storage.save(known, str(tmp_path / "index"))
    arguments = ["--model", graph, "--index", tmp_path / "index"]
    code, out, _ = _run(capsys, *paths, *arguments)
    assert code == 0
    heads = [result["heads"][0] for result in _lines(out)]
    # What is looked up is the whole of each file, as it was when it was indexed.
    for head, entry in zip(heads, entries, strict=True):
        nearest = head[f"nearest_{labels.NAMES[entry.label]}"]
        assert nearest["id"] == entry.id and nearest["similarity"] > 0.9999


def test_clients_say_the_same_of_a_served_graph(graph, crops, capsys):
    paths = [str(path) for path in sorted(crops.glob("[a-e].*"))]
    _, out, _ = _run(capsys, *paths, "--model", graph)
    expected = _lines(out)
    base = os.path.dirname(graph)
    with serving_support.in_process(
        model_name="dfdetect", model_base_path=base
    ) as started:
        servers = {
            "rest": f"--url=http://127.0.0.1:{started.rest_port}",
            "grpc": f"--server=127.0.0.1:{started.port}",
        }
        for protocol, server in servers.items():
            done = subprocess.run(
                [
                    *(sys.executable, SERVE / "client.py", f"--protocol={protocol}"),
                    *(server, "--crops", *paths),
                ],
                capture_output=True,
                text=True,
            )
            assert done.returncode == console.UNREAD, done.stderr
            for line, wanted in zip(_lines(done.stdout), expected, strict=True):
                assert (line["path"], line["status"]) == (
                    wanted["path"],
                    wanted["status"],
                )
                pairs = zip(line["heads"], wanted["heads"], strict=True)
                # A server runs the graph on its own threads: a last digit may differ.
                for one, other in [(line, wanted), *pairs]:
                    probability = pytest.approx(other["fake_probability"], abs=2e-6)
                    assert one["fake_probability"] == probability
                for head in line["heads"]:
                    assert head["box"] == WHOLE and head["score"] is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--crops needs a PATH"),
        (["x.jpg", "clip.MP4"], "--crops judges images, not clips: clip.MP4"),
        (["x.jpg", "--tile"], "--crops does not go with --tile"),
        (["--camera", "0"], "--crops does not go with --camera"),
        (["x.jpg", "--frames", "all"], "--crops does not go with --frames"),
        (["x.jpg", "--every", "1"], "--crops does not go with --every"),
        (["x.jpg", "--aggregate", "max"], "--crops does not go with --aggregate"),
        (["{tmp}"], "no images in {tmp}"),
    ],
)
def test_usage_errors_are_one_line(arguments, message, tmp_path, capsys):
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        main.main(["detect", "--crops", *(x.format(tmp=tmp_path) for x in arguments)])
    assert stop.value.code == console.USAGE
    shown = capsys.readouterr()
    assert shown.out == "" and message.format(tmp=tmp_path) in shown.err
    assert shown.err.count("\n") == 1


def test_regions_with_and_without_a_margin():
    box = np.float32([[0.1, 0.2, 0.5, 0.4], [0, 0, 1, 1]])
    plain = np.asarray(boxes.crop_regions(box, 50, 100, None))
    np.testing.assert_array_equal(plain, [[5, 20, 20, 20], [0, 0, 50, 100]])
    squares = np.asarray(boxes.crop_regions(box, 50, 100, 1.0))
    np.testing.assert_array_equal(squares, [[5, 20, 20, 20], [0, 0, 50, 50]])
    for margin in (None, 1.3):
        assert boxes.crop_regions(np.zeros((0, 4)), 50, 100, margin).shape == (0, 4)
    point = np.asarray(boxes.crop_regions(np.zeros((1, 4)), 50, 100, None))
    np.testing.assert_array_equal(point, [[0, 0, 1, 1]])
