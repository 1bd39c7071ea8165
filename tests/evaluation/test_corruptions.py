"""Altered images against what one works out by hand."""

import shutil
import sys

import numpy as np
import pytest

from dfdetect.evaluation import corruptions

_RANDOM = np.random.default_rng(0)
_NEEDS_FFMPEG = pytest.mark.skipif(
    bool(corruptions.find_missing()), reason="no ffmpeg with libx264"
)
_SINGLE = ("mirror", "gray")  # Of one strength.
_NAMES = [
    pytest.param(name, marks=_NEEDS_FFMPEG if name == "h264" else ())
    for name in corruptions.CORRUPTIONS
]


def _smooth(height=64, width=48):
    """An image without much detail: waves of color and a little noise."""
    y, x = np.mgrid[:height, :width][..., None] / 8.0
    waves = 128 + 60 * np.sin(y + np.arange(3)) * np.cos(x)
    noisy = waves + _RANDOM.normal(0, 3, waves.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _gray(level, height=100, width=100):
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_strength_0_is_the_image_itself(name):
    image = _smooth()
    assert np.array_equal(corruptions.corrupt_image(image, name, 0), image)


@pytest.mark.parametrize("name", _NAMES)
def test_every_strength_alters_a_copy_and_repeats(name):
    image = _smooth(31, 45)
    before = image.copy()
    for strength in range(1, 1 + len(corruptions.CORRUPTIONS[name].values)):
        altered = corruptions.corrupt_image(image, name, strength, seed=3)
        assert altered.dtype == np.uint8 and altered.flags.c_contiguous
        assert name == "cropping" or altered.shape == image.shape
        assert not np.array_equal(altered, image)
        assert np.array_equal(
            altered, corruptions.corrupt_image(image, name, strength, seed=3)
        )
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    "name", [n for n in _NAMES if n.values[0] not in (*_SINGLE, "cropping", "rotation")]
)
def test_more_strength_is_more_error(name):
    image = _smooth()
    errors = [
        np.mean(
            (corruptions.corrupt_image(image, name, strength).astype(float) - image)
            ** 2
        )
        for strength in range(corruptions.STRENGTHS + 1)
    ]
    assert errors == sorted(errors) and len(set(errors)) == len(errors)


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_there_are_five_values_in_order_or_one(name):
    values = corruptions.CORRUPTIONS[name].values
    assert len(values) == (1 if name in _SINGLE else corruptions.STRENGTHS)
    assert list(values) in (sorted(values), sorted(values, reverse=True))


def test_rotation_turns_a_mark_counter_clockwise():
    image = np.zeros((65, 65, 3), np.uint8)
    image[31:34, 43:46] = 255  # 12 to the right of the center (32, 32).
    for strength, degrees in enumerate((3, 6, 12, 25, 45), 1):
        altered = corruptions.corrupt_image(image, "rotation", strength)
        y, x = np.argwhere(altered[..., 0] > 100).mean(0)
        angle = np.deg2rad(degrees)
        assert y == pytest.approx(32 - 12 * np.sin(angle), abs=0.5)
        assert x == pytest.approx(32 + 12 * np.cos(angle), abs=0.5)


def test_rotation_leaves_no_black_corners():
    assert np.array_equal(
        corruptions.corrupt_image(_gray(90), "rotation", 5), _gray(90)
    )


def test_mirror_is_exact():
    image = _smooth()
    assert np.array_equal(corruptions.corrupt_image(image, "mirror", 1), image[:, ::-1])


def test_blur_leaves_of_white_noise_what_a_gaussian_does():
    image = _RANDOM.normal(128, 30, (200, 200, 3)).astype(np.uint8)
    altered = corruptions.corrupt_image(image, "blur", 3)
    # The squares of a Gaussian of sigma 2 sum up to 1 / (4 pi 2^2).
    assert altered.std() == pytest.approx(30 / np.sqrt(16 * np.pi), rel=0.1)


