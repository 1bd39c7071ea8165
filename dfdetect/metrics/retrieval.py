"""How well a search finds what it should."""

import math
from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 1000


def recall_at_k(expected: np.ndarray, found: np.ndarray) -> float:
    """The mean share of the expected neighbours that were found.

    Args:
        expected: `[Q, K]`, positions; their order does not matter.
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
    hits: Sequence[bool] | np.ndarray, groups: Sequence[str] | np.ndarray, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The share of hits, and its 95 % interval by resampling whole groups.

    Args:
        hits: `[Q]`.
        groups: `[Q]`, what the queries belong to.
        seed: Of the drawing.

    Returns:
        The share, and both ends; NaN where there is no query, or but one group.
    """
    hits = np.asarray(hits, float)
    if not len(hits):
        return math.nan, (math.nan, math.nan)
    _, member_of = np.unique(groups, return_inverse=True)
    counts = np.bincount(member_of)
    if len(counts) < 2:
        return float(hits.mean()), (math.nan, math.nan)
    sums = np.bincount(member_of, hits)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(
        len(counts), np.full(len(counts), 1 / len(counts)), NUM_RESAMPLES
    )
    drawn = (weights @ sums) / (weights @ counts)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(hits.mean()), (float(low), float(high))
