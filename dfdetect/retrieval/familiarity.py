"""Measures whether an image resembles anything in an index.

A model's verdict on an image unlike its training data is unreliable. The scale is set
by the index itself: by the similarities between its entries.
"""

from collections.abc import Sequence

import numpy as np

from dfdetect.retrieval.entries import Entry, Exclusion
from dfdetect.retrieval.index import Index

# Images with a lower familiarity are reported as unfamiliar.
UNFAMILIAR_BELOW = 0.01

_SAMPLE = 1000
_QUANTILES = 201


def compute_quantiles(index: Index, seed: int = 0) -> list[float]:
    """Computes quantiles of the entries' similarity to the nearest other group.

    Args:
        index: Index with the metric "cosine".
        seed: Seed of the choice of at most 1,000 entries.

    Returns:
        201 values, ascending; empty if there are fewer than two groups.
    """
    searcher, entries = index.snapshot()
    if searcher is None:
        return []
    generator = np.random.default_rng(seed)
    count = min(_SAMPLE, len(entries))
    chosen = np.sort(generator.choice(len(entries), count, replace=False))
    found = index.search(
        searcher.rows[chosen], 1, [_related(entries[i]) for i in chosen]
    )
    nearest = [neighbours[0].value for neighbours in found if neighbours]
    if not nearest:
        return []
    levels = np.linspace(0, 1, _QUANTILES)
    return [float(value) for value in np.quantile(nearest, levels)]


def measure_familiarity(similarity: float, known: Sequence[float]) -> float:
    """Returns the share of entries with at most this similarity to another, in [0, 1].

    Args:
        similarity: Cosine similarity of a query to its nearest entry.
        known: Result of `compute_quantiles`, not empty.
    """
    levels = np.linspace(0, 1, len(known))
    return float(np.interp(similarity, known, levels, left=0.0, right=1.0))


def _related(entry: Entry) -> Exclusion:
    """Returns the exclusion of the entries that share the origin of `entry`."""
    return Exclusion(id=entry.id, group=entry.group, digest=entry.digest)
