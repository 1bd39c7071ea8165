"""Groups that are held out: shares and folds of the training split."""

import csv
import json

import numpy as np
import pytest

import drawn_heads
from building_support import encoded, write
from dfdetect.data import conditions, detector_input

_GROUPS = [f"g{number}" for number in range(500)]


def test_folds_part_the_groups_and_a_share_is_one():
    folds = [
        conditions.parse_condition(f"group@{i}/5").meets(_GROUPS) for i in range(5)
    ]
    np.testing.assert_array_equal(np.sum(folds, 0), 1)
    sizes = np.sum(folds, 1)
    # A fifth of 500, within four standard deviations.
    assert np.all(abs(sizes - 100) < 36)
    others = conditions.parse_condition("group!@2/5").meets(_GROUPS)
    np.testing.assert_array_equal(others, ~folds[2])
    share = conditions.parse_condition("group@0-14/100").meets(_GROUPS)
    assert abs(share.mean() - 0.15) < 0.06
    # A group never moves, whatever stands beside it.
    assert conditions.parse_condition("group@2/5").meets(_GROUPS[7:8])[0] == folds[2][7]


@pytest.mark.parametrize("text", ["group@5/5", "group@3-2/5", "group!@0/0"])
def test_parts_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=f"as in group@0/5 .*, got '{text}'"):
        conditions.parse_condition(text)


@pytest.fixture(scope="module")
def two_sets(run_script, tmp_path_factory):
    """`labeled_faces/studio` and `labeled_faces/phones`, of 20 groups each."""
    folder = tmp_path_factory.mktemp("two")
    for place, name in enumerate(("studio", "phones")):
        for number in range(20):
            for label in ("real", "fake"):
                seed = 100 * place + 2 * number + (label == "fake")
                path = folder / name / label / f"{name}{number}" / "0.png"
                write(path, encoded(".png", 40, 40, seed))
        # All in one split, as of someone who has made none.
        rows = [
            f"{label}/{name}{number}/0.png,{label},train,{name}{number}"
            for number in range(20)
            for label in ("real", "fake")
        ]
        write(
            folder / name / "labels.csv", "\n".join(["path,label,split,group", *rows])
        )
        run_script(
            "datasets/prepare.py",
            f"--dataset=labeled_faces/{name}",
            f"--manual_dir={folder / name}",
            f"--data_dir={folder / 'data'}",
        )
    return folder / "data"


def _train(run_script, data_dir, model_dir, *more, check=True):
    return run_script(
        "train/classifier.py",
        "--dataset=labeled_faces/studio,labeled_faces/phones",
        f"--data_dir={data_dir}",
        f"--model_dir={model_dir}",
        "--model=mesonet4",
        "--image_size=32",
        "--batch_size=4",
        "--steps=2",
        "--eval_every=1",
        "--projected=0",
        "--explained=0",
        *more,
        check=check,
    )


@pytest.mark.slow
def test_two_sets_are_mixed_and_a_fold_of_both_is_held_out(
    run_script, two_sets, tmp_path
):
    failed = _train(run_script, two_sets, tmp_path / "none", check=False)
    assert failed.returncode == 1
    assert "must have examples in its split validation" in failed.stderr
    _train(run_script, two_sets, tmp_path / "run", "--folds=4", "--fold=1")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["validation_split"] == "train (group@1/4)"
    assert manifest["where"] == ["group!@1/4"]
    figures = manifest["metrics"]["validation"]
    assert {"auc_labeled_faces/studio", "auc_labeled_faces/phones"} <= {*figures}
    lines = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    with open(tmp_path / "run" / "evaluations.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    for line, row in zip(lines, rows, strict=True):
        for name, value in json.loads(line).items():
            assert float(row[name]) == pytest.approx(value, nan_ok=True)
    changed = _train(
        run_script,
        two_sets,
        tmp_path / "run",
        "--folds=4",
        "--fold=2",
        "--steps=3",
        check=False,
    )
    assert changed.returncode == 2
    assert "--fold=2 now, --fold=1 before" in changed.stderr
    # The fold can be measured afterwards, as it was chosen.
    output = tmp_path / "measured.json"
    run_script(
        "train/evaluate.py",
        "--task=classify",
        f"--model_dir={tmp_path / 'run'}",
        f"--data_dir={two_sets}",
        "--dataset=labeled_faces/studio",
        "--split=train",
        "--where=group@1/4",
        "--resamples=10",
        f"--output={output}",
    )
    measured = json.loads(output.read_text())
    wanted = conditions.parse_condition("group@1/4").meets(
        [f"studio{i}" for i in range(20)]
    )
    assert measured["num_groups"] == wanted.sum()
    assert any("SEEN BEFORE" in text for text in measured["warnings"])


@pytest.mark.slow  # Half a minute: prepares two sets, and trains.
def test_a_share_of_the_groups_is_held_out(run_script, two_sets, tmp_path):
    _train(run_script, two_sets, tmp_path / "run", "--validation_share=0.3")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["validation_split"] == "train (group@0-29/100)"
    for flags in (("--folds=4",), ("--folds=4", "--fold=4"), ("--fold=0",)):
        failed = _train(run_script, two_sets, tmp_path / "no", *flags, check=False)
        assert failed.returncode == 2
        assert "--folds needs --fold below it" in failed.stderr


def test_images_of_held_out_groups_are_validated_on(tmp_path):
    builder = drawn_heads.prepare(tmp_path, "drawn_1", train=12)
    wanted = conditions.parse_condition("group@0/2").meets(
        [f"train{i}.png" for i in range(12)]
    )
    assert 0 < wanted.sum() < 12
    batches = detector_input.build_evaluation_batches(
        builder,
        "train",
        image_size=128,
        batch_size=2,
        where=[conditions.parse_condition("group@0/2")],
    )
    assert sum(len(batch["images"]) for batch in batches) == wanted.sum()


@pytest.mark.slow  # Most of a minute: the graph of a detector.
def test_a_detector_holds_out_groups_as_well(run_script, tmp_path):
    drawn_heads.prepare(tmp_path / "data", "drawn_1", train=12)
    run_script(
        "train/detector.py",
        "--dataset=drawn_heads/drawn_1",
        f"--data_dir={tmp_path / 'data'}",
        f"--model_dir={tmp_path / 'run'}",
        "--image_size=128",
        "--batch_size=2",
        "--steps=1",
        "--eval_every=1",
        "--folds=2",
        "--fold=0",
        "--log_every=1",
    )
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["validation_split"] == "train (group@0/2)"
    assert "ap" in manifest["metrics"]["validation"]
