"""Files and lists of a data set, read back."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from dfdetect.data import export_lists
from labelled_images import prepare, tree

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _encoded(ending, seed):
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.imencode(ending, image)[1].tobytes()


IMAGES = {
    "train": [
        ("real/with spaces 0.png", 0, _encoded(".jpg", 1)),
        ("fake/with spaces 0.png", 1, _encoded(".png", 2)),
        ("line\nbreak\u2028 1\r.bmp", 1, _encoded(".bmp", 3)),
        ("../../up", 0, _encoded(".webp", 4)),
        ("größe 人.jpg", 1, _encoded(".jpg", 5)),
        *((f"more {i}.png", 1, _encoded(".png", 10 + i)) for i in range(20)),
        *((f"real {i}.png", 0, _encoded(".png", 40 + i)) for i in range(5)),
    ],
    "validation": [
        ("v 0.png", 0, _encoded(".png", 6)),
        ("v 1.png", 1, _encoded(".png", 7)),
    ],
    "test": [
        ("t 0.png", 0, _encoded(".png", 8)),
        ("t 1.png", 1, _encoded(".png", 9)),
    ],
}


def run(builder, output, **arguments):
    said = []
    export_lists.export_dataset(builder, str(output), say=said.append, **arguments)
    return said


def entries(folder, name):
    """Path and label of each line, as tools read them: the label comes last."""
    text = (folder / name).read_text(encoding="utf-8")
    assert not text or text.endswith("\n")
    return [tuple(line.rsplit(" ", 1)) for line in text.splitlines()]


def contents(folder, name):
    """Label of each listed image, by its bytes."""
    return {
        (folder / path).read_bytes(): label for path, label in entries(folder, name)
    }


def test_lists_lead_to_every_image_unchanged(builder, tmp_path):
    run(builder, tmp_path)
    for name, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        assert contents(tmp_path, f"{name}.txt") == {
            image_bytes: str(label) for _, label, image_bytes in IMAGES[split]
        }
    paths = [path for path, _ in entries(tmp_path, "train.txt")]
    assert len(paths) == 30 and not any(".." in path.split("/") for path in paths)
    by_name = {path.rsplit("/", 1)[1].split("_", 1)[1] for path in paths}
    assert by_name >= {
        "real_with spaces 0.jpeg",
        "fake_with spaces 0.png",
        "line_break_ 1_.bmp",
        ".._.._up.webp",
        "größe 人.jpeg",
    }


def test_each_image_has_a_text_file_with_its_label(builder, tmp_path):
    run(builder, tmp_path)
    labels = set()
    for name in ("train.txt", "val.txt", "test.txt"):
        for path, label in entries(tmp_path, name):
            path = os.path.splitext(path.replace("images/", "labels/", 1))[0] + ".txt"
            labels.add(path)
            assert (tmp_path / path).read_text() == f"{label}\n"
    assert labels == {path for path in tree(tmp_path) if path.startswith("labels/")}
    summary = json.loads((tmp_path / "lists.json").read_text())
    assert summary["counts"]["train"] == {"real": 7, "fake": 23}
    assert summary["settings"]["dataset"]["fingerprint"] == "of the images"


def test_balanced_thins_the_larger_class_by_the_seed(builder, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(builder, tmp_path / name, balanced=True, seed=seed)
    chosen = {name: contents(tmp_path / name, "train.txt") for name in "abc"}
    for picked in chosen.values():
        assert sorted(picked.values()) == ["0"] * 7 + ["1"] * 7
    assert chosen["a"] == chosen["b"] != chosen["c"]
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    # The lists of three splits, labels.csv and lists.json besides.
    assert len(tree(tmp_path / "a")) == 2 * (14 + 2 + 2) + 5


def test_balanced_does_not_depend_on_what_else_is_there(builder, tmp_path):
    """Other real images and another place leave the order of the fakes alone."""
    run(builder, tmp_path / "before", balanced=True)
    added = ("an eighth.png", 0, _encoded(".png", 99))
    images = {"train": [added, *reversed(IMAGES["train"])]}
    run(prepare(tmp_path / "data", images), tmp_path / "after", balanced=True)
    before, after = (
        {
            image
            for image, label in contents(tmp_path / name, "train.txt").items()
            if label == "1"
        }
        for name in ("before", "after")
    )
    assert before < after and len(after) == 8


def test_a_split_of_one_class_cannot_be_balanced(tmp_path):
    builder = prepare(tmp_path / "data", {"test": [IMAGES["test"][0]]})
    with pytest.raises(ValueError, match="test cannot be balanced: it has no fake"):
        run(builder, tmp_path / "lists", balanced=True)


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_in_the_same_files(
    builder, data_dir, tmp_path
):
    run(builder, tmp_path / "whole")
    output = tmp_path / "killed"
    flags = (f"--data_dir={data_dir}", "--dataset=labelled_images")
    script = ROOT / "datasets/export_lists.py"
    # Each file takes its time, so that it is killed in the middle.
    slow = f"""import os, runpy, sys, time
replace = os.replace
os.replace = lambda *paths: (time.sleep(0.1), replace(*paths))
sys.argv = {[str(script), *flags, f"--output={output}"]!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", slow],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while len(list(output.glob("images/train/*/*"))) < 7:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(output.glob("*.txt")), "lists come last"
    run(builder, output)
    assert tree(output) == tree(tmp_path / "whole")
    assert run(builder, output) == [f"{output} is finished already."]


def test_a_damaged_data_set_is_told(tmp_path):
    builder = prepare(tmp_path, {"train": IMAGES["train"]})
    (records,) = pathlib.Path(builder.data_dir).glob("*.tfrecord*")
    content = records.read_bytes()
    records.write_bytes(content[:900] + b"damaged" + content[907:])
    with pytest.raises(
        ValueError, match=r"train\.tfrecord.* of .* is damaged .*; prepare"
    ):
        run(builder, tmp_path / "lists")


def test_folders_in_use_are_refused(builder, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files"):
        run(builder, tmp_path)
    run(builder, tmp_path / "lists", balanced=True)
    with pytest.raises(FileExistsError, match=r"seed \(there 0, here 1\)"):
        run(builder, tmp_path / "lists", balanced=True, seed=1)


def test_a_usage_error_is_told_in_one_line(run_script):
    done = run_script("datasets/export_lists.py", "--dataset=x", check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("export_lists.py: ") and "--data_dir" in line
