"""Metrics of ten scores, worked out by hand."""

import numpy as np
import pytest

from dfdetect.metrics import classification

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.5, 0.65, 0.7, 0.9, 0.95])


def test_summary_of_the_toy():
    summary = classification.compute_metrics(LABELS, SCORES)
    assert summary["auc"] == pytest.approx(0.75)
    assert summary["ap"] == pytest.approx(0.8416667, abs=1e-6)
    assert summary["accuracy"] == pytest.approx(0.80)
    assert summary["balanced_accuracy"] == pytest.approx(0.7916667, abs=1e-6)
    assert summary["log_loss"] == pytest.approx(0.5497639, abs=1e-6)
    assert summary["brier"] == pytest.approx(0.18975)
    assert summary["eer"] == pytest.approx(0.25)
    # Above the highest real, .8, lie two of six fakes.
    assert summary["tpr_at_1_percent_fpr"] == pytest.approx(1 / 3)
    assert tuple(summary) == classification.METRICS


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_some_figures(label):
    wanted = LABELS == label
    found = classification.compute_defined_metrics(LABELS[wanted], SCORES[wanted])
    of_label = SCORES[wanted] if label else 1 - SCORES[wanted]
    right = {0: 3 / 4, 1: 5 / 6}[label]
    assert found == pytest.approx(
        {
            "accuracy": right,
            "log_loss": -np.log(of_label).mean(),
            "brier": ((1 - of_label) ** 2).mean(),
        }
    )
    both = classification.compute_defined_metrics(LABELS, SCORES)
    assert both == classification.compute_metrics(LABELS, SCORES)


def test_a_constant_is_right_half_of_the_time():
    summary = classification.compute_metrics(LABELS, np.full(10, 0.6))
    assert summary["auc"] == summary["eer"] == summary["balanced_accuracy"] == 0.5
    assert summary["ap"] == pytest.approx(0.6)
    assert summary["tpr_at_1_percent_fpr"] == 0 and summary["ece"] < 1e-9


def test_rates_are_equal_between_corners_of_the_curve():
    # Three fakes of four lie above all reals but one third: no corner is there.
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1, 0, 0])
    scores = np.linspace(0.9, 0.1, 10)
    error = classification.equal_error_rate(labels, scores)
    assert error == pytest.approx((1 / 6 + 2 / 6) / 2)


def test_the_equal_error_rate_lies_on_the_lines_of_the_curve():
    """Compares with a root finder on the same lines."""
    random = np.random.default_rng(5)
    for size in (7, 20, 61):
        truths = np.arange(size) % 3 // 2
        scores = np.round(random.random(size) * 0.7 + 0.3 * truths, 1)
        reals, fakes, steps = [0.0], [0.0], np.unique(scores)[::-1]
        for step in steps:
            reals.append((scores[truths == 0] >= step).mean())
            fakes.append((scores[truths == 1] >= step).mean())
        # On a line of slope -1, both rates are equal.
        along = np.linspace(0, len(steps), 2_000_001)
        fpr = np.interp(along, np.arange(len(reals)), reals)
        fnr = 1 - np.interp(along, np.arange(len(fakes)), fakes)
        expected = fpr[np.abs(fpr - fnr).argmin()]
        found = classification.equal_error_rate(truths, scores)
        assert found == pytest.approx(expected, abs=1e-5)


def test_fakes_found_at_a_false_positive_rate():
    labels = np.repeat([0, 1], [200, 4])
    # Two reals are above .5, three above .4.
    scores = np.concatenate(
        [np.linspace(0, 0.3, 197), [0.45, 0.6, 0.7], [0.65, 0.5, 0.4, 0.8]]
    )
    assert classification.tpr_at_fpr(labels, scores) == 0.75
    assert classification.tpr_at_fpr(labels, scores, 0.0) == 0.25
    assert classification.tpr_at_fpr(labels, scores, 0.015) == 1


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
        classification.compute_metrics(np.array(labels), np.array(scores))
