"""Checkpoints that are damaged, half written, or have no room."""

import collections
import json
import os
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from dfdetect.models import kept_steps
from dfdetect.training import checkpoints

ARRAYS = {"model/a": np.arange(600, dtype=np.float32), "model/b": np.ones((), np.int64)}
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


def _three(folder):
    saved = checkpoints.Checkpoints(str(folder), keep=3)
    for step in (10, 20, 30):
        saved.save(step, {**ARRAYS, "model/b": np.array(step)})
        saved.wait()
    return saved


def _cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "ending, spoil",
    [
        (".data-00000-of-00001", lambda path: _cut(path, 1000)),
        (".data-00000-of-00001", lambda path: _cut(path, 0)),
        (".data-00000-of-00001", lambda path: _flip(path, 500)),
        (".data-00000-of-00001", os.remove),
        (".index", lambda path: _cut(path, 40)),
        (".index", lambda path: _cut(path, 0)),
        (".index", lambda path: _flip(path, 20)),
    ],
)
def test_a_damaged_newest_one_is_passed_over(tmp_path, caplog, ending, spoil):
    saved = _three(tmp_path)
    spoil(tmp_path / f"step_00000030{ending}")
    step, arrays = saved.restore(SHAPES)
    assert step == 20 and arrays["model/b"] == 20
    np.testing.assert_array_equal(arrays["model/a"], ARRAYS["model/a"])
    assert f"{tmp_path}/step_00000030 is damaged: " in caplog.text
    assert "Continues from step 20 instead" in caplog.text
    # It no longer counts, so that the sound ones are not removed in its favor.
    assert saved.steps() == [10, 20]
    saved.save(30, ARRAYS)
    saved.wait()
    assert saved.restore(SHAPES)[0] == 30


def test_where_all_are_damaged_the_folder_is_named(tmp_path):
    saved = _three(tmp_path)
    for path in tmp_path.glob("*.data*"):
        _cut(path, 100)
    message = f"No checkpoint in {tmp_path} can be read: .*step_00000030 is damaged"
    with pytest.raises(ValueError, match=message) as raised:
        saved.restore(SHAPES)
    assert "\n" not in str(raised.value)


def test_what_a_killed_save_left_is_removed(tmp_path, caplog):
    saved = _three(tmp_path)
    whole = {path.name for path in tmp_path.iterdir()}
    for name in (
        "step_00000040.data-00000-of-00001.tempstate1234",
        "step_00000030.index.tempstate77",
        "step_00000040.data-00000-of-00001",
    ):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert saved.restore(SHAPES)[0] == 30
    assert {path.name for path in tmp_path.iterdir()} == whole | {"notes.txt"}
    assert "step_00000040.data-00000-of-00001 has no index" in caplog.text


def test_a_full_disk_is_told_before_the_write(tmp_path, monkeypatch):
    saved = _three(tmp_path)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 100))
    with pytest.raises(OSError, match="takes 0.0 MB, 0.0 MB are free. Step 30 is kept"):
        saved.save(40, ARRAYS)
    assert saved.steps() == [10, 20, 30]


def test_a_write_that_the_system_breaks_off_is_told_in_one_line(tmp_path):
    saved = _three(tmp_path)
    whole = {path.name for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        saved.save(40, ARRAYS)
        with pytest.raises(
            OSError, match="File too large.*. Step 30 is kept"
        ) as raised:
            saved.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == whole
    saved.save(40, ARRAYS)
    saved.wait()
    assert saved.restore(SHAPES)[0] == 40


# On a disk of three pages: the first checkpoint takes two, the data of the second the
# third, which leaves none for its index.
_FILL_A_DISK = """
import sys
import numpy as np
from dfdetect.training import checkpoints
saved = checkpoints.Checkpoints(sys.argv[1], keep=3)
for step in (10, 20):
    saved.save(step, {"model/a": np.arange(600, dtype=np.float32)})
    try:
        saved.wait()
    except OSError as error:
        print(type(error.__cause__).__name__, saved.steps(), error, sep="\t")
"""
_ON_A_SMALL_DISK = (
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    'mount -t tmpfs -o size=12k none "$0" && exec "$@"',
)


@pytest.mark.slow
def test_a_disk_that_fills_during_the_write_is_told_in_one_line(tmp_path):
    small = [*_ON_A_SMALL_DISK, tmp_path]
    try:
        subprocess.run([*small, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a process may not have a disk of its own")
    done = subprocess.run(
        [*small, sys.executable, "-c", _FILL_A_DISK, tmp_path],
        check=True,
        capture_output=True,
        text=True,
    )
    (line,) = done.stdout.splitlines()
    kind, steps, message = line.split("\t")
    assert kind == "ResourceExhaustedError" and steps == "[10]"
    assert "No space left on device" in message and "Step 10 is kept" in message


def test_a_write_that_fails_is_told_at_the_next_step(tmp_path):
    saved = _three(tmp_path)
    # Where TensorFlow renames to, a folder stands in the way.
    (tmp_path / "step_00000040.index" / "x").mkdir(parents=True)
    saved.save(40, ARRAYS)
    until = time.monotonic() + 30
    with pytest.raises(OSError, match=f"cannot be written to {tmp_path}: "):
        while time.monotonic() < until:
            saved.check()
    saved.check()  # Once is enough.


def test_manifests_lie_beside_their_steps_and_go_with_them(tmp_path):
    saved = checkpoints.Checkpoints(str(tmp_path), keep=1)
    for step in (1, 2):
        saved.describe(step, {"step": step})
        saved.save(step, ARRAYS)
        saved.wait()
    (found,) = tmp_path.glob("*.json")
    assert found.name == "step_00000002.json" and json.loads(found.read_text())


def test_averages_are_the_weights_where_there_are_some(tmp_path):
    saved = checkpoints.Checkpoints(str(tmp_path / kept_steps.FOLDER), keep=1)
    saved.save(7, {**ARRAYS, "average/a": np.zeros(3), "optimizer/mean/a": np.ones(3)})
    saved.wait()
    found = kept_steps.read_weights(kept_steps.find(str(tmp_path), 7))
    assert list(found) == ["a"] and not found["a"].any()
    with pytest.raises(FileNotFoundError, match=r"keeps \(7\), got 8"):
        kept_steps.find(str(tmp_path), 8)
