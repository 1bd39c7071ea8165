"""Bootstrap metrics against scikit-learn on each explicit resample."""

import numpy as np
import pytest

from dfdetect.metrics import bootstrap, classification

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.5, 0.65, 0.7, 0.9, 0.95])


def _examples(count, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    logits = 1.5 * labels + random.normal(-0.7, 1, count)
    return labels, np.round(1 / (1 + np.exp(-logits)), 2)  # Rounded: with many ties.


@pytest.mark.parametrize("count", [10, 300])
def test_weights_count_as_copies(count):
    labels, scores = (LABELS, SCORES) if count == 10 else _examples(count)
    weights = np.random.default_rng(1).integers(0, 4, (20, count))
    block = bootstrap.WeightedScores(labels, scores, weights)
    found = {name: bootstrap.METRICS[name](block) for name in classification.METRICS}
    for row, copies in enumerate(weights):
        one = np.repeat(labels, copies), np.repeat(scores, copies)
        for name, value in classification.compute_metrics(*one).items():
            assert found[name][row] == pytest.approx(value, abs=1e-9), name


def test_rates_at_the_threshold():
    block = bootstrap.WeightedScores(LABELS, SCORES, np.ones((1, 10)))
    found = {name: figure(block)[0] for name, figure in bootstrap.METRICS.items()}
    assert found["tpr"] == pytest.approx(5 / 6) and found["fpr"] == 0.25
    assert found["prevalence"] == 0.6
    assert found["mean_probability"] == pytest.approx(0.565)


def test_a_class_that_is_missing_leaves_no_value():
    block = bootstrap.WeightedScores(
        np.zeros(2, int), np.array([0.2, 0.8]), np.ones((1, 2))
    )
    found = {name: figure(block)[0] for name, figure in bootstrap.METRICS.items()}
    for name in ("auc", "ap", "balanced_accuracy", "eer", "tpr_at_1_percent_fpr"):
        assert np.isnan(found[name]), name
    assert np.isnan(found["tpr"])
    assert found["fpr"] == found["accuracy"] == 0.5


def test_whole_groups_are_drawn():
    # Of two groups of two reals each, one is wrong: drawn are 0, 1/2 and 1.
    found = bootstrap.compute_intervals(
        np.zeros(4, int), np.array([0.1, 0.1, 0.9, 0.9]), ["a", "a", "b", "b"], ["fpr"]
    )
    assert found == {"fpr": (0.0, 1.0)}


def test_intervals_hold_the_figure_and_repeat():
    labels, scores = _examples(400)
    groups = np.arange(400) // 2
    found = bootstrap.compute_intervals(labels, scores, groups, classification.METRICS)
    for name, value in classification.compute_metrics(labels, scores).items():
        low, high = found[name]
        assert low <= value <= high and low < high, name
    again = bootstrap.compute_intervals(labels, scores, groups, ["ap"])
    assert again["ap"] == found["ap"]
    other = bootstrap.compute_intervals(labels, scores, groups, ["ap"], seed=1)
    assert other["ap"] != found["ap"]


def test_blocks_make_no_difference(monkeypatch):
    labels, scores = _examples(50)
    whole = bootstrap.compute_intervals(
        labels, scores, np.arange(50), ["auc"], num_resamples=100
    )
    monkeypatch.setattr(bootstrap, "_BLOCK_ENTRIES", 350)
    assert (
        bootstrap.compute_intervals(
            labels, scores, np.arange(50), ["auc"], num_resamples=100
        )
        == whole
    )


@pytest.mark.parametrize("count", [0, 3])
def test_fewer_than_two_groups_have_no_interval(count):
    one = np.zeros(count, int), np.full(count, 0.5), ["a"] * count
    assert np.isnan(bootstrap.compute_intervals(*one, ["fpr"])["fpr"]).all()


def test_shares_of_bins():
    labels = np.array([0, 1, 1, 1, 0, 0])
    scores = np.array([0.0, 0.02, 0.97, 1.0, 0.99, 0.5])
    assert bootstrap.assign_bins(scores).tolist() == [0, 0, 14, 14, 14, 7]
    shares = bootstrap.compute_calibration_intervals(labels, scores, np.arange(6))
    assert shares[0] == (0, 1) and shares[14] == (0, 1)
    assert np.isnan(shares[7]).all() and np.isnan(shares[3]).all()
