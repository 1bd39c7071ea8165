import csv
import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
import types
from importlib import resources

import cv2
import jsonschema
import keras
import numpy as np
import pytest
from PIL import Image

import tiny_pipeline
from dfdetect import console, files, manifest
from dfdetect.cli import detect_output, main
from dfdetect.export import saved_pipeline
from dfdetect.media import image_status, source_files
from dfdetect.metrics import calibration
from dfdetect.models import model_directory
from dfdetect.pipeline import (
    deepfake_pipeline,
    findings,
    interfaces,
    result_formats,
    result_lines,
)
from dfdetect.reports import image_copies

SCHEMA = resources.files("dfdetect") / "schema" / "result.schema.json"

SIZE = 64
HALF = calibration.single_threshold(0.5)
# Of the letterbox; an image of 160 x 120 fills its upper three quarters.
ANCHORS = np.float32([[0.0, 0.0, 0.375, 0.5], [0.375, 0.5, 0.75, 1.0]])


def row(status, num_heads=0, fake_probability=math.nan):
    """One image's outputs, padded to three heads."""
    return {
        "status": np.int32(status),
        "num_heads": np.int32(num_heads),
        "boxes": np.float32([[0.1, 0.2, 0.3, 0.4], [0, 0.5, 1, 1], [0, 0, 0, 0]]),
        "head_scores": np.float32([0.9, 0.8, 0]),
        "fake_probabilities": np.float32([0.25, math.nan, 0]),
        "fake_probability": np.float32(fake_probability),
        "height": np.int64(600),
        "width": np.int64(512),
    }


def test_result_of_a_image_with_heads():
    assert result_lines.build_image_line(
        "a b.jpg", row(image_status.OK, 2, 0.25), HALF
    ) == {
        "path": "a b.jpg",
        "kind": "image",
        "status": "ok",
        "width": 512,
        "height": 600,
        "heads": [
            {"box": [0.1, 0.2, 0.3, 0.4], "score": 0.9, "fake_probability": 0.25},
            {"box": [0.0, 0.5, 1.0, 1.0], "score": 0.8, "fake_probability": None},
        ],
        "fake_probability": 0.25,
        "verdict": "real",
    }


@pytest.mark.parametrize(
    "status, name, size",
    [
        (image_status.NO_HEAD, "no_head", (512, 600)),
        (image_status.HEAD_TOO_SMALL, "head_too_small", (512, 600)),
        (image_status.TOO_LARGE, "too_large", (512, 600)),
        (image_status.UNREADABLE, "unreadable", (None, None)),
    ],
)
def test_result_without_a_probability_has_no_verdict(status, name, size):
    result = result_lines.build_image_line("x", row(status), HALF)
    assert (result["width"], result["height"]) == size
    assert result["status"] == name and result["heads"] == []
    assert result["fake_probability"] is None and result["verdict"] is None


def test_result_of_a_file_that_was_not_read():
    result = result_lines.build_image_line("x", {}, HALF)
    assert result["status"] == "unreadable" and result["width"] is None
    assert set(result) == set(
        result_lines.build_image_line("x", row(image_status.OK, 1), HALF)
    )


@pytest.mark.parametrize(
    "probability, verdict",
    [
        (1.0, "fake"),
        (0.75, "fake"),
        (0.7499, "uncertain"),
        (0.25, "uncertain"),
        (0.2499, "real"),
        (0.0, "real"),
    ],
)
def test_the_verdict_at_the_edges_of_the_band(probability, verdict):
    band = {"real_below": 0.25, "fake_from": 0.75}
    line = result_lines.build_image_line(
        "x", row(image_status.OK, 1, probability), band
    )
    assert line["verdict"] == verdict


@pytest.mark.parametrize("probability, verdict", [(0.25, "fake"), (0.2499, "real")])
def test_one_threshold_leaves_no_band(probability, verdict):
    one = calibration.single_threshold(0.25)
    line = result_lines.build_image_line("x", row(image_status.OK, 1, probability), one)
    assert line["verdict"] == verdict


@pytest.mark.parametrize("path", ["a\nb.jpg", "größe 人.jpg", '"', "not\udcffutf8"])
def test_json_stays_on_one_line_and_keeps_the_path(path):
    line = result_formats.json_line(
        result_lines.build_image_line(path, row(image_status.OK, 2), HALF)
    )
    assert len(line.splitlines()) == 1
    assert line.encode() and json.loads(line)["path"] == path


