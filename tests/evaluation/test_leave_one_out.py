"""Makers left out of training, as a user leaves them out."""

import json

import pytest

from dfdetect import manifest
from sourced_faces import face, prepare

RECIPE = """
--model=lightxception
--image_size=71
--batch_size=4
--steps=1
--eval_every=1
--sampling=balanced
--sample_by=source
--augmentation=makers
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    rows = {
        split: [
            face(f"{split}{source}{i}", label, source, (0.1, 0.2, 0.9, 0.7))
            for source, label in (("lab", 1), ("works", 1), ("street", 0), ("shop", 0))
            for i in range(3)
        ]
        for split in ("train", "validation")
    }
    prepare(folder, rows)
    return folder


@pytest.mark.slow  # Two trainings.
def test_a_run_without_each_maker_is_trained_and_measured(run_script, faces, tmp_path):
    recipe = tmp_path / "short.flags"
    recipe.write_text(RECIPE)
    output = tmp_path / "measured"
    done = run_script(
        "train/evaluate.py",
        "--task=classify",
        "--leave_out=source",
        "--json",
        f"--recipe={recipe}",
        f"--data_dir={faces}",
        "--dataset=sourced_faces",
        "--split=validation",
        "--resamples=10",
        f"--output={output}",
    )
    found = json.loads(done.stdout)["leave_one_out"]
    runs = [str(output / f"without_{maker}") for maker in ("lab", "works")]
    assert found["left_out"] == {runs[0]: ["lab"], runs[1]: ["works"]}
    unseen = [(row["model"], row["maker"]) for row in found["unseen"]["rows"]]
    assert unseen == [(runs[0], "lab"), (runs[1], "works")]
    seen = [(row["model"], row["maker"]) for row in found["seen"]["rows"]]
    assert seen == [(runs[0], "works"), (runs[1], "lab")]
    assert set(found["unseen"]["rows"][0]["against"]) == {"street", "shop"}
    assert "mean of the least, unseen: " in done.stderr
    assert "Leave one source out" in (output / "report.md").read_text()
    described = manifest.read(runs[0], "classifier")
    assert described["where"] == ["source!=lab"]
    assert described["origins"]["source"] == {
        "fake": ["works"],
        "real": ["shop", "street"],
    }
    # The same figures from the given runs.
    again = run_script(
        "train/evaluate.py",
        "--task=classify",
        "--leave_out=source",
        "--json",
        f"--model_dir={','.join(runs)}",
        f"--data_dir={faces}",
        "--dataset=sourced_faces",
        "--split=validation",
        "--resamples=10",
    )
    assert json.loads(again.stdout)["leave_one_out"] == found


def test_sets_are_checked_before_a_training(run_script, faces, tmp_path):
    done = run_script(
        "train/evaluate.py",
        "--task=classify",
        "--leave_out=source",
        f"--recipe={tmp_path / 'not_there.flags'}",
        f"--data_dir={faces}",
        "--dataset=sourced_faces",
        "--split=nowhere",
        f"--output={tmp_path / 'measured'}",
        check=False,
    )
    assert done.returncode == 1 and "training without" not in done.stderr
    assert "split must be one of" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "script, options, message",
    [
        ("classifier", ("--sample_by=source", "--dataset_weights=1"), "excludes"),
        ("classifier", ("--sample_by=source", "--sampling=pairs"), "excludes"),
        ("classifier", ("--where=source!=labb",), "lab, shop, street, works), got 'la"),
        ("classifier", ("--where=source",), "where must be FIELD=VALUE"),
        ("evaluate", ("--task=chain", "--leave_out=source"), "--task=classify"),
        ("evaluate", ("--task=classify", "--recipe=x"), "--recipe needs --leave_out"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    run_script, faces, tmp_path, script, options, message
):
    if script == "classifier":
        options = (*options, f"--model_dir={tmp_path / 'run'}", "--model=mesonet4")
    done = run_script(
        f"train/{script}.py",
        f"--data_dir={faces}",
        "--dataset=sourced_faces",
        *options,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert message in done.stderr.strip().splitlines()[-1]
