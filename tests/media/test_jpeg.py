"""Reduced JPEGs and windows against fully decoded ones."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.media import decode, exif, headers, jpeg

_HEIGHT, _WIDTH = 83, 117
_EXIF = (
    b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01"
    b"\0%c\0\0\0\0\0\0"
)
_SAMPLINGS = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def _jpeg(sampling="420", turned=1, progressive=False, height=_HEIGHT, width=_WIDTH):
    """Encodes colors that differ between pixels, so that each shows its place."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    parameters = [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        _SAMPLINGS[sampling],
        cv2.IMWRITE_JPEG_PROGRESSIVE,
        int(progressive),
    ]
    encoded = cv2.imencode(".jpg", image, parameters)[1].tobytes()
    return encoded[:2] + _EXIF % turned + encoded[2:]


@pytest.mark.parametrize(
    ("longer", "times"), [(255, 0), (256, 1), (511, 1), (512, 2), (1024, 3), (3000, 3)]
)
def test_downscale_steps_leave_twice_the_pixels_that_are_seen(longer, times):
    for extent in ((longer, 8), (8, longer)):
        image = np.zeros([*extent, 3], np.uint8)
        for suffix, expected in ((".jpg", times), (".png", 0)):
            encoded = tf.constant([cv2.imencode(suffix, image)[1].tobytes()])
            header = headers.read_batch(encoded)
            np.testing.assert_array_equal(
                jpeg.downscale_steps(encoded, header, 64), expected
            )


def test_downscale_steps_of_what_is_no_image():
    encoded = tf.constant([b"", b"\xff\xd8\xff", b"text"])
    times = jpeg.downscale_steps(encoded, headers.read_batch(encoded), 1)
    np.testing.assert_array_equal(times, [0, 0, 0])
    nothing = tf.constant([], tf.string)
    times = jpeg.downscale_steps(nothing, headers.read_batch(nothing), 1)
    assert times.shape == (0,)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_reduced_is_the_mean_of_the_pixels(times, progressive):
    encoded = _jpeg("444", progressive=progressive, height=160, width=96)
    header = headers.read(encoded)
    small = tf.function(jpeg.decode_reduced)(
        encoded, header, tf.constant(times)
    ).numpy()
    side = 2**times
    assert small.shape == (160 // side, 96 // side, 3) and small.dtype == np.uint8
    full = decode.decode_image(encoded).numpy()
    blocks = full.reshape(160 // side, side, 96 // side, side, 3).mean((1, 3))
    assert np.abs(small - blocks).mean() < 3
    again = jpeg.decode_reduced(encoded, header, tf.constant(times))
    np.testing.assert_array_equal(again, small)


def test_reduced_sides_are_rounded_up():
    encoded = _jpeg()
    small = jpeg.decode_reduced(encoded, headers.read(encoded), tf.constant(3))
    assert small.shape == (11, 15, 3)


def test_a_header_of_another_size_is_refused():
    encoded = _jpeg()
    header = headers.read(encoded).numpy()
    header[headers.HEIGHT] += 8
    with pytest.raises(tf.errors.InvalidArgumentError, match="not that of its header"):
        jpeg.decode_reduced(encoded, tf.constant(header), tf.constant(3))


def _windows(height, width):
    random = np.random.default_rng(1)
    yield 0, 0, height, width
    yield height - 1, width - 1, 1, 1
    for _ in range(6):
        top, left = random.integers(height), random.integers(width)
        rows = random.integers(1, height - top + 1)
        yield top, left, rows, random.integers(1, width - left + 1)


def _check_windows(encoded):
    header = headers.read(encoded)
    whole = decode.decode_image(encoded).numpy()
    np.testing.assert_array_equal(exif.upright_extent(header), whole.shape[:2])
    for top, left, height, width in _windows(*whole.shape[:2]):
        wanted = tf.constant([top, left, height, width], tf.int32)
        np.testing.assert_array_equal(
            _window(encoded, header, wanted),
            whole[top : top + height, left : left + width],
        )


_window = tf.function(jpeg.decode_window, reduce_retracing=True)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", _SAMPLINGS)
def test_a_window_has_the_pixels_of_the_whole(sampling, progressive):
    _check_windows(_jpeg(sampling, progressive=progressive))


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_window_of_a_turned_image(turned):
    _check_windows(_jpeg(turned=turned))


@pytest.mark.parametrize("count", [50, pytest.param(150, marks=pytest.mark.slow)])
def test_a_damaged_file_that_is_reduced_has_windows(count):
    """What can be decoded at a small scale must not fail later."""
    random = np.random.default_rng(2)
    readable = 0
    for number in range(count):
        sampling = list(_SAMPLINGS)[number % len(_SAMPLINGS)]
        damaged = bytearray(_jpeg(sampling, progressive=number % 2 == 0))
        for position in random.integers(20, len(damaged), 1 + number % 4):
            damaged[position] = random.integers(256)
        damaged = bytes(damaged)
        header = headers.read(damaged)
        if not 0 < np.prod(exif.upright_extent(header)) < 10**6:
            continue
        try:
            jpeg.decode_reduced(damaged, header, tf.constant(1 + number % 3))
        except tf.errors.InvalidArgumentError:
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode.decode_image(damaged)
            continue
        readable += 1
        _check_windows(damaged)
    assert readable > count / 3
