"""Widths of intervals that are expected, against drawn scores and worked-out values."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from dfdetect.metrics import expected_intervals


@pytest.mark.parametrize(("num_real", "num_fake"), [(12, 12), (40, 10), (150, 150)])
def test_the_width_for_an_area_is_that_of_drawn_scores(num_real, num_fake):
    random = np.random.default_rng(0)
    # Negative exponential scores, of which the formula is made: an area of .9.
    truths = np.repeat([0, 1], [num_real, num_fake])
    scores = random.exponential(np.where(truths, 9.0, 1.0), (2000, len(truths)))
    areas = [sklearn.metrics.roc_auc_score(truths, row) for row in scores]
    assert np.mean(areas) == pytest.approx(0.9, abs=0.01)
    found = expected_intervals.auc_half_width(num_real, num_fake)
    assert found == pytest.approx(1.96 * np.std(areas), rel=0.1)


def test_the_width_for_a_share_is_that_of_the_binomial():
    found = expected_intervals.share_half_width(400, 0.8)
    assert found == pytest.approx(1.96 * scipy.stats.binom.std(400, 0.8) / 400)


def test_without_examples_nothing_is_known():
    assert expected_intervals.auc_half_width(0, 5) == 0.5
    assert expected_intervals.auc_half_width(1, 1) == 0.5
    assert expected_intervals.share_half_width(0) == 0.5
