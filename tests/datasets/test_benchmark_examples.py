"""`datasets/benchmark_examples.py` on drawn clips."""

import re

import pytest

from building_support import clip

_SCRIPT = "datasets/benchmark_examples.py"


@pytest.mark.slow  # Half a minute on a busy machine.
def test_every_origin_is_measured_and_mixing_is_simulated(tmp_path, run_script):
    for name in ("one", "two"):
        clip(tmp_path / f"{name}.mp4", 40)
    flags = (f"--clips={tmp_path}", "--frames_per_video=4", "--repeats=1")
    _, origins, mixing = run_script(_SCRIPT, *flags).stdout.split("\n\n| ")
    rows = re.findall(r"\| (.+) \| ([\d.]+) \| ([\d,]+) \|", origins)
    kept, clips = rows[:3], rows[3:]
    assert [name.split(",")[0] for name, *_ in kept] == ["heads", "frames", "frames"]
    assert len(clips) == 4 and all(name.startswith("clips, ") for name, *_ in clips)
    assert len({size for *_, size in clips}) == 1  # The clips' own.
    # One frame of a clip at a time: all differ, but for a few by chance.
    mixed = [float(x) for x in re.findall(r"\| ([\d.]+) \|$", mixing, re.MULTILINE)]
    assert len(mixed) == 5 and mixed[0] > 31 and mixed[1] > mixed[2] > mixed[4] > 1


def test_a_folder_without_clips_is_told(tmp_path, run_script):
    done = run_script(_SCRIPT, f"--clips={tmp_path}", check=False)
    assert done.returncode == 2 and f"no .mp4 in {tmp_path}" in done.stderr
