"""The file of columns beside the shards of a split: made, kept and made anew."""

import io
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import drawn_heads
import labelled_images
from dfdetect.data import column_building, record_columns, record_fields
from dfdetect.data import prepared as data
from dfdetect.evaluation.audit import scan


@pytest.fixture(name="builder")
def _builder(prepared, tmp_path, monkeypatch):
    """Labeled faces, prepared in a folder of this test, without columns."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(prepared / "labeled_faces", tmp_path / "labeled_faces")
    for path in tmp_path.rglob("columns-*"):
        path.unlink()
    return data.open_builder(str(tmp_path), "labeled_faces")


@pytest.fixture(name="count_builds")
def _count_builds(monkeypatch):
    """Counts how often a split is read whole."""
    built = []
    build = column_building.build
    monkeypatch.setattr(
        column_building, "build", lambda *one: built.append(one) or build(*one)
    )
    return lambda: len(built)


def _path(builder):
    return pathlib.Path(builder.data_path) / "columns-train.npz"


def test_columns_say_what_tfds_reads(builder):
    columns = record_columns.open_columns(builder, "train")
    expected = list(data.read_encoded(builder, "train").as_numpy_iterator())
    assert len(columns) == len(expected) == 8
    groups = [example["group"].decode() for example in expected]
    assert [*columns.texts("field/group")] == groups == [*columns.texts("origin")]
    np.testing.assert_array_equal(
        columns.numbers("field/label"), [example["label"] for example in expected]
    )
    (path,) = columns.paths
    content = pathlib.Path(path).read_bytes()
    places = zip(*(columns.numbers(x) for x in ("offset", "length")), strict=True)
    for (offset, length), example in zip(places, expected, strict=True):
        record = tf.train.Example.FromString(content[offset : offset + length])
        image = record.features.feature["image"].bytes_list.value[0]
        assert image == example["image"]


def test_fields_of_every_kind_and_files_in_order(tmp_path, monkeypatch):
    """In several shards, as TFDS makes them of large sets."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy()
    images = {"train": [(f"{i}.png", i % 2, image) for i in range(90)]}
    builder = labelled_images.LabelledImages(images, data_dir=str(tmp_path))
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=3)
    )
    assert len(builder.info.splits["train"].filepaths) == 3
    columns = record_columns.open_columns(builder, "train")
    np.testing.assert_array_equal(np.diff(columns.numbers("starts")), [30, 30, 30])
    names = ("group", "label", "compression", "frame", "time", "is_sharp")
    found = record_fields.read_fields(builder, "train", [*names, "image/filename"])
    examples = list(data.read_encoded(builder, "train").as_numpy_iterator())
    assert found["group"].tolist() == [e["group"].decode() for e in examples]
    assert found["frame"].tolist() == [e["frame"] for e in examples]
    files = [e["image/filename"].decode() for e in examples]
    assert found["image/filename"].tolist() == files
    # What is matched with the records by position.
    surveyed = scan.scan_dataset(builder, lambda split: None, ["train"], False)
    assert surveyed.filenames == files
    assert surveyed.truths.tolist() == [e["label"] for e in examples]
    assert set(found["compression"]) == {"c23"} and set(found["time"]) == {0.1}
    assert set(found["is_sharp"]) == {1} and set(found["label"]) == {"real", "fake"}
    assert found["frame"].dtype == np.int64 and found["time"].dtype == np.float64


def test_heads_of_images(tmp_path):
    builder = drawn_heads.prepare(tmp_path, "few_1", train=5)
    columns = record_columns.open_columns(builder, "train")
    np.testing.assert_array_equal(columns.numbers("head_starts"), range(6))
    expected = [e["objects"]["bbox"] for e in data.read_encoded(builder, "train")]
    np.testing.assert_array_equal(
        columns.numbers("head_boxes"), np.concatenate(expected)
    )
    assert set(map(tuple, columns.numbers("extent").tolist())) == {(96, 128)}


def test_a_set_is_read_once(builder, count_builds):
    for _ in range(2):
        record_columns.open_columns(builder, "train")
        record_columns.forget()  # As in another process.
    assert count_builds() == 1 and _path(builder).exists()
    moved = pathlib.Path(builder.data_path).parents[1]
    shutil.copytree(moved / "labeled_faces", moved / "copy" / "labeled_faces")
    copy = data.open_builder(str(moved / "copy"), "labeled_faces")
    assert len(record_columns.open_columns(copy, "train")) == 8
    assert count_builds() == 1


def _spoil_byte(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"train2")] ^= 1  # In the name of a group.
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "spoil",
    [
        _spoil_byte,
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(b""),
        lambda path: shutil.copy(path.parent / "columns-test.npz", path),
    ],
)
def test_a_damaged_file_or_one_of_other_shards_is_made_anew(
    builder, count_builds, spoil
):
    record_columns.write_columns(builder)
    before, built = _path(builder).read_bytes(), count_builds()
    spoil(_path(builder))
    record_columns.forget()  # Within a tick of the clock, it could not be told.
    assert len(record_columns.open_columns(builder, "train")) == 8
    assert count_builds() == built + 1
    with np.load(_path(builder)) as found, np.load(io.BytesIO(before)) as expected:
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_columns_of_other_records_are_made_anew(builder, count_builds):
    record_columns.open_columns(builder, "train")
    (path,) = (pathlib.Path(p) for p in builder.info.splits["train"].filepaths)
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records[:-1]:
            writer.write(record)
        example = tf.train.Example.FromString(records[-1])
        example.features.feature["group"].bytes_list.value[0] = b"another group"
        writer.write(example.SerializeToString())
    columns = record_columns.open_columns(builder, "train")
    assert columns.texts("field/group")[7] == "another group"
    assert count_builds() == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(builder, count_builds):
    folder = pathlib.Path(builder.data_path)
    folder.chmod(0o555)
    try:
        _check_cached(builder, count_builds)
    finally:
        folder.chmod(0o755)


def test_where_a_file_beside_the_shards_fails_the_cache_has_it(
    builder, count_builds, monkeypatch
):
    write = record_columns.array_file.write

    def refuse(path, arrays):
        if path == str(_path(builder)):
            raise PermissionError(13, "read-only", path)
        write(path, arrays)

    monkeypatch.setattr(record_columns.array_file, "write", refuse)
    _check_cached(builder, count_builds)


def _check_cached(builder, count_builds):
    for _ in range(2):
        columns = record_columns.open_columns(builder, "train")
        record_columns.forget()
    assert len(columns) == 8 and count_builds() == 1
    assert not _path(builder).exists()
    # Other shards of the same size: here times count.
    (path,) = builder.info.splits["train"].filepaths
    os.utime(path, ns=(1, 1))
    record_columns.open_columns(builder, "train")
    assert count_builds() == 2