def test_csv_has_a_row_for_each_head():
    first, second = result_formats.csv_rows(
        result_lines.build_image_line("x", row(0, 2, 0.25), HALF)
    )
    before = ["x", "image", "ok", 512, 600]
    none = [None] * 6  # Of a track.
    assert first == [*before, 0, 0.1, 0.2, 0.3, 0.4, 0.9, 0.25, 0.25, "real", *none]
    assert second == [*before, 1, 0.0, 0.5, 1.0, 1.0, 0.8, None, 0.25, "real", *none]
    assert len(first) == len(result_formats.CSV_COLUMNS)
    (empty,) = result_formats.csv_rows(
        result_lines.build_image_line("x", row(image_status.NO_HEAD), HALF)
    )
    assert empty == ["x", "image", "no_head", 512, 600, *[None] * 15]


@pytest.mark.parametrize(
    "status, num_heads, probability, sentence",
    [
        (image_status.OK, 1, 0.125, "1 head, fake probability 0.12: real"),
        (
            image_status.OK,
            2,
            0.75,
            "2 heads, the most suspicious with fake probability 0.75",
        ),
        (
            image_status.NO_HEAD,
            0,
            math.nan,
            "no head was found, so there is no verdict",
        ),
        (image_status.HEAD_TOO_SMALL, 1, math.nan, "1 head, too small to be judged"),
    ],
)
def test_one_sentence_for_a_person(status, num_heads, probability, sentence):
    line = result_lines.build_image_line("x", row(status, num_heads, probability), HALF)
    said = result_formats.describe_image(line)
    assert said.startswith(sentence)
    assert said.endswith("(for research only)") == (status == image_status.OK)


