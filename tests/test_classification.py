"""The toy of ten scores, worked out by hand."""

import numpy as np
import pytest

from dfdetect.metrics import classification

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.5, 0.65, 0.7, 0.9, 0.95])


def test_summary_of_the_toy():
    summary = classification.summary(LABELS, SCORES)
    assert summary["auc"] == pytest.approx(0.75)
    assert summary["ap"] == pytest.approx(0.8416667, abs=1e-6)
    assert summary["accuracy"] == pytest.approx(0.80)
    assert summary["balanced_accuracy"] == pytest.approx(0.7916667, abs=1e-6)
    assert summary["log_loss"] == pytest.approx(0.5497639, abs=1e-6)
    assert summary["brier"] == pytest.approx(0.18975)
    assert summary["eer"] == pytest.approx(0.25)


def test_calibration_error_of_the_toy():
    error = classification.expected_calibration_error(LABELS, SCORES, num_bins=5)
    assert error == pytest.approx(0.095)


def test_a_probability_of_zero_falls_into_the_first_bin():
    error = classification.expected_calibration_error(
        np.array([0, 1]), np.array([0.0, 1.0]), num_bins=5
    )
    assert error == 0.0


@pytest.mark.parametrize(
    "labels, scores, message",
    [
        ([0, 1], [0.5], r"must be \[N\]"),
        ([1, 1], [0.5, 0.5], "both 0 and 1"),
        ([0, 1], [0.5, np.nan], "not NaN"),
        ([0, 1], [0.5, 1.5], r"in \[0, 1\]"),
    ],
)
def test_bad_input_says_what_was_wanted(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        classification.summary(np.array(labels), np.array(scores))
