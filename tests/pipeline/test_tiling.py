"""Tiles with a stand-in detector that knows one thing: pure red squares."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.media import decode
from dfdetect.pipeline import (
    detector_settings,
    head_detection,
    image_batch,
    tiling,
)

_SIZE = 64
_SETTINGS = detector_settings.DetectorSettings(
    image_size=_SIZE, max_detections=5, iou_threshold=0.5, score_threshold=0.5
)


def _detect(images):
    """One box around all pixels of an image that are red through and through."""
    red = (images[..., 0] > 254.0) & (images[..., 1] < 1.0)
    rows, columns = tf.reduce_any(red, 2), tf.reduce_any(red, 1)
    places = tf.range(_SIZE, dtype=tf.float32) / _SIZE

    def first(mask):
        return tf.reduce_min(tf.where(mask, places, 1.0), 1)

    def last(mask):
        return tf.reduce_max(tf.where(mask, places, -1.0), 1) + 1 / _SIZE

    boxes = tf.stack([first(rows), first(columns), last(rows), last(columns)], 1)
    found = tf.cast(tf.reduce_any(rows, 1), tf.int32)
    share = tf.reduce_mean(tf.cast(red, tf.float32), [1, 2])
    only = tf.cast(found, tf.float32)[:, None]
    padding = [[0, 0], [0, 4]]
    return {
        "boxes": tf.pad((boxes * only)[:, None], [*padding, [0, 0]]),
        "scores": tf.pad((0.5 + share)[:, None] * only, padding),
        "num_heads": found,
    }


def _image(*squares, height=200, width=320):
    image = np.full((height, width, 3), 90, np.uint8)
    for top, left, side in squares:
        image[top : top + side, left : left + side] = (255, 0, 0)
    return image


def _find(image, tile_size):
    read = image_batch.wrap_whole(decode.pack(tf.constant(image))[None])
    settings = dataclasses.replace(_SETTINGS, tile_size=tile_size)
    found = tf.function(lambda x: head_detection.find_heads(_detect, x, settings, 3))(
        read
    )
    count = int(found["num_heads"][0])
    extent = np.tile(image.shape[:2], 2)
    assert not np.any(found["boxes"][0, count:])
    return found["boxes"][0, :count].numpy() * extent, found


@pytest.mark.parametrize("place", [(5, 7), (93, 41), (100, 150), (190, 310)])
def test_only_tiles_show_a_small_head(place):
    image = _image((*place, 9))
    assert len(_find(image, None)[0]) == 0
    boxes, found = _find(image, _SIZE)
    expected = [*place, min(place[0] + 9, 200), min(place[1] + 9, 320)]
    np.testing.assert_allclose(boxes, [expected], atol=0.01)
    np.testing.assert_allclose(found["sides"][0, 0], 9 + (place[0] == 190), atol=1.01)


def test_a_head_larger_than_a_tile_is_seen_in_the_whole():
    boxes, _ = _find(_image((60, 100, 80)), _SIZE)
    # The tiles that it fills show it cut on all sides.
    assert len(boxes) == 1
    np.testing.assert_allclose(boxes[0], [60, 100, 140, 180], atol=5.0)


def test_a_box_within_a_better_one_of_another_view_goes():
    boxes = tf.constant([[0, 0, 0.8, 0.8], [0.2, 0.2, 0.6, 0.6], [0.5, 0.5, 0.9, 0.9]])
    scores = tf.constant([0.9, 0.8, 0.7])
    for threshold, expected in ((1.0, [0, 1, 2]), (0.9, [0, 2])):
        settings = dataclasses.replace(_SETTINGS, containment_threshold=threshold)
        assert tiling._suppress(boxes, scores, settings).numpy().tolist() == expected


def test_heads_of_several_tiles():
    squares = [(10, 10, 9), (10, 250, 9), (150, 130, 9)]
    boxes, _ = _find(_image(*squares), _SIZE)
    found = sorted(boxes[:, :2].round().astype(int).tolist())
    assert found == [[10, 10], [10, 250], [150, 130]]


def test_a_small_image_has_no_tiles():
    views = tiling.split_views(tf.constant(64), tf.constant(50), _SIZE)
    np.testing.assert_array_equal(views, [[0, 0, 64, 50]])


@pytest.mark.parametrize("extent", [(65, 64), (200, 320), (3000, 2000), (9000, 70)])
def test_tiles_cover_the_image_and_overlap(extent):
    views = tiling.split_views(tf.constant(extent[0]), tf.constant(extent[1]), 512 // 8)
    views = views.numpy()
    np.testing.assert_array_equal(views[0], [0, 0, *extent])
    assert len(views) <= 1 + tiling.MOST_ALONG**2
    for first, last in ((0, 2), (1, 3)):
        along = np.unique(views[1:, [first, last]], axis=0)
        assert along[0, 0] == 0
        assert along[-1, 1] == extent[first]
        side = (along[:, 1] - along[:, 0]).max()
        overlaps = along[:-1, 1] - along[1:, 0]
        assert np.all(overlaps >= tiling.OVERLAP * side - 1)


def test_a_batch_equals_its_images():
    drawn = [_image((5, 7, 9)), _image((40, 40, 9), height=128, width=100)]
    read = image_batch.wrap_whole(
        tf.stack([decode.pack(tf.constant(p)) for p in drawn])
    )
    found = head_detection.find_heads(
        _detect, read, dataclasses.replace(_SETTINGS, tile_size=_SIZE), 3
    )
    for index, image in enumerate(drawn):
        alone = _find(image, _SIZE)[1]
        for name in ("boxes", "scores", "num_heads", "sides"):
            np.testing.assert_allclose(found[name][index], alone[name][0], atol=1e-6)
