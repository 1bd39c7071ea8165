"""What can be known of data at the start of a training is told at the start."""

import pytest
import tensorflow as tf

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
