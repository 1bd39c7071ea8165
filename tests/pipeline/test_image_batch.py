"""Reduced copies and what is cut out of their originals, against whole images."""

import dataclasses

import cv2
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.media import decode, image_status, resize
from dfdetect.pipeline import detector_settings, head_detection, image_batch

_SIZE, _CROP_SIZE, _MARGIN = 64, 20, 1.3
_SETTINGS = detector_settings.DetectorSettings(
    image_size=_SIZE, max_detections=5, iou_threshold=0.5, score_threshold=0.5
)


def _drawn(height, width, seed=0):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _encoded(suffix, *extent, seed=0):
    return cv2.imencode(suffix, _drawn(*extent, seed=seed))[1].tobytes()


_LARGE, _TALL = _encoded(".jpg", 300, 400), _encoded(".jpg", 1100, 500, seed=1)
_SMALL, _PNG = _encoded(".jpg", 60, 80), _encoded(".png", 300, 400)
_FILES = [_LARGE, b"text", _SMALL, _LARGE[:2000], _TALL, _PNG]
_GOOD = [_LARGE, _SMALL, _TALL, _PNG]


def _read(files, **changes):
    settings = dataclasses.replace(_SETTINGS, **changes)
    return tf.function(lambda x: image_batch.read(x, settings))(tf.constant(files))


def test_only_large_jpegs_are_reduced():
    read, status = _read(_FILES)
    unreadable = image_status.UNREADABLE
    np.testing.assert_array_equal(status, [0, unreadable, 0, unreadable, 0, 0])
    good = read.gather(tf.where(status == image_status.OK))
    assert good.encoded.numpy().tolist() == [_LARGE, b"", _TALL, b""]
    extents = [decode.unpack(one).shape[:2] for one in good.packed]
    assert extents == [(150, 200), (60, 80), (138, 63), (300, 400)]


def test_nothing_is_reduced_for_tiles():
    read, _ = _read(_GOOD, tile_size=_SIZE)
    assert set(read.encoded.numpy()) == {b""}
    for one, file in zip(read.packed, _GOOD, strict=True):
        np.testing.assert_array_equal(decode.unpack(one), decode.decode_image(file))


def test_no_files():
    read, status = _read(np.zeros(0, object).astype(bytes))
    assert read.packed.shape == read.encoded.shape == status.shape == (0,)
    seen, extents = image_batch.letterbox(read, _SIZE)
    assert seen.shape == (0, _SIZE, _SIZE, 3) and extents.shape == (0, 2)


def test_the_detector_sees_what_training_sees():
    read, _ = _read(_GOOD)
    seen, extents = tf.function(lambda x: image_batch.letterbox(x, _SIZE))(read)
    np.testing.assert_array_equal(
        extents, [[300, 400], [60, 80], [1100, 500], [300, 400]]
    )
    for file, one, extent in zip(_GOOD, seen, extents, strict=True):
        image, in_training = decode.decode_for_letterbox(tf.constant(file), _SIZE)
        np.testing.assert_array_equal(in_training, extent)
        np.testing.assert_allclose(
            one, resize.letterbox(image, _SIZE, extent), atol=1e-3
        )
        # And about what it would see of all the pixels.
        whole = resize.letterbox(decode.decode_image(file), _SIZE)
        assert np.abs(one - whole).mean() < 3


def test_proportions_are_those_of_the_original():
    # 1,023 x 130 at an eighth is 128 x 17: of 64 pixels, 8.1 and not 8.5 wide.
    file = _encoded(".jpg", 1032, 130)
    image, extent = decode.decode_for_letterbox(tf.constant(file), _SIZE)
    assert image.shape == (129, 17, 3) and extent.numpy().tolist() == [1032, 130]
    boxed = resize.letterbox(image, _SIZE, extent).numpy()
    filled = (boxed != np.float32(resize.MEAN_PIXEL)).any(-1)
    assert filled[:, :8].all() and not filled[:, 8:].any()


_BOXES = np.float32(
    [[0.1, 0.2, 0.4, 0.4], [0.5, 0.6, 0.95, 1.0], [0.0, 0.0, 0.05, 0.05]]
)


@pytest.mark.parametrize("chosen", [(True, True, True), (False, True, False)])
def test_crops_are_those_of_the_original_bit_for_bit(chosen):
    read, _ = _read(_GOOD)
    crop = tf.function(head_detection.cut_heads)
    found = crop(
        read,
        tf.tile(_BOXES[None], [len(_GOOD), 1, 1]),
        tf.tile(tf.constant([chosen]), [len(_GOOD), 1]),
        _CROP_SIZE,
        _MARGIN,
    )
    wanted = tf.boolean_mask(_BOXES, chosen)
    expected = [
        resize.crop_heads(decode.decode_image(file), wanted, _CROP_SIZE, _MARGIN)
        for file in _GOOD
    ]
    np.testing.assert_array_equal(found, tf.concat(expected, 0))


def test_nothing_to_cut():
    read, _ = _read(_GOOD)
    nothing = tf.zeros([len(_GOOD), 3], tf.bool)
    boxes = tf.zeros([len(_GOOD), 3, 4])
    crops = head_detection.cut_heads(read, boxes, nothing, _CROP_SIZE, _MARGIN)
    assert crops.shape == (0, _CROP_SIZE, _CROP_SIZE, 3)


def test_damaged_bytes_never_fail_the_batch():
    random = np.random.default_rng(3)
    files = []
    for number in range(60):
        damaged = bytearray((_LARGE, _TALL)[number % 2])
        for position in random.integers(150, len(damaged), 3):
            damaged[position] = random.integers(256)
        files.append(bytes(damaged))
    read, status = _read([*files, _LARGE])
    good = read.gather(tf.where(status == image_status.OK))
    count = len(good.packed)
    assert count > 20 and status[-1] == image_status.OK
    boxes = tf.tile(_BOXES[None], [count, 1, 1])
    everything = tf.ones([count, 3], tf.bool)
    crops = head_detection.cut_heads(good, boxes, everything, _CROP_SIZE, _MARGIN)
    assert crops.shape[0] == 3 * count
    assert image_batch.letterbox(good, _SIZE)[0].shape[0] == count
