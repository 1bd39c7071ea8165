"""Tunes ScaNN to the fastest search that reaches a recall.

Recall is measured by rows that are held out: each is searched for as a query, and left
out of what should be found.
"""

import dataclasses
import time

import numpy as np

from dfdetect.retrieval import projection as projections
from dfdetect.retrieval import searchers

DEFAULT_RECALL = 0.98
NUM_NEIGHBOURS = 10

_SAMPLE = 512  # Rows that are held out.
_TIMED = 64  # Of them, those that speed is measured by.
_REORDERED = (20, 25, 30, 35, 40, 50, 60, 70, 80, 100, 120, 160, 200, 300, 400)
_LEAST_DIMENSION = 128
# Candidates among which the nearest must be, by their projections alone.
_PROJECTED_CANDIDATES = 100
_TOO_SLOW = 1.2  # Times the fastest.
# Share of the allowed misses that is kept back, as recall is that of a sample.
_MARGIN = 0.1


@dataclasses.dataclass(frozen=True)
class _HeldOut:
    """Queries whose nearest rows are known.

    Attributes:
        queries: float32 `[Q, D]`, rows.
        chosen: Their positions, int64 `[Q]`.
        nearest: Positions of their nearest others, int64 `[Q, K]`.
    """

    queries: np.ndarray
    chosen: np.ndarray
    nearest: np.ndarray

    def count_found(self, found: np.ndarray) -> np.ndarray:
        """Returns recall by the number of candidates, float64 `[C]`.

        Args:
            found: Positions int64 `[Q, C]` of candidates, nearest first.
        """
        # [Q, C], as a query finds itself besides.
        hits = np.array(
            [np.isin(row, x) for row, x in zip(found, self.nearest, strict=True)]
        )
        return np.cumsum(hits.sum(0)) / self.nearest.size


def build(
    rows: np.ndarray, metric: str, target_recall: float = DEFAULT_RECALL
) -> searchers.ScaNN:
    """Builds a tuned searcher, which projects rows where their neighbours allow it.

    Args:
        rows: float32 `[N, D]`, N from 1 on.
        metric: One of `searchers.METRICS`.
        target_recall: See `tune`.

    Raises:
        ImportError: ScaNN is not installed.
        ValueError: `target_recall` is not in (0, 1].
    """
    check_recall(target_recall)
    searchers.import_scann()  # Fails before the slow part.
    held_out = _hold_out(rows, metric)
    settings, projection = searchers.default_settings(len(rows)), None
    if held_out is not None:
        projection = _choose_projection(rows, metric, held_out, target_recall)
    if projection is None:
        searcher = searchers.ScaNN(rows, metric, settings)
        if held_out is not None:
            _tune(searcher, held_out, target_recall)
        return searcher
    assert held_out is not None
    settings = dataclasses.replace(settings, dimension=projection.basis.shape[1])
    fastest, best_time = None, np.inf
    # Which is faster depends on how the rows lie.
    for compared_by in dict.fromkeys((metric, "euclidean")):
        searcher = searchers.ScaNN(
            rows,
            metric,
            dataclasses.replace(settings, projected_metric=compared_by),
            projection=projection,
        )
        seconds = _tune(searcher, held_out, target_recall)
        if fastest is None or seconds < best_time:
            fastest, best_time = searcher, seconds
    assert fastest is not None
    return fastest


def tune(
    searcher: searchers.ScaNN, target_recall: float = DEFAULT_RECALL
) -> searchers.ScaNN:
    """Tunes the settings of a search, in place, to the fastest that reach a recall.

    Args:
        searcher: Searcher with any settings.
        target_recall: Recall in (0, 1] of the ten nearest other rows of random rows,
            for single queries.

    Returns:
        The searcher.

    Raises:
        ValueError: `target_recall` is not in (0, 1].
    """
    check_recall(target_recall)
    held_out = _hold_out(searcher.rows, searcher.metric)
    if held_out is not None:
        _tune(searcher, held_out, target_recall)
    return searcher


def check_recall(target_recall: float) -> None:
    """Refuses a recall that cannot be reached.

    Raises:
        ValueError: It is not in (0, 1].
    """
    if not 0 < target_recall <= 1:
        raise ValueError(f"target_recall must be in (0, 1], got {target_recall}.")


