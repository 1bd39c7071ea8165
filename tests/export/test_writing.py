"""Errors of writing an export: one line, with the folder that was asked for."""

import pathlib

import pytest
import tensorflow as tf

from dfdetect.export import writing

_FULL = pathlib.Path("/dev/full")
_NEEDS_FULL = pytest.mark.skipif(not _FULL.exists(), reason="no /dev/full here")
_TOLD = "^runs/7 cannot be written: No space left on device$"


def write_by_python():
    with open(_FULL, "wb") as file:
        file.write(b"x" * 2**20)


def write_by_tensorflow():
    with tf.io.TFRecordWriter(str(_FULL)) as writer:
        for _ in range(1000):
            writer.write(b"x" * 2**10)


def save_variables():
    tf.raw_ops.SaveV2(
        prefix=str(_FULL / "x"),
        tensor_names=["x"],
        shape_and_slices=[""],
        tensors=[tf.zeros(3)],
    )


@_NEEDS_FULL
@pytest.mark.parametrize("write", [write_by_python, write_by_tensorflow])
def test_a_full_disk_is_told_with_the_folder(write):
    with pytest.raises(OSError, match=_TOLD), writing.errors_told("runs/7"):
        write()


@_NEEDS_FULL
def test_other_reasons_of_tensorflow_are_told_in_one_line():
    with pytest.raises(OSError) as caught, writing.errors_told("runs/7"):
        save_variables()
    told = str(caught.value)
    assert told.startswith("runs/7 cannot be written: ") and "\n" not in told


def test_what_is_there_already_stays_that_error(tmp_path):
    with pytest.raises(FileExistsError), writing.errors_told("runs/7"):
        tmp_path.mkdir()


def test_errors_of_other_kinds_pass():
    with pytest.raises(ValueError, match="drift"), writing.errors_told("runs/7"):
        raise ValueError("drift")
