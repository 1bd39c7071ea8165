import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import given_heads

NUMBER = tfds.features.Scalar(tf.float32)
BOX = {"ymin": 0.1, "xmin": 0.2, "ymax": 0.5, "xmax": 0.6}
OBJECTS = tfds.features.Sequence(
    {"bbox": tfds.features.BBoxFeature(), "is_difficult": tf.bool}
)


def read(features, example):
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tf.int64, **features}
    )
    info = types.SimpleNamespace(features=features)
    reader = given_heads.GivenHeadReader(types.SimpleNamespace(info=info))
    assert set(reader.fields) <= set(features)
    return reader.read({name: example[name] for name in reader.fields})


def read_box(**changes):
    return read(dict.fromkeys(BOX, NUMBER), {**BOX, **changes})


def test_a_box_of_four_fields():
    found = read_box()
    assert found.boxes == pytest.approx(np.float32([[0.1, 0.2, 0.5, 0.6]]))
    assert found.count == 1


def test_a_box_that_leaves_the_image_is_cut_off():
    found = read_box(ymin=-0.2, xmax=1.4)
    assert found.boxes == pytest.approx(np.float32([[0, 0.2, 0.5, 1]]))


@pytest.mark.parametrize(
    "changes", [dict.fromkeys(BOX, 0.0), dict.fromkeys(BOX, np.nan), {"ymax": 0.1}]
)
def test_a_box_without_area_is_none_and_the_image_a_face(changes):
    found = read_box(**changes)
    assert found.boxes.shape == (0, 4) and found.count == 1


def test_objects_are_heads_but_the_difficult_ones():
    boxes = np.float32([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1]])
    objects = {"bbox": boxes, "is_difficult": np.array([False, False, True])}
    found = read({"objects": OBJECTS}, {"objects": objects})
    assert np.array_equal(found.boxes, boxes[:2]) and found.count == 2
    nothing = {"bbox": np.zeros((0, 4)), "is_difficult": np.zeros(0, bool)}
    assert read({"objects": OBJECTS}, {"objects": nothing}).count == 0


def test_without_boxes_a_face_is_one_head_and_a_frame_may_have_any():
    assert read({}, {}).count == 1
    frame = {"frame": tfds.features.Scalar(tf.int64)}
    assert read(frame, {"frame": 7}).count == given_heads.UNKNOWN
    # As cvcs has it of images that are not frames.
    assert read(frame, {"frame": -1}).count == 1


def test_a_crop_is_its_head_whatever_box_it_was_cut_by():
    features = {
        **dict.fromkeys((*BOX, "margin"), NUMBER),
        "frame": tfds.features.Scalar(tf.int64),
    }
    found = read(features, {**BOX, "margin": 1.3, "frame": 7})
    assert found.boxes.shape == (0, 4) and found.count == 1
