"""A ScaNN searcher whose rows have changed a little since it was built."""

from typing import Any

import numpy as np

from dfdetect.retrieval import searchers

# Rows that are compared one by one: half a millisecond at most.
MOST_ADDED = 500
# Share of the rows that may be removed: each costs a candidate more.
MOST_REMOVED = 0.01


class Amended(searchers.Searcher):
    """Searches earlier rows by ScaNN and the rows added since exactly.

    Args:
        base: Searcher of the first rows.
        rows: float32 `[N, D]`: those of `base`, then those added.
        removed: bool `[N]`, rows that are not found any more; None for none.

    Attributes:
        base: As given.
        removed: As given.
    """

    def __init__(
        self,
        base: searchers.ScaNN,
        rows: np.ndarray,
        removed: np.ndarray | None = None,
    ) -> None:
        super().__init__(rows, base.metric)
        self.base = base
        self.removed = removed

    @property
    def is_small(self) -> bool:
        """Whether the changes are few enough to do without building again."""
        added = len(self.rows) - len(self.base.rows)
        num_removed = 0 if self.removed is None else int(self.removed.sum())
        return added <= MOST_ADDED and num_removed <= MOST_REMOVED * len(self.rows)

    def search(self, queries: np.ndarray, k: int) -> searchers.Nearest:
        """See `Searcher.search`; K is at most the number of rows not removed."""
        first = len(self.base.rows)
        from_base = None if self.removed is None else self.removed[:first]
        positions, values = self.base.approximate(queries, k, from_base)
        added = self._search_exactly(queries, k, first)
        both = [
            np.concatenate(x, 1) for x in zip((positions, values), added, strict=True)
        ]
        positions, values = _keep_nearest(*both, k=k, metric=self.metric)
        # Where ScaNN found too little, what it missed may be nearer than what it found.
        short = np.flatnonzero((positions < 0).any(axis=1))
        if len(short):
            positions[short], values[short] = self._search_exactly(queries[short], k)
        return positions, values

    def describe(self) -> dict[str, Any]:
        """Returns name and settings, and the number of rows that ScaNN knows."""
        return {**self.base.describe(), "rows": len(self.base.rows)}

    def save(self, directory: str) -> None:
        self.base.save(directory)

    def _search_exactly(
        self, queries: np.ndarray, k: int, first: int = 0
    ) -> searchers.Nearest:
        """Compares with all rows from `first` on that are not removed."""
        live = np.arange(first, len(self.rows))
        if self.removed is not None:
            live = live[~self.removed[live]]
        if not len(live):
            shape = (len(queries), 0)
            return np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        rows = self.rows[live[0] : live[-1] + 1]
        if len(rows) != len(live):
            rows = self.rows[live]
        exact = searchers.BruteForce(rows, self.metric)
        positions, values = exact.search(queries, min(k, len(live)))
        return live[positions], values


def _keep_nearest(
    positions: np.ndarray, values: np.ndarray, *, k: int, metric: str
) -> searchers.Nearest:
    """Keeps the k nearest of `[Q, C]`; missing ones, of position -1, are the last."""
    distances = values if metric == "euclidean" else -values
    distances = np.where(positions < 0, np.inf, distances)
    order = np.lexsort((positions, distances), axis=1)[:, :k]
    return np.take_along_axis(positions, order, 1), np.take_along_axis(values, order, 1)