def _hold_out(rows: np.ndarray, metric: str) -> _HeldOut | None:
    """Chooses queries; None for a single row, which is always found."""
    k = min(NUM_NEIGHBOURS, len(rows) - 1)
    if k < 1:
        return None
    generator = np.random.default_rng(0)
    count = min(_SAMPLE, len(rows))
    chosen = np.sort(generator.choice(len(rows), count, replace=False))
    found, _ = searchers.BruteForce(rows, metric).search(rows[chosen], k + 1)
    # Of equal rows, another may stand before the row itself, or even instead of it.
    nearest = np.array(
        [row[row != one][:k] for row, one in zip(found, chosen, strict=True)]
    )
    return _HeldOut(rows[chosen], chosen, nearest)


def _choose_projection(
    rows: np.ndarray, metric: str, held_out: _HeldOut, target_recall: float
) -> projections.Projection | None:
    """Chooses the smallest dimension that keeps neighbours; None if none is small."""
    if rows.shape[1] < 2 * _LEAST_DIMENSION or len(rows) < 2 * _LEAST_DIMENSION:
        return None
    whole = projections.fit(rows)
    # Half of the misses are left to the quantization.
    wanted = 1 - (1 - target_recall) / 2
    dimension = _LEAST_DIMENSION
    while dimension <= rows.shape[1] // 2:
        projection = whole.truncate(dimension)
        exact = searchers.BruteForce(projection.project_rows(rows), metric)
        queries = projection.project_queries(held_out.queries, metric)
        found, _ = exact.search(queries, min(_PROJECTED_CANDIDATES, len(rows)))
        if held_out.count_found(found)[-1] >= wanted:
            return projection
        dimension *= 2
    return None


def _tune(searcher: searchers.ScaNN, held_out: _HeldOut, target_recall: float) -> float:
    """See `tune`; returns the seconds of the queries that speed is measured by."""
    wanted = 1 - (1 - _MARGIN) * (1 - target_recall)
    leaves = searcher.settings.leaves
    fastest, best_time = None, np.inf
    for searched in _growing(max(1, leaves // 50), leaves, 1.25):
        settings = dataclasses.replace(searcher.settings, leaves_searched=searched)
        searcher.settings = settings
        count = min(_REORDERED[-1] + 1, len(searcher.rows))
        recalls = held_out.count_found(
            searcher.find_candidates(held_out.queries, count)
        )
        enough = np.flatnonzero(recalls >= wanted)
        if not len(enough):
            continue
        # Rounded up to one of a few numbers; each query finds itself as well.
        least = int(enough[0]) + 1
        reordered = next((x for x in _REORDERED if x >= least), least)
        searcher.settings = dataclasses.replace(settings, reordered=reordered)
        seconds = _time_queries(searcher, held_out.queries[:_TIMED])
        if seconds < best_time:
            fastest, best_time = searcher.settings, seconds
        elif seconds > _TOO_SLOW * best_time:
            break  # More leaves take longer.
    if fastest is None:
        fastest = _reorder_more(searcher, held_out, wanted)
    searcher.settings = fastest
    return best_time


def _reorder_more(
    searcher: searchers.ScaNN, held_out: _HeldOut, wanted: float
) -> searchers.ScaNNSettings:
    """Searches all leaves and reorders more, in the end all rows."""
    everywhere = dataclasses.replace(
        searcher.settings, leaves_searched=searcher.settings.leaves
    )
    searcher.settings = everywhere
    for count in _growing(_REORDERED[-1], len(searcher.rows), 2.0):
        found = searcher.find_candidates(held_out.queries, count)
        if held_out.count_found(found)[-1] >= wanted:
            break
    return dataclasses.replace(everywhere, reordered=count)


def _time_queries(searcher: searchers.ScaNN, queries: np.ndarray) -> float:
    """Measures processor seconds of single queries, the less of two rounds."""
    rounds = []
    for _ in range(2):
        start = time.thread_time()
        for query in queries:
            searcher.approximate(query[None], NUM_NEIGHBOURS)
        rounds.append(time.thread_time() - start)
    return min(rounds)


def _growing(first: int, last: int, factor: float) -> list[int]:
    values = [min(first, last)]
    while values[-1] < last:
        values.append(min(max(values[-1] + 1, round(factor * values[-1])), last))
    return values
