"""`datasets/prepare.py` as a user runs it."""

import os
import signal
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

from building_support import (
    ROOT,
    draw_deepfake_challenge,
    draw_faceforensics,
    encoded,
    faces,
    records,
    write,
)

_SCRIPT = "datasets/prepare.py"
_WORKERS = (
    "--beam_runner=DirectRunner",
    "--beam_options=direct_running_mode=multi_processing,direct_num_workers=2",
)


def _flags(dataset, tmp_path, data="data"):
    return (
        f"--dataset={dataset}",
        f"--manual_dir={tmp_path / 'manual'}",
        f"--data_dir={tmp_path / data}",
    )


def test_prepare(tmp_path, run_script):
    root = tmp_path / "manual"
    faces(root, ["a.png,real,train,x", "b.png,fake,train,x"])
    flags = _flags("labeled_faces", tmp_path)
    assert "train: 2 images, 1 fake, 1 n_groups, 1 real" in (
        run_script(_SCRIPT, *flags).stdout
    )
    prepared = tfds.builder("labeled_faces", data_dir=tmp_path / "data")
    assert sorted(records(prepared, "train")) == ["a.png", "b.png"]
    faces(root, ["a.png,real,train,x"])
    again = run_script(_SCRIPT, *flags).stdout
    assert "Prepared already" in again and "train: 2 images" in again
    other = run_script(_SCRIPT, *flags, "--leaky_random_split", check=False)
    assert other.returncode == 1
    assert "was prepared with {'leaky_random_split': False}, not" in other.stderr
    anew = run_script(_SCRIPT, *flags, "--overwrite").stdout
    counted = "1 n_groups, 1 passed_over/PNG without a label, 1 real\n"
    assert f"train: 1 images, {counted}" in anew
    # A wrong source file does not cost what is prepared.
    faces(root, ["a.png,genuine,train,x"])
    wrong = run_script(_SCRIPT, *flags, "--overwrite", check=False)
    assert wrong.returncode == 1 and "label must be" in wrong.stderr
    kept = tfds.builder("labeled_faces", data_dir=tmp_path / "data")
    assert list(records(kept, "train")) == ["a.png"]
    kept.data_path.rename(kept.data_path.with_name(f".{kept.data_path.name}.old"))
    back = run_script(_SCRIPT, *flags)
    assert "putting back" in back.stderr and "train: 1 images" in back.stdout


def test_of_many_skipped_files_it_is_told_how_many_are_not_listed(tmp_path, run_script):
    root = tmp_path / "manual"
    write(root / "train/real/x/good.png", encoded(".png", 4, 4))
    for number in range(103):
        write(root / f"train/real/x/{number:03d}.png", b"")
    shown = run_script(_SCRIPT, *_flags("labeled_faces", tmp_path)).stdout.splitlines()
    skipped = [line for line in shown if line.startswith("  skipped in train: ")]
    assert len(skipped) == 101 and "train/real/x/099.png: no image" in skipped[99]
    assert skipped[100] == "  skipped in train: 3 more, which are not listed"


@pytest.mark.slow
def test_prepare_says_what_is_wrong_in_one_line(tmp_path, run_script):
    root = tmp_path / "manual"
    faces(root, ["a.png,genuine,train,x"])
    data_dir = f"--data_dir={tmp_path / 'data'}"
    given = (data_dir, f"--manual_dir={root}")
    lines = f"{root / 'labels.csv'}:2: label must be"
    for code, arguments, message in (
        (1, ("--dataset=labeled_faces", *given), lines),
        (2, ("--dataset=labeled_faces", data_dir), "--manual_dir must have a value"),
        (2, ("--dataset=beans", *given, "x"), "unknown arguments: x"),
        (2, ("--dataset=beans", *given), "must be one of cvcs, deepfake_challenge"),
        (2, ("--dataset=faceforensics", *given), "needs a config: faceforensics/raw"),
        (
            2,
            ("--dataset=labeled_faces", *given, "--frame_stride=2"),
            "--frame_stride does not apply to labeled_faces",
        ),
        (
            2,
            ("--dataset=faceforensics/c23", *given, "--frames_per_video=0"),
            "frames_per_video must be above 0",
        ),
    ):
        wrong = run_script(_SCRIPT, *arguments, check=False)
        last = wrong.stderr.splitlines()[-1]
        assert last.startswith("prepare.py: ") and message in last, arguments
        assert wrong.returncode == code, arguments
        assert "Traceback" not in wrong.stderr


