"""Cross-validates simple models by group."""

from collections.abc import Callable

import numpy as np

NUM_FOLDS = 5

Predict = Callable[[np.ndarray], np.ndarray]


def explain_unfit(truths: np.ndarray, groups: np.ndarray) -> str:
    """Returns why folds cannot be made; "" where they can."""
    if len(np.unique(truths)) < 2:
        return "all images have the same label"
    smallest = min(len(np.unique(groups[truths == label])) for label in (0, 1))
    if smallest < NUM_FOLDS:
        return f"a class has {smallest} groups; {NUM_FOLDS} folds need as many"
    return ""


def predict_out_of_fold(
    fit: Callable[[np.ndarray, np.ndarray], Predict],
    values: np.ndarray,
    *,
    truths: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
) -> np.ndarray:
    """Predicts each fifth of the groups by a model fitted to the others.

    Args:
        fit: Takes values `[M, F]` and labels `[M]`; returns a function from values to
            scores.
        values: `[N, F]`.
        truths: `[N]` of `dfdetect.labels`; see `explain_unfit`.
        groups: `[N]`.
        seed: Seed of the folds.

    Returns:
        Scores `[N]`.
    """
    import sklearn.model_selection

    scores = np.zeros(len(truths))
    folds = sklearn.model_selection.StratifiedGroupKFold(
        NUM_FOLDS, shuffle=True, random_state=seed
    )
    for train, held_out in folds.split(values, truths, groups):
        scores[held_out] = fit(values[train], truths[train])(values[held_out])
    return scores
