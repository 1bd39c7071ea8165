"""SIFT and spectra of images whose features are known."""

import cv2
import numpy as np
import pytest

import labelled_images
from dfdetect.evaluation import hand_crafted_features


def _png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def _flat(level):
    return _png(np.full((8, 8, 3), level, np.uint8))


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """Gray images whose level is odd for fakes, in no order."""
    levels = np.random.default_rng(0).permutation(40)
    images = {
        "train": [(f"{n}.png", int(n % 2), _flat(int(n))) for n in levels],
        "test": [(f"{n}.png", 0, _flat(n)) for n in range(0, 6, 2)],
    }
    return labelled_images.prepare(tmp_path_factory.mktemp("data"), images)


def test_features_and_labels_are_in_the_same_order(builder, monkeypatch):
    monkeypatch.setitem(
        hand_crafted_features.FEATURES, "level", lambda gray: gray[:1, 0]
    )
    counted = []
    found = hand_crafted_features.build_feature_table(
        builder, "train", ["level"], counted.append
    )
    levels = np.concatenate(found.features["level"])
    assert sorted(levels) == list(range(40))
    assert np.any(np.diff(levels.astype(int)) < 0)
    assert np.array_equal(levels % 2, found.labels)
    assert len(set(found.groups)) == 40 and counted == ["train"] * 40


@pytest.mark.parametrize(
    "split,message",
    [("nowhere", "no split 'nowhere', only"), ("test", "test .* reals and fakes")],
)
def test_a_split_that_cannot_be_used_is_named(builder, split, message):
    with pytest.raises(ValueError, match=message):
        hand_crafted_features.build_feature_table(builder, split, ["spectrum"])


@pytest.mark.parametrize("extent", [(64, 64), (90, 130)])
@pytest.mark.parametrize("sigma", [1.0, 10.0])
def test_white_noise_has_the_same_power_everywhere(extent, sigma):
    noise = np.random.default_rng(0).normal(128, sigma, extent)
    found = hand_crafted_features.compute_spectrum(noise)
    assert (
        found.shape == (hand_crafted_features.NUM_RINGS,) and found.dtype == np.float32
    )
    # The mean logarithm of the square of a standard normal is -1.27.
    expected = 2 * np.log(sigma) - 1.27
    assert found[5:-5] == pytest.approx(expected, abs=1.0)
    assert found[5:-5].mean() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("u,v,ring", [(32, 0, 22), (0, 32, 22), (32, 32, 32)])
def test_a_wave_is_found_in_its_ring(u, v, ring):
    y, x = np.mgrid[:64, :64] + 0.5
    wave = 50 * np.cos(np.pi * u * y / 64) * np.cos(np.pi * v * x / 64)
    assert np.argmax(hand_crafted_features.compute_spectrum(wave)) == ring


def test_images_smaller_than_the_rings_have_a_spectrum():
    for extent in ((1, 1), (5, 3)):
        found = hand_crafted_features.compute_spectrum(np.full(extent, 9, np.uint8))
        assert (
            found.shape == (hand_crafted_features.NUM_RINGS,)
            and np.isfinite(found).all()
        )


def test_sift_keeps_what_opencv_finds_and_no_more_than_500_points():
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (90, 90)).astype(np.uint8)
    _, expected = cv2.SIFT_create().detectAndCompute(small, None)
    found = hand_crafted_features.describe_sift(small)
    assert found.dtype == np.uint8 and len(found) > 10
    assert np.array_equal(found, expected)
    large = random.integers(0, 256, (400, 400)).astype(np.uint8)
    assert 400 < len(hand_crafted_features.describe_sift(large)) <= 500


def test_sift_finds_nothing_in_a_flat_image():
    assert hand_crafted_features.describe_sift(
        np.full((40, 40), 7, np.uint8)
    ).shape == (0, 128)
