"""Metrics of nearest-neighbour search."""

import math
from collections.abc import Sequence

import numpy as np

from dfdetect.metrics import bootstrap


def recall_at_k(expected: np.ndarray, found: np.ndarray) -> float:
    """Mean share of the expected neighbours that were found.

    Args:
        expected: `[Q, K]`, positions in any order.
        found: `[Q, M]`, positions, -1 for none.
    """
    expected, found = np.asarray(expected), np.asarray(found)
    if len(expected) != len(found):
        raise ValueError(
            f"found must have {len(expected)} rows as expected, got {len(found)}."
        )
    shares = [
        np.isin(wanted, came).mean()
        for wanted, came in zip(expected, found, strict=True)
    ]
    return float(np.mean(shares)) if shares else math.nan


def share_with_interval(
    hits: Sequence[bool] | np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Share of hits, and its 95 % interval by resampling whole groups.

    Args:
        hits: `[Q]` bool.
        groups: `[Q]`, group of each query, such as its video.
        seed: Seed of the resampling.

    Returns:
        The share and both ends of its interval. The share is NaN without queries, the
        interval with fewer than two groups.
    """
    hits = np.asarray(hits, int)
    if not len(hits):
        return math.nan, (math.nan, math.nan)
    ends = bootstrap.compute_intervals(hits, hits, groups, ["prevalence"], seed=seed)
    return float(hits.mean()), ends["prevalence"]
