"""Crops of a data set, by a stand-in detector whose answers are known."""

import csv
import functools
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect import files, manifest, resumable
from dfdetect.data import crop_heads
from dfdetect.media import decode, resize, source_files
from dfdetect.models import model_directory
from labelled_images import LabelledImages, prepare, tree

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = 64
# The quarters of an image of 160 x 120, which fills three quarters of its letterbox.
ANCHORS = np.float32(
    [[y, x, y + 0.375, x + 0.5] for y in (0.0, 0.375) for x in (0.0, 0.5)]
)
DESCRIPTION = {
    "kind": "detector",
    "phi": 0,
    "image_size": SIZE,
    "anchor_scale": 4.0,
    "num_classes": 1,
    "score_threshold": 0.5,
    "iou_threshold": 0.5,
    "max_detections": 6,
    "labels": ["head"],
}
NAMES = (
    "plain.png",
    "a b/c d.png",
    "a b_c d.png",
    "../../up.png",
    "/rooted.png",
    "größe 人.jpg",
    'line\nbreak, "quoted"\r.png',
    "A.png",
    "a.png",
    "long" * 60,
)


def quarters_detector(*_):
    """A head in each quarter above gray level 100; the brighter, the surer."""
    images = keras.Input((SIZE, SIZE, 3))
    means = keras.layers.AveragePooling2D((24, 32))(images)
    means = keras.layers.Reshape((4, 3))(means)
    logits, offsets = keras.layers.Dense(1), keras.layers.Dense(4)
    model = keras.Model(images, [logits(means), offsets(means)])
    logits.set_weights([np.full((3, 1), 0.02 / 3), np.array([-2.0])])
    offsets.set_weights([np.zeros((3, 4)), np.zeros(4)])
    model.anchors = type("Anchors", (), {"boxes": ANCHORS})
    return model, DESCRIPTION


def image(*levels, seed=0):
    """Noise around a gray level in each quarter."""
    random = np.random.default_rng(seed)
    gray = np.kron(np.reshape(levels, (2, 2)), np.ones((60, 80)))[..., None]
    return np.uint8(gray + random.integers(-20, 20, (120, 160, 3)))


def png(*levels, seed=0):
    return cv2.imencode(".png", image(*levels, seed=seed)[..., ::-1])[1].tobytes()


def turned_jpeg(*levels):
    """A JPEG that is upright only after a quarter turn."""
    upright = image(*levels)[..., ::-1]
    sideways = cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE)
    content = cv2.imencode(".jpg", sideways)[1].tobytes()
    # An EXIF segment with one entry: tag 0x0112, short, one, 6 (turn by a quarter).
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return (
        content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    ) + content[2:]


IMAGES = {
    "train": [
        (name, index % 2, png(200, 40 + 20 * index, 150, 40, seed=index))
        for index, name in enumerate(NAMES)
    ],
    "validation": [
        ("none.png", 1, png(40, 40, 40, 40)),
        ("broken.png", 0, png(200, 200, 200, 200)[:500]),
        ("turned.jpg", 0, turned_jpeg(40, 200, 40, 40)),
        ("all.png", 0, png(200, 210, 220, 230)),
    ],
    "test": [("last.png", 1, png(40, 40, 40, 200))],
}


@pytest.fixture(name="detector", scope="module")
def _detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    manifest.write(folder, DESCRIPTION)
    (folder / "weights.npz").write_bytes(b"those of the stand-in")
    return str(folder)


head_cutter = crop_heads.build_head_cutter


@functools.cache
def _cutter(**arguments):
    # Traced once for all tests: that takes longer than the images do.
    return head_cutter(*quarters_detector(), **arguments)


@pytest.fixture(autouse=True, scope="module")
def _stand_in():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_directory, "load_detector", lambda _: (None, None))
        patch.setattr(
            crop_heads,
            "build_head_cutter",
            lambda _, __, **arguments: _cutter(**arguments),
        )
        yield


