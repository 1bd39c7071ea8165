"""Noise residuals of crops whose residuals are known."""

import numpy as np
import pytest

from dfdetect.evaluation import residual_features

PER_FILTER = 5  # Moments of a residual.
PAIRS = 50  # Of brightness alone.


def _crop(gray):
    return np.repeat(np.asarray(gray, np.float32)[..., None], 3, axis=-1)


@pytest.mark.parametrize("name", residual_features.FILTERS)
def test_filters_let_no_mean_pass_and_are_comparable(name):
    kernel = residual_features.FILTERS[name]
    assert kernel.sum() == pytest.approx(0, abs=1e-6)
    assert np.abs(kernel).max() == 1


def test_a_flat_crop_has_no_residual():
    found = residual_features.describe_residuals(_crop(np.full((16, 16), 90)))
    assert found.shape == (12 * PER_FILTER + 4 * PAIRS,) and np.isfinite(found).all()
    assert found[:2] == pytest.approx(np.log(1e-3), abs=0.01)
    pairs = found[PER_FILTER : PER_FILTER + PAIRS].reshape(2, 5, 5)
    assert pairs[:, 2, 2].tolist() == [1, 1]  # All at level 0, beside and above.
    shown = residual_features.high_pass(np.full((2, 8, 8, 3), 90))
    assert shown.shape == (2, 8, 8, 3) and shown == pytest.approx(127.5, abs=1e-3)


def test_columns_that_alternate_are_unlike_their_neighbours():
    gray = 100 + 4 * np.tile([1, -1], (16, 8))
    found = residual_features.describe_residuals(_crop(gray))
    deviation, magnitude, kurtosis, beside, below = found[:PER_FILTER]
    # The difference of neighbours is 8 or -8.
    assert (deviation, magnitude) == pytest.approx((np.log(8), np.log(8)), abs=0.05)
    assert kurtosis == pytest.approx(0, abs=0.05)
    assert (beside, below) == pytest.approx((-1, 1), abs=0.02)
    pairs = found[PER_FILTER : PER_FILTER + PAIRS].reshape(2, 5, 5)
    assert pairs[0, 0, 4] + pairs[0, 4, 0] == pytest.approx(1)
    assert pairs[1, 0, 0] + pairs[1, 4, 4] == pytest.approx(1)
