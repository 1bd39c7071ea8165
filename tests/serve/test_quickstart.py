"""`serve/quickstart.sh` as a user runs it, in an environment that is ready."""

import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

import cv2
import pytest

from dfdetect.media import source_files
from dfdetect.models import model_directory
from dfdetect.pipeline import result_formats

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path):
    """A virtual environment in which this checkout is installed, as pip leaves it."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    python = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} "
    command = "import sys; from dfdetect.cli import main; sys.exit(main.main())"
    for name, arguments in (("python", ""), ("dfdetect", f"-c {command!r} ")):
        (folder / "bin" / name).write_text(f'{python}{arguments}"$@"\n')
        (folder / "bin" / name).chmod(0o755)
    # What .ci/environment.sh notes once it has installed.
    setup = hashlib.sha256((ROOT / "setup.py").read_bytes()).hexdigest()
    state = f"{setup} {sys.version.split()[0]} {ROOT}\n"
    (folder / ".dfdetect").write_text(state)
    return folder


def _run(environment, folder, *arguments):
    return subprocess.run(
        ["bash", ROOT / "serve" / "quickstart.sh", *arguments],
        cwd=folder,
        env={**os.environ, "VIRTUAL_ENV": str(environment), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_it_judges_the_portrait_and_leaves_a_copy(environment, tmp_path):
    for part in ("detector", "classifier"):
        if not os.path.isdir(os.path.join(model_directory.DEFAULT_WEIGHTS, part)):
            pytest.skip(f"no default weights of the {part} yet")
    folder = tmp_path / "here"
    # What is there already stays as it is.
    (folder / "dfdetect_quickstart").mkdir(parents=True)
    mine = folder / "dfdetect_quickstart" / "grace_hopper.jpg"
    mine.write_text("mine")
    done = _run(environment, folder)
    assert done.returncode == 0, done.stderr
    (result,) = map(json.loads, done.stdout.splitlines())
    assert result["path"] == source_files.find_sample()
    copy = os.path.join("dfdetect_quickstart-2", "grace_hopper.jpg")
    sentence = done.stderr.splitlines()[-1]
    assert sentence == (
        f"dfdetect: {source_files.find_sample()!r}: "
        f"{result_formats.describe_image(result)}; "
        f"the copy to look at is {copy!r}"
    )
    assert cv2.imread(str(folder / copy)).shape == (600, 512, 3)
    assert mine.read_text() == "mine"
    assert sorted(os.listdir(folder)) == [
        "dfdetect_quickstart",
        "dfdetect_quickstart-2",
    ]


def test_arguments_and_exit_code_are_those_of_detect(environment, tmp_path):
    done = _run(environment, tmp_path, "x.jpg", "--crops", "--tile")
    assert done.returncode == 2 and done.stdout == ""
    assert "--crops does not go with --tile" in done.stderr
    assert not (tmp_path / "dfdetect_quickstart").exists()