@pytest.fixture(name="crops", scope="module")
def _crops(builder, detector, tmp_path_factory):
    """What an uninterrupted run makes."""
    folder = tmp_path_factory.mktemp("crops")
    run(builder, folder, detector)
    return folder


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(builder, output, detector, **arguments):
    said = []
    arguments = {"batch_size": 2, **arguments}
    crop_heads.crop_heads(
        builder, str(output), say=said.append, detector=detector, **arguments
    )
    return said


def originals():
    return {name: content for rows in IMAGES.values() for name, _, content in rows}


def test_every_head_has_a_row_and_a_crop(crops):
    rows = table(crops / "heads.csv")
    found = {}
    for row in rows:
        key = row["split"], row["image/filename"]
        found.setdefault(key, []).append((int(row["head"]), row))
    # Quarters above 100: the first and third of each, the second from the fourth on.
    wanted = {("train", name): 2 + (40 + 20 * i > 105) for i, name in enumerate(NAMES)}
    wanted |= {("validation", "all.png"): 4, ("validation", "turned.jpg"): 1}
    wanted |= {("test", "last.png"): 1}
    assert {key: len(heads) for key, heads in found.items()} == wanted
    for heads in found.values():
        assert [head for head, _ in heads] == list(range(len(heads)))
        scores = [float(row["score"]) for _, row in heads]
        assert scores == sorted(scores, reverse=True) and scores[-1] > 0.5
    assert len({row["path"] for row in rows}) == len(rows)
    (row,) = (row for row in rows if row["split"] == "test")
    assert row["label"] == "1" and row["group"] == "group 0"
    assert row["margin"] == "1.3"
    box = [float(row[side]) for side in ("ymin", "xmin", "ymax", "xmax")]
    np.testing.assert_allclose(box, [0.5, 0.5, 1, 1], atol=1e-6)


def test_further_scalars_are_columns(crops):
    rows = table(crops / "heads.csv")
    assert list(rows[0]) == [
        "path",
        "label",
        "split",
        "group",
        "image/filename",
        "head",
        "ymin",
        "xmin",
        "ymax",
        "xmax",
        "score",
        "margin",
        "compression",
        "frame",
        "is_sharp",
        "method",
        "image/score",
        "time",
    ]
    (last,) = (row for row in rows if row["split"] == "test")
    fields = ("compression", "frame", "is_sharp", "method", "image/score", "time")
    assert [last[name] for name in fields] == ["c23", "0", "1", "a, b", "0.5", "0.1"]


def test_images_without_a_head_are_listed(crops):
    rows = table(crops / "no_head.csv")
    columns = ("image/filename", "split", "label", "group", "reason")
    assert tuple(rows[0]) == columns
    assert sorted(tuple(row.values()) for row in rows) == [
        ("broken.png", "validation", "0", "group 1", "unreadable"),
        ("none.png", "validation", "1", "group 0", "no_head"),
    ]


def test_summary_counts_and_names_what_went_in(crops):
    summary = json.loads((crops / "crops.json").read_text())
    assert summary["counts"] == {
        "train": {
            "real": {"pictures": 5, "heads": 13, "without_head": 0},
            "fake": {"pictures": 5, "heads": 13, "without_head": 0},
        },
        "validation": {
            "real": {"pictures": 3, "heads": 5, "without_head": 1},
            "fake": {"pictures": 1, "heads": 0, "without_head": 1},
        },
        "test": {
            "real": {"pictures": 0, "heads": 0, "without_head": 0},
            "fake": {"pictures": 1, "heads": 1, "without_head": 0},
        },
    }
    assert summary["without_head"] == {"no_head": 1, "unreadable": 1}
    settings = summary["settings"]
    assert settings["dataset"]["fingerprint"] == "of the images"
    assert settings["score_threshold"] == 0.5 and settings["margin"] == 1.3
    assert settings["detector"]["manifest"]["image_size"] == SIZE
    assert len(settings["detector"]["weights_sha256"]) == 64


