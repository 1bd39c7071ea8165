"""Geometry of boxes, against values worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect import boxes


def test_area_of_padding_and_inside_out_boxes_is_zero():
    areas = boxes.area(
        keras.ops.array([[0.0, 0.0, 0.5, 0.25], [0.0] * 4, [0.5, 0.5, 0.2, 0.9]])
    )
    np.testing.assert_allclose(areas, [0.125, 0.0, 0.0])


def test_iou_by_hand():
    one = keras.ops.array([[0.0, 0.0, 0.5, 0.5], [0.0] * 4])
    other = keras.ops.array(
        [
            [0.0, 0.0, 0.5, 0.5],
            [0.25, 0.25, 0.75, 0.75],
            [0.6, 0.6, 1.0, 1.0],
            [0.0] * 4,
        ]
    )
    # Second: the overlap is 1/16, the union 1/4 + 1/4 - 1/16 = 7/16.
    expected = [[1.0, 1 / 7, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(boxes.iou(one, other), expected, atol=1e-6)


def test_iou_of_nothing():
    assert boxes.iou(keras.ops.zeros((0, 4)), keras.ops.zeros((3, 4))).shape == (0, 3)


def test_clip():
    clipped = boxes.clip(keras.ops.array([[-0.1, 0.2, 1.1, 0.9]]))
    np.testing.assert_allclose(clipped, [[0.0, 0.2, 1.0, 0.9]])


# Face x1, y1, x2, y2; width, height; expected x, y, side.
_FACEFORENSICS = [
    ((30, 40, 130, 160), (640, 480), (2, 22, 156)),
    ((0, 0, 100, 100), (200, 200), (0, 0, 130)),
    ((150, 150, 200, 200), (200, 200), (143, 143, 57)),
]


def _relative(face, size):
    (x1, y1, x2, y2), (width, height) = face, size
    return np.float32([[y1 / height, x1 / width, y2 / height, x2 / width]])


@pytest.mark.parametrize(("face", "size", "expected"), _FACEFORENSICS)
def test_square_crops_are_those_of_faceforensics(face, size, expected):
    width, height = size
    crops = boxes.square_crops(_relative(face, size), height, width, margin=1.3)
    x, y, side = expected
    np.testing.assert_array_equal(crops, [[y, x, side]])
    assert crops.dtype == tf.int32


def test_square_crop_side_is_the_exact_integer():
    # 10 * 1.3 is 13; in float32 it comes out as 12.99... for some sizes.
    sizes = np.arange(1, 2001)
    faces = np.stack([sizes * 0, sizes * 0, sizes, sizes], -1) / np.float64(4096)
    crops = boxes.square_crops(faces.astype(np.float32), 4096, 4096, margin=1.3)
    np.testing.assert_array_equal(crops[:, 2], sizes * 13 // 10)


def test_square_crops_of_odd_boxes_stay_inside():
    odd = np.float32([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0.2, -0.3, 0.4, 2]])
    crops = np.asarray(boxes.square_crops(odd, 7, 5, margin=1.3))
    y, x, side = crops.T
    assert (side >= 1).all() and (y >= 0).all() and (x >= 0).all()
    assert (y + side <= 7).all() and (x + side <= 5).all()


def test_square_crops_in_a_graph_with_unknown_sizes():
    crop = tf.function(
        lambda face, height, width: boxes.square_crops(face, height, width, 1.3),
        input_signature=[
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int32),
        ],
    )
    face, size, (x, y, side) = _FACEFORENSICS[0]
    np.testing.assert_array_equal(
        crop(_relative(face, size), size[1], size[0]), [[y, x, side]]
    )
    assert crop(np.zeros([0, 4], np.float32), 10, 10).shape == (0, 3)
