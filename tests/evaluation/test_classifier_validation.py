"""Validation of a classifier in training, on drawn faces."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data import prepared as data
from dfdetect.evaluation import classifier_validation
from dfdetect.metrics import classification


def _load(builder, split="validation", batch_size=3):
    return classifier_validation.ClassifierValidation(
        [builder],
        split,
        (),
        image_size=32,
        batch_size=batch_size,
        crop_margin=1.0,
        strategy=tf.distribute.get_strategy(),
    )


def _brightness(crops):
    return (tf.reduce_mean(crops, (1, 2, 3)) - 127) / 8


def test_figures_are_those_of_all_crops(prepared):
    builder = data.open_builder(str(prepared), "labeled_faces")
    validation = _load(builder)
    figures = validation.measure(_brightness)
    assert {*figures} == {*classification.METRICS}
    images = [
        (x["image"], int(x["label"])) for x in data.read_encoded(builder, "validation")
    ]
    means = [float(tf.reduce_mean(tf.io.decode_png(image))) for image, _ in images]
    truths = np.array([label for _, label in images])
    pairs = [
        r < f
        for r in np.compress(truths == 0, means)
        for f in np.compress(truths, means)
    ]
    assert figures["auc"] == pytest.approx(np.mean(pairs))
    (line,) = validation.describe_sizes()
    assert line.startswith("WARNING: labeled_faces, validation: 4 crops; groups: 2 of ")
    fitted = validation.calibrate(0.05, 0.1, None)
    assert fitted["temperature"] > 0


def test_a_changed_byte_is_named_with_its_file(prepared, tmp_path):
    shutil.copytree(prepared / "labeled_faces", tmp_path / "labeled_faces")
    (path,) = (tmp_path / "labeled_faces").rglob("*validation.tfrecord*")
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(bytes(content))
    builder = data.open_builder(str(tmp_path), "labeled_faces")
    validation = _load(builder)  # No more than the sizes of files is looked at.
    with pytest.raises(ValueError, match=f"^{path} of labeled_faces.* is damaged"):
        validation.measure(_brightness)


def test_a_file_that_is_cut_short_is_named_at_the_start(prepared, tmp_path):
    shutil.copytree(prepared / "labeled_faces", tmp_path / "labeled_faces")
    (path,) = (tmp_path / "labeled_faces").rglob("*validation.tfrecord*")
    path.write_bytes(path.read_bytes()[:-100])
    builder = data.open_builder(str(tmp_path), "labeled_faces")
    with pytest.raises(ValueError, match=f"^{path} of labeled_faces.* is damaged"):
        classifier_validation.select_labeled_sets([builder], "validation", ())
