"""Comparisons of two methods against counting by hand."""

import numpy as np
import pytest
import sklearn.metrics

from dfdetect.metrics import bootstrap, paired

NAN = np.nan
# Reals .1, no answer, .9; fakes .9, no answer, .8.
LABELS = np.array([0, 0, 0, 1, 1, 1])
SOME = np.array([0.1, NAN, 0.9, 0.9, NAN, 0.8])
ALL = np.array([0.1, 0.2, 0.6, 0.9, 0.4, 0.8])
GROUPS = np.array(["a", "b", "c", "a", "b", "c"])


def test_an_image_without_an_answer_is_a_guess():
    some, every, gap = paired.compare_methods(
        LABELS, SOME, ALL, GROUPS, num_resamples=50
    )
    # Fakes above reals: .9 over .1, .5, half of .9; .5 over .1, half of .5; .8 two.
    assert some["auc"] == pytest.approx((2.5 + 1.5 + 2) / 9)
    assert every["auc"] == pytest.approx((3 + 2 + 3) / 9)
    assert gap["auc"] == pytest.approx(-2 / 9)
    # Right are one real and a half, two fakes and a half; then two of each.
    assert some["balanced_accuracy"] == pytest.approx((0.5 + 2.5 / 3) / 2)
    assert some["accuracy"] == pytest.approx(4 / 6)
    assert every["balanced_accuracy"] == every["accuracy"] == pytest.approx(2 / 3)
    assert gap["accuracy"] == pytest.approx(0)


def test_nothing_answered_is_chance_and_no_better():
    silent = np.full(6, NAN)
    figures, _, _ = paired.compare_methods(
        LABELS, silent, ALL, GROUPS, num_resamples=50
    )
    for name in paired.METRICS:
        assert figures[name] == 0.5 and figures[f"{name}_interval"] == [0.5, 0.5]


def test_figures_of_unequal_classes():
    labels = np.array([0, 0, 0, 1])
    figures, _, _ = paired.compare_methods(
        labels,
        np.array([0.1, 0.2, 0.3, 0.4]),
        np.zeros(4),
        np.arange(4),
        num_resamples=10,
    )
    assert figures["accuracy"] == 0.75 and figures["balanced_accuracy"] == 0.5
    assert figures["auc"] == 1.0


def test_intervals_are_of_the_same_resamples():
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 80)
    first = np.clip(0.3 * labels + random.uniform(0, 0.7, 80), 0, 1)
    second = np.clip(first + random.normal(0, 0.02, 80), 0, 1)
    groups = np.arange(80) // 2
    of_first, _, gap = paired.compare_methods(
        labels, first, second, groups, num_resamples=60, seed=5
    )
    aucs = []
    for weights in bootstrap.resample_weights(groups, num_resamples=60, seed=5):
        for copies in weights:
            truths = np.repeat(labels, copies)
            aucs.append(
                [
                    sklearn.metrics.roc_auc_score(truths, np.repeat(way, copies))
                    for way in (first, second)
                ]
            )
    one, other = np.array(aucs).T
    assert of_first["auc_interval"] == pytest.approx(np.quantile(one, [0.025, 0.975]))
    expected = np.quantile(one - other, [0.025, 0.975])
    assert gap["auc_interval"] == pytest.approx(expected)
    low, high = of_first["auc_interval"]
    # Ways that agree vary together, so that their difference varies less.
    assert expected[1] - expected[0] < (high - low) / 2
    same = paired.compare_methods(labels, first, first, groups, num_resamples=60)[2]
    assert same["auc_interval"] == [0, 0]


def test_what_wants_a_class_or_a_group_has_no_value():
    figures, _, gap = paired.compare_methods(
        LABELS[:3], SOME[:3], ALL[:3], GROUPS[:3], num_resamples=20
    )
    assert np.isnan(figures["auc"]) and np.isnan(figures["auc_interval"]).all()
    assert np.isnan(gap["balanced_accuracy"])
    assert figures["accuracy"] == 0.5 and figures["accuracy_interval"][0] == 0
    one_group = paired.compare_methods(
        LABELS, SOME, ALL, np.zeros(6), num_resamples=20
    )[0]
    assert one_group["auc"] > 0.5 and np.isnan(one_group["auc_interval"]).all()
    nothing = np.zeros(0)
    figures, _, _ = paired.compare_methods(
        nothing, nothing, nothing, nothing, num_resamples=20
    )
    assert np.isnan([figures[name] for name in paired.METRICS]).all()
