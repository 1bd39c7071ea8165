"""What can be known of data at the start of a training is told at the start."""

import pytest
import tensorflow as tf

import clips
from dfdetect.data import conditions, split_leaks
from dfdetect.data import prepared as prepared_sets
from dfdetect.training import run_checks, run_record


@pytest.fixture(name="builder", scope="module")
def _builder(prepared):
    return prepared_sets.open_builder(str(prepared), "labeled_faces")


def check(builder, folder, batch_size=1, step=0):
    record = run_record.RunRecord(str(folder), step)
    told = []
    run_checks.check_data(
        tf.distribute.get_strategy(),
        record,
        builders=[builder],
        batch_size=batch_size,
        say=told.append,
    )
    return record, told


def test_a_batch_above_the_training_split_is_told(builder, tmp_path):
    number = builder.info.splits["train"].num_examples
    assert check(builder, tmp_path, batch_size=number)[1] == []
    _, (line,) = check(builder, tmp_path, batch_size=number + 1)
    assert line.startswith(f"--batch_size={number + 1} is above the {number} examples")


def test_a_run_whose_data_are_unknown_says_so_and_keeps_them(builder, tmp_path):
    record, (line,) = check(builder, tmp_path, step=3)
    assert "data.json is missing" in line and "step 3" in line
    record.write()
    assert check(builder, tmp_path, step=3)[1] == []
    (tmp_path / "data.json").write_text(
        (tmp_path / "data.json")
        .read_text()
        .replace('fingerprint": "', 'fingerprint": "0')
    )
    with pytest.raises(ValueError, match="another run"):
        check(builder, tmp_path, step=3)


def test_a_split_without_examples_is_refused(builder):
    run_checks.check_split([builder], "train")
    with pytest.raises(ValueError, match="calibration"):
        run_checks.check_split([builder], "calibration")


def check_leaks(builder, split="validation", **options):
    told = []
    run_checks.check_leaks(
        tf.distribute.get_strategy(),
        [builder],
        split,
        say=told.append,
        **{"allowed": False, **options},
    )
    return told


@pytest.fixture(name="leaky", scope="module")
def _leaky(tmp_path_factory):
    groups = {"train": [("a", 20), ("b", 20)], "validation": [("b", 20)]}
    groups["test"] = [("c", 20)]
    return clips.prepare(tmp_path_factory.mktemp("leaky"), groups)


def test_a_group_that_is_trained_and_validated_on_is_refused(leaky, builder):
    assert check_leaks(builder) == check_leaks(leaky, "test") == []
    message = (
        r"clips has a leaky split: 1 group in two splits, such as b \(6 in train, 6 in "
        r"validation\).*--allow_leaky_split trains all the same"
    )
    with pytest.raises(ValueError, match=message):
        check_leaks(leaky)
    (line,) = check_leaks(leaky, allowed=True)
    assert line.startswith("WARNING: LEAKY SPLIT of clips: 1 group in two splits")
    # Held-out groups are of the training split, and not trained on.
    assert check_leaks(leaky, "train") == []
    other = [conditions.parse_condition("method=talk")]
    real = [conditions.parse_condition("method=original")]
    with pytest.raises(ValueError, match="such as b"):
        check_leaks(leaky, where=other, validated_on=real)
    none = [conditions.parse_condition("method=unknown")]
    assert check_leaks(leaky, where=none) == []


def test_images_split_one_by_one_are_warned_of(builder, monkeypatch):
    leak = {"kind": split_leaks.RANDOM, "name": "x", "splits": {"train": 4, "test": 2}}
    monkeypatch.setattr(split_leaks, "find_random_split", lambda builder: [leak])
    for split in ("validation", "train"):
        (line,) = check_leaks(builder, split)
        assert "images were split one by one (4 in train, 2 in test)" in line
