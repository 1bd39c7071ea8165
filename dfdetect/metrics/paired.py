"""Compares two methods on the same images, over the same resamples of their groups.

A method may leave images without an answer. Such an image counts as a guess, with a
fake probability of .5 and half correct, so that abstaining never improves a metric.
"""

from typing import Any

import numpy as np

from dfdetect import labels as label_names
from dfdetect.metrics import bootstrap

METRICS = ("auc", "balanced_accuracy", "accuracy")

_GUESS = 0.5


def compare_methods(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    *,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Computes the metrics of two methods, and the first's minus the second's.

    Args:
        labels: `[N]` of `dfdetect.labels`.
        first: `[N]`, fake probabilities in [0, 1] of the first method; NaN without an
            answer.
        second: `[N]`, fake probabilities of the second method.
        groups: `[N]`, group of each image, such as its video.
        num_resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        For each method, and for their difference, each of `METRICS` and its 95 %
        interval by group, with the suffix `_interval`: `auc`; `balanced_accuracy` and
        `accuracy` at a threshold of .5. The interval of a difference is that of paired
        resamples. Metrics that need a missing class are NaN.
    """
    labels = np.asarray(labels)
    methods = [np.asarray(method, np.float64) for method in (first, second)]
    points = [_figures(labels, method, np.ones((1, len(labels)))) for method in methods]
    drawn: list[list[dict[str, np.ndarray]]] = [[], []]
    for weights in bootstrap.resample_weights(
        groups, num_resamples=num_resamples, seed=seed
    ):
        for method, blocks in zip(methods, drawn, strict=True):
            blocks.append(_figures(labels, method, weights))
    first_figures, second_figures = (
        _with_intervals(*pair) for pair in zip(points, drawn, strict=True)
    )
    difference = _with_intervals(
        _subtract(*points), [_subtract(*pair) for pair in zip(*drawn, strict=True)]
    )
    return first_figures, second_figures, difference


def _figures(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes each of `METRICS`, `[R]`, with weights `[R, N]`."""
    answered = ~np.isnan(probabilities)
    if not len(labels):
        return {name: np.full(len(weights), np.nan) for name in METRICS}
    guesses = np.where(answered, probabilities, _GUESS)
    # 1 is fake, 0 real, and .5 no answer.
    called = np.where(answered, guesses >= _GUESS, _GUESS)
    decided = bootstrap.WeightedScores(labels, called, weights)
    right = 1 - np.abs(decided.scores - decided.labels)
    real_accuracy = decided.mean(right, label_names.REAL)
    fake_accuracy = decided.mean(right, label_names.FAKE)
    ranked = bootstrap.WeightedScores(labels, guesses, weights)
    return {
        "auc": bootstrap.METRICS["auc"](ranked),
        "balanced_accuracy": (real_accuracy + fake_accuracy) / 2,
        "accuracy": decided.mean(right),
    }


def _subtract(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    return {name: first[name] - second[name] for name in METRICS}


def _with_intervals(
    point: dict[str, np.ndarray], drawn: list[dict[str, np.ndarray]]
) -> dict[str, Any]:
    figures: dict[str, Any] = {name: float(point[name][0]) for name in METRICS}
    for name in METRICS:
        # A metric that is undefined on all images has no interval.
        blocks = [] if np.isnan(figures[name]) else [block[name] for block in drawn]
        figures[f"{name}_interval"] = list(bootstrap.compute_interval(blocks))
    return figures
