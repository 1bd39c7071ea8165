"""How one training crop of a classifier is prepared."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data import classifier_examples

NUM_SEEDS = 60
WHOLE, HEAD = (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def noise():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    return tf.io.encode_png(pixels)


def _prepare(image, box, seeds=NUM_SEEDS, **settings):
    """The crops `[N, 96, 96, 3]` of one image with a head box, a crop for each seed."""
    preparation = classifier_examples.CropPreparation(96, kinds=("png",), **settings)
    example = {
        "image": image,
        "packed_crop": tf.constant(""),
        "label": tf.constant(0, tf.int64),
        "blended": tf.constant(False),
        "box": tf.constant(box),
        "key": tf.constant([0, 0], tf.int64),
    }
    numbers = tf.data.Dataset.range(seeds)

    # As in `batches`: AutoGraph would rewrite every function, which takes longer.
    @tf.autograph.experimental.do_not_convert
    def prepare(number):
        return preparation(tf.stack([3, tf.cast(number, tf.int32)]), example)

    crops = numbers.map(prepare)
    return np.stack([crop for crop, _ in crops.as_numpy_iterator()])


def test_crops_without_a_head_box_are_leveled_in_a_share_of_the_cases(noise):
    plain = _prepare(noise, WHOLE, augmentation="light")
    never = _prepare(noise, WHOLE, augmentation="makers", level_share=0.0)
    np.testing.assert_allclose(never, plain, atol=1e-3)
    leveled = _prepare(noise, WHOLE, augmentation="makers")
    some = _prepare(noise, WHOLE, augmentation="makers", level_share=0.35)
    is_leveled = np.isclose(some, leveled, atol=1e-3).all((1, 2, 3))
    is_plain = np.isclose(some, plain, atol=1e-3).all((1, 2, 3))
    assert np.all(is_leveled ^ is_plain)
    assert 10 < is_leveled.sum() < 32  # 21 of 60 are expected.


def test_images_with_a_head_box_are_always_leveled(noise):
    found = _prepare(noise, HEAD, augmentation="makers", level_share=0.0)
    expected = _prepare(noise, HEAD, augmentation="makers")
    np.testing.assert_allclose(found, expected, atol=1e-3)
    plain = _prepare(noise, HEAD, augmentation="light")
    assert not np.isclose(found, plain, atol=1e-3).all((1, 2, 3)).any()


@pytest.mark.parametrize(
    ("augmentation", "change"),
    [
        ("none", "rotated_share"),
        ("makers", "rotated_share"),
        ("none", "gamma_share"),
        ("none", "gray_share"),
    ],
)
def test_a_share_of_the_crops_is_changed_and_the_others_are_as_without(
    noise, augmentation, change
):
    plain = _prepare(noise, HEAD, augmentation=augmentation)
    some = _prepare(noise, HEAD, augmentation=augmentation, **{change: 0.4})
    is_plain = np.isclose(some, plain, atol=1e-3).all((1, 2, 3))
    assert 24 < is_plain.sum() < 48  # 36 of 60 are expected.


def test_crops_without_color_have_three_equal_channels(noise):
    gray = _prepare(noise, HEAD, augmentation="none", gray_share=1.0)
    np.testing.assert_array_equal(gray, gray[..., :1].repeat(3, axis=-1))
    plain = _prepare(noise, HEAD, augmentation="none")
    np.testing.assert_allclose(gray[..., 0], plain @ [0.299, 0.587, 0.114], atol=0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level_share": 1.5}, r"level_share must be in \[0, 1\], got 1.5"),
        ({"level_share": -0.1}, r"level_share must be in \[0, 1\], got -0.1"),
        ({"rotated_share": 2}, r"rotated_share must be in \[0, 1\], got 2"),
        ({"gamma_share": -1}, r"gamma_share must be in \[0, 1\], got -1"),
        ({"gray_share": 1.1}, r"gray_share must be in \[0, 1\], got 1.1"),
        ({"augmentation": "some"}, "augmentation must be one of .*, got 'some'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        classifier_examples.CropPreparation(96, **settings)