def brightness_detector():
    """Finds the two anchors in every image that is not dark."""
    images = keras.Input((SIZE, SIZE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(images)
    logits, offsets = keras.layers.Dense(2), keras.layers.Dense(8)
    outputs = [
        keras.layers.Reshape((2, 1))(logits(mean)),
        keras.layers.Reshape((2, 4))(offsets(mean)),
    ]
    logits.set_weights([np.full((3, 2), 0.2 / 3), np.array([-10.0, -11.0])])
    offsets.set_weights([np.zeros((3, 8)), np.zeros(8)])
    model = keras.Model(images, outputs)
    model.anchors = types.SimpleNamespace(boxes=ANCHORS)
    return model


def brightness_classifier():
    """The logit is (mean gray level - 128) / 32."""
    crops = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(crops)
    logits = keras.layers.Dense(1)
    model = keras.Model(crops, logits(pooled))
    logits.set_weights([np.full((3, 1), 1 / 96), np.array([-4.0])])
    return model


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """An exported graph whose answers are known."""
    detector_manifest = {
        "kind": "detector",
        "phi": 0,
        "image_size": SIZE,
        "anchor_scale": 4.0,
        "num_classes": 1,
        "score_threshold": 0.5,
        "iou_threshold": 0.5,
        "max_detections": 3,
        "labels": ["head"],
    }
    classifier_manifest = {
        "kind": "classifier",
        "model": "xception",
        "image_size": SIZE,
        "crop_margin": 1.3,
        "temperature": 1.0,
        "thresholds": {"real_below": 0.2, "fake_from": 0.5},
        "labels": ["real", "fake"],
    }
    chained = deepfake_pipeline.DeepfakePipeline(
        brightness_detector(),
        brightness_classifier(),
        tiny_pipeline.content_network(SIZE),
        {
            "kind": "pipeline",
            "min_head_size": 1,
            "format": interfaces.FORMAT,
            "detector": detector_manifest,
            "classifier": classifier_manifest,
            "max_detections": 3,
            "versions": {},
        },
    )
    directory = tmp_path_factory.mktemp("graph") / "1"
    saved_pipeline.save(chained, str(directory))
    return str(directory)


@pytest.fixture(scope="module")
def loaded(graph):
    return saved_pipeline.load(graph)


@pytest.fixture
def images(tmp_path):
    """Bright and wide, cut short, less bright and tall, dark, missing."""
    bright = cv2.imencode(".jpg", np.full((120, 160, 3), 192, np.uint8))[1].tobytes()
    (tmp_path / "bright.jpg").write_bytes(bright)
    (tmp_path / "cut ü\n.jpg").write_bytes(bright[: len(bright) // 2])
    cv2.imwrite(str(tmp_path / "tall.png"), np.full((160, 120, 3), 96, np.uint8))
    cv2.imwrite(str(tmp_path / "dark.bmp"), np.zeros((50, 50, 3), np.uint8))
    names = ("bright.jpg", "cut ü\n.jpg", "tall.png", "dark.bmp", "missing.jpg")
    return [str(tmp_path / name) for name in names]


def command(*arguments):
    # Started in the background of a script, a process would not heed an interrupt.
    code = """import signal, sys
from dfdetect.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main.main())
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, "detect", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_findings_are_what_is_in_the_files_in_order(loaded, images, batch_size):
    sources, barren = source_files.find_sources(images)
    found = list(
        findings.find_in_sources(loaded.detect, sources, HALF, batch_size=batch_size)
    )
    assert barren == [] and [x.source for x in found] == sources
    assert [(x.result["status"], x.result["verdict"]) for x in found] == [
        ("ok", "fake"),
        ("unreadable", None),
        ("ok", "real"),
        ("no_head", None),
        ("unreadable", None),
    ]
    assert [(x.result["width"], x.result["height"]) for x in found] == [
        (160, 120),
        (None, None),
        (120, 160),
        (50, 50),
        (None, None),
    ]
    assert [x.problem for x in found] == [
        "",
        "no image that can be decoded: JPEG, cut short or damaged",
        "",
        "",
        "No such file or directory",
    ]
    # The sigmoids of (192 - 128) / 32 and (96 - 128) / 32.
    bright, tall = found[0].result, found[2].result
    assert bright["fake_probability"] == pytest.approx(0.880797, abs=1e-3)
    assert tall["fake_probability"] == pytest.approx(0.268941, abs=1e-5)
    for head in (*bright["heads"], *tall["heads"]):
        assert head["score"] > 0.5 and head["fake_probability"] is not None
    boxes = [head["box"] for head in bright["heads"]]
    np.testing.assert_allclose(boxes, [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], atol=1e-5)
    boxes = [head["box"] for head in tall["heads"]]
    np.testing.assert_allclose(
        boxes, [[0, 0, 0.375, 2 / 3], [0.375, 2 / 3, 0.75, 1]], atol=1e-5
    )


def test_of_an_animated_image_the_first_frame_is_judged_and_it_is_told(
    loaded, tmp_path
):
    bright, dark = (Image.new("RGB", (160, 120), (value,) * 3) for value in (192, 0))
    for name in ("a.gif", "a.webp", "a.png"):
        path = tmp_path / name
        bright.save(path, save_all=True, append_images=[dark] * 2)
        sources, _ = source_files.find_sources([str(path)])
        (finding,) = findings.find_in_sources(loaded.detect, sources, HALF)
        assert finding.result["verdict"] == "fake", name
        told = "animated: only its first frame was judged"
        assert finding.result["warning"] == told
        validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
        validator.validate(finding.result)


def test_size_and_copy_are_those_of_the_upright_image(loaded, tmp_path):
    content = cv2.imencode(".jpg", np.full((90, 150, 3), 192, np.uint8))[1].tobytes()
    # An EXIF segment with one entry: tag 0x0112, short, one, 6 (turn by a quarter).
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(content[:2] + segment + content[2:])
    sources, _ = source_files.find_sources([str(turned)])
    (finding,) = findings.find_in_sources(loaded.detect, sources, HALF)
    assert (finding.result["width"], finding.result["height"]) == (90, 150)
    marked = cv2.imdecode(np.frombuffer(image_copies.draw_copy(finding), np.uint8), 1)
    assert marked.shape == (150, 90, 3)


def test_run_prints_a_table_and_draws_copies(loaded, images, tmp_path, capsys):
    before = [files.read(path) for path in images[:4]]
    output = tmp_path / "new" / "out"
    sources, _ = source_files.find_sources([str(tmp_path)], str(output))
    unread = detect_output.judge_files(
        loaded.detect,
        sources,
        {"real_below": 0.2, "fake_from": 0.5},
        output=str(output),
        as_csv=True,
        batch_size=2,
    )
    assert unread == 1
    shown = capsys.readouterr()
    header, *rows = csv.reader(io.StringIO(shown.out))
    assert tuple(header) == result_formats.CSV_COLUMNS
    verdict = header.index("verdict")
    assert [(os.path.basename(row[0]), row[verdict]) for row in rows] == [
        ("bright.jpg", "fake"),
        ("bright.jpg", "fake"),
        ("cut ü\n.jpg", ""),
        ("dark.bmp", ""),
        ("tall.png", "uncertain"),
        ("tall.png", "uncertain"),
    ]
    problem, summary = shown.err.splitlines()
    assert problem.endswith(
        "cut ü\\n.jpg': no image that can be decoded: JPEG, cut short or damaged"
    )
    assert summary.startswith(
        "dfdetect: 4 files: 1 fake, 1 unreadable, 1 no_head, 1 uncertain; "
    )

    assert sorted(os.listdir(output)) == ["bright.jpg", "dark.png", "tall.png"]
    tall = cv2.imread(str(output / "tall.png"))[..., ::-1]
    assert tall.shape == (160, 120, 3)
    # The first box is 60 rows high and 80 columns wide; .27 is green, some red.
    assert tuple(tall[40, 80]) == (137, 255, 0) and tuple(tall[150, 10]) == (96,) * 3
    dark = cv2.imread(str(output / "dark.png"))
    assert not dark.any(), "nothing to mark"
    assert before == [files.read(path) for path in images[:4]]


def test_a_single_image_gets_a_sentence(graph, images, tmp_path, capsys):
    def said(*arguments):
        main.main(["detect", *arguments, "--model", graph])
        return capsys.readouterr().err.splitlines()

    found = "2 heads, the most suspicious with fake probability 0.88: fake"
    *_, summary, sentence = said(images[0])
    assert summary.startswith("dfdetect: 1 file: 1 fake; ")
    assert sentence == (
        f"dfdetect: {images[0]!r}: {found} (for research only); "
        "--output DIR writes a copy with the heads marked"
    )
    assert os.listdir(tmp_path) and not os.path.exists(tmp_path / "out")
    output = str(tmp_path / "out")
    sentence = said(images[0], "--output", output)[-1]
    copy = os.path.join(output, "bright.jpg")
    assert sentence.endswith(f"only); the copy to look at is {copy!r}")
    assert os.path.isfile(copy)
    # What was answered by an earlier run is said again.
    noted = ["--resume", str(tmp_path / "noted")]
    assert said(images[0], *noted)[-1] == said(images[0], *noted)[-1]
    sentence = said(images[3])[-1]
    assert sentence.endswith("dark.bmp': no head was found, so there is no verdict")
    # Not of several, nor of what could not be read.
    for paths in (images[0:4:3], images[1:2]):
        assert " files: " in said(*paths)[-1] or " file: " in said(*paths)[-1]


def test_a_finished_run_says_why_it_does_not_exit_with_0(
    graph, images, tmp_path, capsys
):
    arguments = ["detect", "--model", graph, "--resume", str(tmp_path / "noted")]
    told = []
    for _ in range(2):
        assert main.main([*arguments, *images[:2]]) == console.UNREAD
        first, *_, last = capsys.readouterr().err.splitlines()
        told.append((first, last.split("; ")[0]))
    cut = f"dfdetect: {images[1]!r}: "
    assert told == [
        (f"{cut}no image that can be decoded: JPEG, cut short or damaged",)
        + ("dfdetect: 2 files: 1 fake, 1 unreadable",),
        (f"{cut}unreadable, as noted before", "dfdetect: 0 files: none left"),
    ]


def test_explain_lays_heat_over_the_judged_heads_of_copies(
    graph, loaded, images, tmp_path, capsys
):
    before = [files.read(path) for path in images[:4]]
    plain, explained = tmp_path / "plain", tmp_path / "explained"
    sources, _ = source_files.find_sources([images[0], images[3]])
    detect_output.judge_files(loaded.detect, sources, HALF, output=str(plain))
    lines = capsys.readouterr().out
    arguments = ["--model", graph, "--threshold", "0.5", "--output", str(explained)]
    assert main.main(["detect", *arguments, "--explain", *images[0:4:3]]) == 0
    assert capsys.readouterr().out == lines
    assert sorted(os.listdir(explained)) == ["bright.jpg", "dark.png"]
    assert before == [files.read(path) for path in images[:4]]
    copies = [cv2.imread(str(x / "bright.jpg")) for x in (plain, explained)]
    difference = np.abs(copies[1].astype(int) - copies[0]).max(axis=-1)
    # Squares of 104 px, 1.3 times the boxes of 80 px, moved into the image of
    # 160 x 120; within the boxes, where no line is and no letter.
    assert (difference[30:55, 10:70] > 40).all()
    assert (difference[90:115, 90:150] > 40).all()
    assert difference[112:, :30].max() < 20, "outside"
    # Neither has a head.
    dark = [cv2.imread(str(x / "dark.png")) for x in (plain, explained)]
    np.testing.assert_array_equal(*dark)


def test_a_graph_without_explain_is_a_usage_error(graph, tmp_path, capsys, monkeypatch):
    described = manifest.read(os.path.join(graph, "assets"), "pipeline")
    older = types.SimpleNamespace(manifest=described, explain=None)
    monkeypatch.setattr(saved_pipeline, "load", lambda directory, say: older)
    with pytest.raises(SystemExit) as stop:
        arguments = ["--model", graph, "--output", str(tmp_path), "--explain"]
        main.main(["detect", source_files.find_sample(), *arguments])
    assert stop.value.code == console.USAGE
    said = capsys.readouterr().err
    assert f"--explain: the graph was exported without it: {graph}" in said
    assert said.count("\n") == 1


def test_command_streams_lines_and_exits_with_3(graph, images, capsys):
    process = command(*images, "--model", graph, "--batch_size", "2")
    shown, said = process.communicate()
    assert process.returncode == console.UNREAD, said
    results = [json.loads(line) for line in shown.splitlines()]
    assert [result["path"] for result in results] == images
    assert [len(result["heads"]) for result in results] == [2, 0, 2, 0, 0]
    lines = said.splitlines()
    assert any(line.endswith("damaged") and "cut ü" in line for line in lines)
    assert any(line.endswith("jpg': No such file or directory") for line in lines)
    assert not any(word in said.lower() for word in ("tensorflow", "cuda", "warning"))
    assert lines[-1].startswith(
        "dfdetect: 5 files: 1 fake, 2 unreadable, 1 uncertain, 1 no_head; "
    )
    assert main.main(["detect", images[2], "--model", graph, "--threshold", ".5"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "real"


@pytest.mark.slow  # A quarter of a minute.
def test_command_ends_in_one_line_when_interrupted(graph, images, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # nobody writes: the command waits for its bytes
    arguments = (images[0], str(tmp_path / "pipe"), "--batch_size", "1")
    process = command(*arguments, "--model", graph)
    assert json.loads(process.stdout.readline())["path"] == images[0]
    writer = _opened_for(process, tmp_path / "pipe")
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == console.INTERRUPTED
    # On a slow machine lines of progress stand before it.
    *before, last = said.splitlines()
    assert shown == "" and last == "dfdetect: interrupted"
    assert all("1 of 2 files" in line for line in before)


@pytest.mark.slow  # A quarter of a minute.
def test_command_removes_what_lies_aside_when_it_is_ended(graph, images, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    arguments = (images[0], str(tmp_path / "pipe"), "--batch_size", "1")
    process = command(*arguments, "--model", graph)
    assert json.loads(process.stdout.readline())["path"] == images[0]
    writer = _opened_for(process, tmp_path / "pipe")
    process.terminate()
    _, said = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == 128 + signal.SIGTERM
    assert all("1 of 2 files" in line for line in said.splitlines()), "no log is shown"


def _opened_for(process, pipe):
    """Opens a pipe to write once the process reads it."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.05)
    raise AssertionError("The command ended before it read the pipe.")


@pytest.mark.slow  # A quarter of a minute.
def test_command_ends_quietly_when_nobody_reads(graph, images):
    process = command(images[0], images[2], "--model", graph)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == console.PIPE_CLOSED
    process.stderr.close()


def test_default_weights_find_the_head_of_the_portrait():
    for part in ("detector", "classifier"):
        if not os.path.isdir(os.path.join(model_directory.DEFAULT_WEIGHTS, part)):
            pytest.skip(f"no default weights of the {part} yet")
    process = command()
    shown, said = process.communicate()
    assert process.returncode == 0, said
    # One line of a graph that is made the first time, and what was found.
    assert all(line.startswith("dfdetect") for line in said.splitlines()), said
    (result,) = (json.loads(line) for line in shown.splitlines())
    assert result["status"] == "ok"
    assert (result["width"], result["height"]) == (512, 600)
    # The face's centre, by eye, at 48 % of the width and 32 % of the height.
    top, left, bottom, right = result["heads"][0]["box"]
    assert top < 0.32 < bottom and left < 0.48 < right
    assert 0.0 <= result["fake_probability"] <= 1.0
