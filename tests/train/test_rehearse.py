"""The rehearsal of a full-size set, with few clips."""

import re

import pytest


@pytest.mark.slow
def test_the_whole_way_from_drawn_clips_to_figures(run_script, tmp_path):
    done = run_script(
        "train/rehearse.py",
        f"--work_dir={tmp_path / 'work'}",
        "--clips=30",
        "--frames_per_video=4",
        "--steps=2",
    )
    assert "30 clips of 64 px, 4 frames of each" in done.stdout
    for step in ("prepare, threads", "audit", "train 2 steps and validate", "evaluate"):
        assert re.search(rf"\| {step} \| \d+ \| \d+ \| \d+ \|", done.stdout), step
    again = run_script(
        "train/rehearse.py", f"--work_dir={tmp_path / 'work'}", check=False
    )
    assert again.returncode == 2 and "must be empty" in again.stderr
