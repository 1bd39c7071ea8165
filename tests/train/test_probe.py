"""Inputs and backbones compared by linear probes, as a user compares them."""

import json

import cv2
import numpy as np
import pytest

from dfdetect.models import model_directory
from sourced_faces import face, prepare


def _draw(random, is_fake):
    """A blurred head; fakes have noise whose power is in the highest frequencies."""
    image = cv2.GaussianBlur(random.normal(0, 60, (64, 64, 3)), (0, 0), 3) * 3 + 120
    if is_fake:
        image += 60 * (-1.0) ** np.add.outer(np.arange(64), np.arange(64))[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    random = np.random.default_rng(0)
    rows = {
        split: [
            face(f"{split}{source}{i}", label, source, image=_draw(random, label))
            for source, label in (("lab", 1), ("works", 1), ("street", 0), ("shop", 0))
            for i in range(6)
        ]
        for split in ("train", "validation")
    }
    folder = tmp_path_factory.mktemp("faces")
    prepare(folder, rows)
    return folder


def test_a_table_and_all_figures_are_left(run_script, faces, tmp_path):
    done = run_script(
        "train/probe.py",
        f"--data_dir={faces}",
        "--dataset=sourced_faces",
        "--features=spectrum,residual+spectrum",
        "--image_size=64",
        "--self_blended=0,.4",
        "--crops=64",
        "--least_crops=6",
        "--resamples=5",
        "--altering_makers=lab",
        f"--output={tmp_path / 'probes.json'}",
    )
    lines = done.stdout.splitlines()
    found = json.loads((tmp_path / "probes.json").read_text())
    names = [
        f"{features}, 64, {share} blended{kinds}"
        for features in ("spectrum", "residual+spectrum")
        for share in ("0", "0.4")
        for kinds in ("", ", two logits")
    ]
    assert [row["name"] for row in found["rows"]] == names
    assert [line.split(" | ")[0] for line in lines[2:10]] == [f"| {x}" for x in names]
    first = found["rows"][0]
    for measured in (first["stored"], first["altered"]):
        assert [one["maker"] for one in measured["rows"]] == ["lab", "works"]
        assert measured["mean_least"] > 0.9 and measured["difference"] == 0
        assert set(measured["rows"][0]["against"]) == {"street", "shop"}
    assert found["flags"]["altering_makers"] == ["lab"]
    assert found["flags"]["crops"] == 64 and found["split"] == "validation"


@pytest.mark.slow  # Two networks.
def test_networks_and_sizes_are_rows(run_script, faces, tmp_path):
    run_script(
        "train/probe.py",
        f"--data_dir={faces}",
        "--dataset=sourced_faces",
        "--snapshot=default,none",
        "--features=spectrum,stages",
        "--image_size=32,64",
        "--crops=64",
        "--most_crops=6",
        "--least_crops=6",
        "--resamples=5",
        f"--output={tmp_path / 'probes.json'}",
    )
    found = json.loads((tmp_path / "probes.json").read_text())
    assert [row["name"] for row in found["rows"]] == [
        "default stages, 32",
        "spectrum, 32",
        "default stages, 64",
        "spectrum, 64",
        "efficientnet_lite0 stages, 32",
        "efficientnet_lite0 stages, 64",
    ]
    # The drawn makers are none of those that the default weights have seen.
    makers = [one for row in found["rows"] for one in row["stored"]["rows"]]
    assert not any(one["seen"] for one in makers)
    assert model_directory.load_classifier()[1]["origins"]["source"]["fake"]


@pytest.mark.slow  # Each is a process.
@pytest.mark.parametrize(
    "flag,message",
    [
        ("--image_size=64,big", "--image_size must be numbers from 32 to 1024"),
        ("--self_blended=1.5", "--self_blended must be numbers from 0 to 1"),
        ("--features=stages", "--snapshot must name weights of each of --model"),
        ("--features=color", "must be some of stages"),
        ("--split=train", "must not be train"),
    ],
)
def test_flags_are_checked(run_script, faces, flag, message):
    done = run_script(
        "train/probe.py",
        f"--data_dir={faces}",
        "--dataset=sourced_faces",
        "--features=spectrum",
        flag,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
