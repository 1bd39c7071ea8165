"""Aggregates the fake probabilities of one person over time to one."""

import math
from collections.abc import Callable, Sequence

import numpy as np

# Used by `_confident`. Fewer than half of the heads may be fakes: a face is swapped
# only where it is clearly visible.
_SURELY_FAKE, _SURELY_REAL = 0.8, 0.2
_SHARE_OF_FAKES, _SHARE_OF_REALS = 0.4, 0.9
_LEAST_FAKES = 11

_TOP_SHARE = 0.25


def aggregate(probabilities: Sequence[float], method: str) -> float:
    """Aggregates fake probabilities of one person.

    Args:
        probabilities: Values in [0, 1]; NaN, for heads that were not judged, is
            ignored.
        method: One of `METHODS`.

    Returns:
        A value in [0, 1]; NaN where no head was judged.

    Raises:
        ValueError: There is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    values = np.asarray(probabilities, np.float64)
    values = values[~np.isnan(values)]
    return float(METHODS[method](values)) if len(values) else math.nan


def _top_k(values: np.ndarray) -> float:
    """Returns the mean of the most suspicious quarter."""
    count = math.ceil(_TOP_SHARE * len(values))
    return np.sort(values)[-count:].mean()


def _confident(values: np.ndarray) -> float:
    """Returns the mean of the confident values where many agree, else of all.

    Source: the idea is Seferbekov's, winner of the DeepFake Detection Challenge 2020
    (selimsef/dfdc_deepfake_challenge, `confident_strategy`).
    """
    fake, real = values > _SURELY_FAKE, values < _SURELY_REAL
    if fake.sum() >= max(_LEAST_FAKES, _SHARE_OF_FAKES * len(values)):
        return values[fake].mean()
    if real.mean() > _SHARE_OF_REALS:
        return values[real].mean()
    return values.mean()


METHODS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": np.mean,
    "median": np.median,
    "max": np.max,
    "top_k": _top_k,
    "confident": _confident,
}
