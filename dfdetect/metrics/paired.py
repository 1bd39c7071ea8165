"""Compares two ways to judge the same images over the same resamples of their groups.

A way may leave images without an answer. Such an image counts as a guess, so that no
figure gains by silence: its fake probability is .5, and it is half right.
"""

from typing import Any

import numpy as np

from dfdetect import labels as label_names
from dfdetect.metrics import bootstrap

FIGURES = ("auc", "balanced_accuracy", "accuracy")

_GUESS = 0.5


def compare(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The figures of both ways, and the first's less the second's.

    Args:
        labels: `[N]` of `dfdetect.labels`.
        first: `[N]`, fake probabilities in [0, 1]; NaN without an answer.
        second: `[N]`, the same of the other way.
        groups: `[N]`, what the images belong to.
        num_resamples: Of the bootstrap.
        seed: Of the drawing.

    Returns:
        For each way, and for their difference, each of `FIGURES` and again with
        `_interval`, 95 % by group: `auc`; `balanced_accuracy` and `accuracy` at a
        threshold of .5. The interval of a difference is that of paired resamples. NaN
        is a figure that wants a class that is missing.
    """
    labels = np.asarray(labels)
    ways = [np.asarray(way, np.float64) for way in (first, second)]
    points = [_figures(labels, way, np.ones((1, len(labels)))) for way in ways]
    drawn: list[list[dict[str, np.ndarray]]] = [[], []]
    for weights in bootstrap.resampled_weights(groups, num_resamples, seed):
        for way, blocks in zip(ways, drawn, strict=True):
            blocks.append(_figures(labels, way, weights))
    of_first, of_second = (
        _with_intervals(*pair) for pair in zip(points, drawn, strict=True)
    )
    difference = _with_intervals(
        _less(*points), [_less(*pair) for pair in zip(*drawn, strict=True)]
    )
    return of_first, of_second, difference


def _figures(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Each of `FIGURES`, `[R]`, under weights `[R, N]`."""
    answered = ~np.isnan(probabilities)
    if not len(labels):
        return {name: np.full(len(weights), np.nan) for name in FIGURES}
    guesses = np.where(answered, probabilities, _GUESS)
    # 1 fake, 0 real, and half of each without an answer.
    called = np.where(answered, guesses >= _GUESS, _GUESS)
    decided = bootstrap.Weighted(labels, called, weights)
    right = 1 - np.abs(decided.scores - decided.labels)
    of_reals = decided.mean(right, label_names.REAL)
    of_fakes = decided.mean(right, label_names.FAKE)
    ranked = bootstrap.Weighted(labels, guesses, weights)
    return {
        "auc": bootstrap.FIGURES["auc"](ranked),
        "balanced_accuracy": (of_reals + of_fakes) / 2,
        "accuracy": decided.mean(right),
    }


def _less(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    return {name: first[name] - second[name] for name in FIGURES}


def _with_intervals(
    point: dict[str, np.ndarray], drawn: list[dict[str, np.ndarray]]
) -> dict[str, Any]:
    figures: dict[str, Any] = {name: float(point[name][0]) for name in FIGURES}
    for name in FIGURES:
        # Without one class there is no figure, whatever a resample may say.
        blocks = [] if np.isnan(figures[name]) else [block[name] for block in drawn]
        figures[f"{name}_interval"] = list(bootstrap.interval_of(blocks))
    return figures