def test_crops_are_the_pixels_of_the_upright_original(crops):
    rows = table(crops / "heads.csv")
    (last,) = (row for row in rows if row["split"] == "test")
    # The quarter is 80 x 60 pixels around (120, 90): 1.3 x 80 is a side of 104 from
    # (68, 38) on, of which 82 rows are left below.
    expected = image(40, 40, 40, 200)[38:120, 68:150]
    crop = cv2.imread(str(crops / last["path"]))[..., ::-1]
    np.testing.assert_array_equal(crop, expected)
    (turned,) = (row for row in rows if row["image/filename"] == "turned.jpg")
    assert float(turned["xmin"]) == pytest.approx(0.5, abs=1e-6)
    assert cv2.imread(str(crops / turned["path"]))[40:60, 40:60].mean() > 170


def test_resized_crops_equal_those_cut_from_the_original_bit_for_bit(crops):
    contents = originals()
    for row in table(crops / "heads.csv"):
        original = decode.decode_image(tf.constant(contents[row["image/filename"]]))
        box = np.float32([[row[side] for side in ("ymin", "xmin", "ymax", "xmax")]])
        expected = resize.crop_heads(original, tf.constant(box), 71, 1.3)[0]
        crop = decode.decode_image(tf.io.read_file(str(crops / row["path"])))
        np.testing.assert_array_equal(resize.resize(crop, 71), expected)
        y, x, side = box_format.square_crops(box, *original.shape[:2], 1.3)[0]
        np.testing.assert_array_equal(crop, original[y : y + side, x : x + side])


def test_crops_stay_in_their_folder_and_are_all_that_is_there(crops):
    paths = [row["path"] for row in table(crops / "heads.csv")]
    assert set(tree(crops)) == {"heads.csv", "no_head.csv", "crops.json", *paths}
    assert not any(".." in path.split("/") for path in paths)
    assert all(path.isprintable() for path in paths)
    assert any("a b_c d" in path for path in paths), "names stay readable"


@pytest.mark.parametrize("lost", [1, 4, 9, 24, 30, 33, 34, 35])
def test_a_run_that_dies_at_any_file_is_finished_by_the_next(
    builder, detector, crops, tmp_path, monkeypatch, lost
):
    class Death(BaseException):
        pass

    replace, count = os.replace, [0]

    def dying_replace(*arguments):
        count[0] += 1
        if count[0] == lost:
            raise Death
        replace(*arguments)

    monkeypatch.setattr(os, "replace", dying_replace)
    with pytest.raises(Death):
        run(builder, tmp_path, detector)
    monkeypatch.setattr(os, "replace", replace)
    if lost == 9:  # As if the last line had been written in part.
        with open(tmp_path / ".unfinished.jsonl", "ab") as file:
            file.write(b'{"split": "train", "pict')
    run(builder, tmp_path, detector)
    assert tree(tmp_path) == tree(crops)


@pytest.mark.slow  # As of test_export_lists.
def test_a_killed_command_goes_on_and_ends_in_the_same_files(
    builder, data_dir, detector, crops, tmp_path
):
    command = [
        sys.executable,
        __file__,
        f"--data_dir={data_dir}",
        "--batch_size=2",
        "--dataset=labelled_images",
        f"--output={tmp_path}",
        f"--detector={detector}",
    ]
    # This file is what runs, with what stands beside it.
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests/support")))
    environment = {**os.environ, "PYTHONPATH": path, "SECONDS_A_STEP": "0.3"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    journal = tmp_path / ".unfinished.jsonl"
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(BlockingIOError, match="Another run is using"):
        run(builder, tmp_path, detector)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "crops.json").exists()
    run(builder, tmp_path, detector)
    assert tree(tmp_path) == tree(crops)


def test_a_finished_folder_is_left_alone_and_others_refused(
    builder, detector, crops, tmp_path
):
    before = tree(crops)
    # Killed between the last file and the end.
    (crops / ".unfinished.jsonl").write_text('{"settings": {}}\n')
    said = run(builder, crops, detector, batch_size=3)
    assert said == [f"{crops} is finished already."]
    for change in ({"margin": 1.2}, {"score_threshold": 0.6}, {"min_size": 9}):
        (name,) = change
        with pytest.raises(FileExistsError, match=f"other settings: {name} "):
            run(builder, crops, detector, **change)
    assert tree(crops) == before
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        run(builder, tmp_path, detector)
    assert list(tree(tmp_path)) == ["mine.txt"]