def test_a_partial_download_is_told_and_strict_stops_at_damage(tmp_path, run_script):
    draw_faceforensics(tmp_path / "manual")
    flags = (*_flags("faceforensics/c23", tmp_path), "--frames_per_video=2")
    strict = run_script(_SCRIPT, *flags, "--strict", check=False)
    assert strict.returncode == 1
    assert "Deepfakes/071_054 (1).mp4: not a name" in strict.stderr.splitlines()[-1]
    assert not (tmp_path / "data/faceforensics/c23/1.0.0").exists()
    done = run_script(_SCRIPT, *flags)
    told = next(line for line in done.stderr.splitlines() if "missing:" in line)
    assert "youtube 4 of 1,000" in told and "DeepFakeDetection 2 of 3,068" in told
    assert "missing: Face2Face, NeuralTextures. Wanted: original_sequences/" in told
    assert "skipped in train: youtube/054.mp4: cut short" in done.stdout
    assert "2 method/DeepFakeDetection" in done.stdout


@pytest.mark.slow
def test_a_terminated_build_leaves_nothing(tmp_path):
    root = tmp_path / "manual"
    write(root / "0-FFHQ/a.png", encoded(".png", 8, 8))
    # Nobody writes into this pipe: the build waits for its bytes.
    os.mkfifo(root / "0-FFHQ/b.png")
    process = subprocess.Popen(
        [sys.executable, _SCRIPT, *_flags("deepfake_challenge", tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "data" / "deepfake_challenge"
    while not list(folder.glob("*incomplete*/*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert "interrupted" in process.stderr.read()
    assert not [path for path in folder.rglob("*") if path.is_file()]


def _by_split(tmp_path, data):
    builder = tfds.builder("faceforensics/c23", data_dir=tmp_path / data)
    found = {split: records(builder, split) for split in builder.info.splits}
    return found, dict(builder.info.metadata)


@pytest.mark.slow
@pytest.mark.parametrize(
    "beam",
    [
        ("--beam_runner=DirectRunner", "--beam_options=direct_running_mode=in_memory"),
        pytest.param(_WORKERS, marks=pytest.mark.slow),
    ],
)
def test_beam_makes_the_same_records(tmp_path, run_script, beam):
    draw_faceforensics(tmp_path / "manual")
    name, frames = "faceforensics/c23", "--frames_per_video=3"
    run_script(_SCRIPT, *_flags(name, tmp_path), frames)
    run_script(_SCRIPT, *_flags(name, tmp_path, "beam"), frames, *beam)
    (threads, told), (beams, beam_told) = (
        _by_split(tmp_path, data) for data in ("data", "beam")
    )
    assert told == beam_told
    assert {split: len(found) for split, found in threads.items()} == {
        "train": 12,
        "validation": 6,
        "test": 6,
    }
    for split, found in threads.items():
        assert beams[split] == found
    assert not list((tmp_path / "beam").rglob("accounts-*"))


@pytest.mark.slow
def test_beam_workers_read_prepared_sets_alike(tmp_path, run_script):
    draw_deepfake_challenge(tmp_path / "manual")
    run_script(_SCRIPT, *_flags("deepfake_challenge", tmp_path))
    for data, more in (("threads", ()), ("beam", _WORKERS)):
        run_script(
            _SCRIPT,
            "--dataset=cvcs/full",
            f"--manual_dir={tmp_path / 'data'}",
            f"--data_dir={tmp_path / data}",
            *more,
        )
    threads, beam = (
        tfds.builder("cvcs/full", data_dir=tmp_path / data)
        for data in ("threads", "beam")
    )
    assert dict(beam.info.metadata) == dict(threads.info.metadata)
    for split in threads.info.splits:
        assert records(beam, split) == records(threads, split)