def test_scaling_to_a_half_averages_a_checkerboard():
    board = np.indices((40, 60)).sum(0) % 2 * 200
    image = np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)
    altered = corruptions.corrupt_image(image, "scaling", 2)
    assert altered.shape == image.shape and np.all(altered == 100)


@pytest.mark.parametrize(
    "strength,top,left,height,width", [(1, 2, 1, 95, 57), (5, 20, 12, 60, 36)]
)
def test_cropping_keeps_the_center(strength, top, left, height, width):
    image = _smooth(100, 60)
    altered = corruptions.corrupt_image(image, "cropping", strength)
    assert np.array_equal(altered, image[top : top + height, left : left + width])


def test_jpeg_takes_the_color_out_of_fine_lines():
    image = _gray(0)
    image[:, ::2, 0] = 255
    altered = corruptions.corrupt_image(image, "jpeg", 1)
    # 4:2:0: red and black become red of equal hue; the channels are not swapped.
    assert altered[..., 0].mean() == pytest.approx(127, abs=12)
    assert altered[..., 0].mean() > 2 * altered[..., 2].mean()


@pytest.mark.parametrize("strength,sigma", [(1, 2), (3, 10), (5, 40)])
def test_noise_has_its_sigma(strength, sigma):
    altered = corruptions.corrupt_image(_gray(128), "noise", strength, seed=1).astype(
        float
    )
    assert altered.std() == pytest.approx(sigma, rel=0.03)
    assert altered.mean() == pytest.approx(128, abs=sigma / 20)
    other = corruptions.corrupt_image(_gray(128), "noise", strength, seed=2)
    assert abs(np.corrcoef(altered.ravel(), other.ravel())[0, 1]) < 0.05


def test_gamma_is_a_power():
    image = np.array([[[0, 128, 255]]], np.uint8)
    # 255 (128 / 255)^2 = 64.25, 255 (128 / 255)^3 = 32.25.
    assert corruptions.corrupt_image(image, "gamma", 3).tolist() == [[[0, 64, 255]]]
    assert corruptions.corrupt_image(image, "gamma", 5).tolist() == [[[0, 32, 255]]]


def test_gray_keeps_the_brightness_alone():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    expected = np.repeat([[[76], [150], [29], [9]]], 3, axis=2)  # ITU-R BT.601.
    assert np.array_equal(corruptions.corrupt_image(image, "gray", 1), expected)


@_NEEDS_FFMPEG
def test_h264_keeps_colors_and_odd_sides():
    image = np.broadcast_to(np.array([200, 90, 30], np.uint8), (33, 47, 3))
    altered = corruptions.corrupt_image(image, "h264", 1)
    assert altered.shape == (33, 47, 3)
    assert np.abs(altered.astype(int) - image).max() <= 4


def test_without_ffmpeg_h264_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    corruptions._ffmpeg.cache_clear()
    try:
        reason = corruptions.find_missing()["h264"]
        assert "pip install dfdetect[robustness]" in reason
        with pytest.raises(ImportError, match="robustness"):
            corruptions.corrupt_image(_smooth(), "h264", 1)
    finally:
        corruptions._ffmpeg.cache_clear()


@pytest.mark.parametrize(
    "image,name,strength,message",
    [
        (np.zeros((4, 4, 3)), "blur", 1, "uint8"),
        (np.zeros((4, 4), np.uint8), "blur", 1, "H, W, 3"),
        (_gray(0), "sepia", 1, "rotation"),
        (_gray(0), "blur", 6, "0 to 5, got 6"),
        (_gray(0), "mirror", 2, "0 to 1, got 2"),
        (_gray(0), "blur", -1, "got -1"),
    ],
)
def test_wrong_arguments_are_named(image, name, strength, message):
    with pytest.raises(ValueError, match=message):
        corruptions.corrupt_image(image, name, strength)


@pytest.mark.parametrize("name", _NAMES)
def test_a_image_of_one_pixel_passes(name):
    for strength in range(1, 1 + len(corruptions.CORRUPTIONS[name].values)):
        assert corruptions.corrupt_image(_gray(7, 1, 1), name, strength).shape == (
            1,
            1,
            3,
        )
