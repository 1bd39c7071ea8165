"""Whether anything like an image has been indexed at all.

The verdict of a model on what is like nothing that it was trained on is worth little.
How alike is alike, the index itself tells: by how near its entries are to others.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dfdetect.retrieval.index import Entry, Index

# Of the entries of an index, so many are as far from the others, or farther.
UNFAMILIAR_BELOW = 0.01

_SAMPLE = 1000
_QUANTILES = 201


def quantiles(index: Index, seed: int = 0) -> list[float]:
    """Similarities of entries to the nearest entry of another group, as quantiles.

    Args:
        index: Of the metric "cosine".
        seed: Of the drawing of at most 1,000 entries.

    Returns:
        201 values, ascending; none where there are fewer than two groups.
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


def familiarity(similarity: float, known: Sequence[float]) -> float:
    """The share of entries that are no nearer to another than this, in [0, 1].

    Args:
        similarity: Of a query to its nearest entry.
        known: See `quantiles`; at least one.
    """
    levels = np.linspace(0, 1, len(known))
    return float(np.interp(similarity, known, levels, left=0.0, right=1.0))


def _related(entry: Entry) -> Callable[[Entry], bool]:
    """Tells the entries that are near to it because they are of the same origin."""

    def related(other: Entry) -> bool:
        return other.id == entry.id or (
            (bool(entry.group) and other.group == entry.group)
            or (bool(entry.digest) and other.digest == entry.digest)
        )

    return related