def test_small_heads_are_left_out_when_wanted(builder, detector, tmp_path):
    run(builder, tmp_path, detector, min_size=81)  # A quarter is 80 pixels wide.
    assert table(tmp_path / "heads.csv") == []
    reasons = [row["reason"] for row in table(tmp_path / "no_head.csv")]
    assert len(reasons) == 15 and reasons.count("head_too_small") == 13


def test_other_data_sets_are_refused(detector, tmp_path):
    class Unlabeled(LabelledImages, skip_registration=True):
        lacking = ("label", "group")

    class SwappedLabels(LabelledImages, skip_registration=True):
        label_names = ("fake", "real")

    for builder_class, message in (
        (Unlabeled, "holds no labeled images: it has no label, group"),
        (SwappedLabels, "label of swapped_labels must be"),
    ):
        other = prepare(tmp_path, {"train": IMAGES["test"]}, builder_class)
        with pytest.raises(ValueError, match=message):
            run(other, tmp_path / "crops", detector)
    assert not (tmp_path / "crops").exists()


def test_a_mistake_is_told_in_one_line(run_script):
    flags = ("--dataset=absent", "--data_dir=x", "--output=x")
    done = run_script("train/crop_heads.py", *flags, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("crop_heads.py: absent is not prepared in x")


@pytest.mark.slow
def test_default_weights_cut_the_head_of_the_portrait(run_script, tmp_path):
    portrait = files.read(source_files.find_sample())
    prepare(tmp_path / "data", {"train": [("grace hopper.jpg", 0, portrait)]})
    run_script(
        "train/crop_heads.py",
        f"--data_dir={tmp_path / 'data'}",
        "--dataset=labelled_images",
        f"--output={tmp_path / 'crops'}",
    )
    first = table(tmp_path / "crops" / "heads.csv")[0]
    # The face's center, by eye, at 48 % of the width and 32 % of the height.
    assert float(first["ymin"]) < 0.32 < float(first["ymax"])
    assert float(first["xmin"]) < 0.48 < float(first["xmax"])


if __name__ == "__main__":  # The script with the stand-in, slowly.
    model_directory.load_detector = quarters_detector
    append = resumable.Output.append

    def _slow_append(self, step):
        time.sleep(float(os.environ["SECONDS_A_STEP"]))
        append(self, step)

    resumable.Output.append = _slow_append
    runpy.run_path(str(ROOT / "train/crop_heads.py"), run_name="__main__")


def test_beam_cuts_the_same(crops, builder, data_dir, detector, tmp_path):
    pytest.importorskip("apache_beam")
    from dfdetect.corpora import crop_parts, running

    settings = crop_heads.CropSettings.choose(builder, detector=detector, batch_size=2)
    parts = tmp_path / "crops" / ".parts"
    tried = []

    def run_pipeline(build):
        running.run(build, "DirectRunner", ())
        tried.append({path.name: path.stat().st_mtime_ns for path in parts.iterdir()})
        if len(tried) == 1:
            raise RuntimeError("a worker is lost")

    def cut(images_per_part):
        return crop_parts.crop_on_beam(
            str(data_dir),
            "labelled_images",
            str(tmp_path / "crops"),
            settings,
            run=run_pipeline,
            images_per_part=images_per_part,
        )

    with pytest.raises(RuntimeError, match="lost"):
        cut(4)
    lost = "train-000000000-000000004.jsonl"
    (parts / lost).unlink()
    assert cut(2) and not cut(2)
    # What the first attempt has cut is not cut again.
    first, second = tried
    del first[lost]
    assert first.items() <= second.items()
    assert second.keys() - first.keys() == {
        "train-000000000-000000002.jsonl",
        "train-000000002-000000004.jsonl",
    }
    assert tree(tmp_path / "crops") == tree(crops)
