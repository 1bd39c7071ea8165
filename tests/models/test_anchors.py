"""Anchors and box coding against published numbers."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect import boxes
from dfdetect.models import anchors


@pytest.mark.parametrize(
    "image_size, anchor_scale, num_anchors, area",
    [
        (512, 4.0, 49_104, 321.32e6),
        (640, 4.0, 76_725, 502.0624e6),
        (768, 4.0, 110_484, 722.9699e6),
        (896, 4.0, 150_381, 984.0424e6),
        (1024, 4.0, 196_416, 1285.2798e6),
        (1280, 4.0, 306_900, 2008.2497e6),
        (1536, 5.0, 441_936, 4518.5619e6),
    ],
)
def test_number_and_area_of_the_published_sizes(
    image_size, anchor_scale, num_anchors, area
):
    boxes = anchors.Anchors(image_size, anchor_scale).boxes.astype(np.float64)
    assert boxes.shape == (num_anchors, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]) * image_size
    assert np.isclose(np.prod(sides, axis=1).sum(), area, rtol=1e-5)


def test_corners_at_512():
    boxes = anchors.Anchors(512).boxes
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(
        boxes[[0, 1, -1]] * 512,
        [
            [-12, -12, 20, 20],
            [-7.3137, -18.6274, 15.3137, 26.6274],
            [-126.701, 160.650, 1022.701, 735.350],
        ],
        atol=1e-3,
    )


def test_first_corner_of_d7():
    boxes = anchors.Anchors(1536, anchor_scale=5.0).boxes
    np.testing.assert_allclose(boxes[0] * 1536, [-16, -16, 24, 24], atol=1e-3)


def test_order_is_level_row_column_octave_aspect():
    boxes = anchors.Anchors(128).boxes * 128
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    heights, widths = (boxes[:, 2:] - boxes[:, :2]).T
    np.testing.assert_allclose(centers[[0, 9, 9 * 16]], [[4, 4], [4, 12], [12, 4]])
    np.testing.assert_allclose((widths / heights)[:6], [1, 2, 0.5] * 2, rtol=1e-5)
    np.testing.assert_allclose(heights[[0, 3, 6]], 32 * 2 ** (np.arange(3) / 3))
    # 16 x 16 places on level 3, then 8 x 8 on level 4.
    np.testing.assert_allclose(centers[9 * 16 * 16], [8, 8])
    np.testing.assert_allclose(heights[9 * 16 * 16], 64)


@pytest.mark.parametrize("image_size", [0, -128, 500])
def test_refuses_other_sizes(image_size):
    with pytest.raises(ValueError, match="multiple of 32"):
        anchors.Anchors(image_size)


def test_encode_by_hand():
    anchor = [0.2, 0.2, 0.4, 0.6]  # Center (.3, .4), size (.2, .4).
    box = [0.2, 0.4, 0.6, 0.6]  # Center (.4, .5), size (.4, .2).
    offsets = np.array(anchors.encode(np.array([box]), np.array([anchor])))
    expected = [[0.5, 0.25, np.log(2), np.log(0.5)]]
    np.testing.assert_allclose(offsets, expected, rtol=1e-5)


def test_decode_inverts_encode_eagerly_and_in_a_graph():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(size=(2, 50, 2)), axis=0)
    boxes = np.concatenate(corners, axis=-1).astype(np.float32)
    grid = anchors.Anchors(128).boxes[:50]
    offsets = anchors.encode(boxes, grid)
    np.testing.assert_allclose(anchors.decode(offsets, grid), boxes, atol=1e-5)
    in_graph = tf.function(anchors.decode)(offsets, grid)
    np.testing.assert_allclose(in_graph, boxes, atol=1e-5)


def test_decode_broadcasts_over_the_batch():
    grid = anchors.Anchors(128).boxes
    decoded = anchors.decode(np.zeros((2, len(grid), 4), np.float32), grid)
    np.testing.assert_allclose(decoded, np.stack([grid, grid]), atol=1e-5)


def test_padding_and_nothing_encode_to_finite_values():
    grid = anchors.Anchors(128).boxes
    assert np.isfinite(anchors.encode(np.zeros((1, 4)), grid[:1])).all()
    assert anchors.encode(np.zeros((0, 4)), grid[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    "anchor_scale, image_size, least",
    [
        (2.0, 384, 1 / 20),
        (2.0, 448, 1 / 10),
        (2.0, 512, 1 / 20),
        (3.0, 384, 1 / 10),
        (3.0, 448, 1 / 10),
        (3.0, 512, 1 / 20),
        (4.0, 384, 1 / 10),
        (4.0, 448, 1 / 10),
        (4.0, 512, 1 / 10),
    ],
)
def test_anchors_reach_heads_of_every_size(anchor_scale, image_size, least):
    # From `least` of the side to all of the image an anchor overlaps each head by half;
    # smaller ones, down to a sixtieth, take the anchor that they overlap most.
    grid = anchors.Anchors(image_size, anchor_scale).boxes
    random = np.random.default_rng(0)
    for share in (1 / 60, 1 / 30, 1 / 20, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.3):
        near, far = min(share / 2, 0.5), max(1 - share / 2, 0.5)
        centers = random.uniform(near, far, (12, 2))
        half = np.array([share, 0.8 * share]) / 2
        heads = np.clip(np.concatenate([centers - half, centers + half], 1), 0, 1)
        best = np.array(boxes.iou(np.float32(heads), grid)).max(1)
        assert best.min() >= (0.5 if share >= least else 0.02), share
