"""Searches the nearest rows of a matrix, by brute force or by ScaNN.

Rows and queries are float32, and of unit length if the metric is "cosine". Searchers
return positions of rows, int64 `[Q, K]`, nearest first, and values, float32 `[Q, K]`:
cosine similarities or Euclidean distances. K is at most the number of rows.
"""

import abc
import dataclasses
import math
import os
from typing import Any

import numpy as np

from dfdetect.retrieval import projection as projections

METRICS = ("cosine", "euclidean")

Nearest = tuple[np.ndarray, np.ndarray]

BLOCK = 2**24  # Values in one product of queries and rows: 64 MiB.
_MIN_TREE_ROWS = 16  # ScaNN cannot train a tree on fewer.
# Rows that ScaNN trains on: a number, or so many for each leaf.
_TRAINED, _OF_LEAF = 20_000, 100
_PROJECTION = "projection.npy"


class Searcher(abc.ABC):
    """Finds the nearest rows of queries.

    Attributes:
        rows: float32 `[N, D]`.
        metric: One of `METRICS`.
    """

    def __init__(self, rows: np.ndarray, metric: str) -> None:
        self.rows = rows
        self.metric = metric

    @abc.abstractmethod
    def search(self, queries: np.ndarray, k: int) -> Nearest:
        """Finds the nearest rows of each query.

        Args:
            queries: float32 `[Q, D]`.
            k: Number of rows per query, 1 to N.

        Returns:
            Positions int64 `[Q, K]` and values float32 `[Q, K]`, nearest first.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns name and settings for JSON."""

    def save(self, directory: str) -> None:  # noqa: B027
        """Saves to a new folder what is expensive to rebuild, if anything is."""


class BruteForce(Searcher):
    """Compares each query with all rows; the first of equally near rows wins."""

    def search(self, queries: np.ndarray, k: int) -> Nearest:
        return self.search_others(queries, k, None)

    def search_others(
        self, queries: np.ndarray, k: int, left_out: np.ndarray | None
    ) -> Nearest:
        """Like `search`, but for the rows that each query leaves out.

        Args:
            queries: float32 `[Q, D]`.
            k: Number of rows per query, 1 to N.
            left_out: bool `[Q, N]`; None for no row.

        Returns:
            See `search`, with -1 as the position where fewer than `k` rows are left.
        """
        at_once = max(1, BLOCK // len(self.rows))
        found = []
        for start in range(0, len(queries), at_once):
            block = slice(start, start + at_once)
            marks = None if left_out is None else left_out[block]
            found.append(self._of_block(queries[block], k, marks))
        if not found:
            return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
        positions, values = zip(*found, strict=True)
        return np.concatenate(positions), np.concatenate(values)

    def describe(self) -> dict[str, Any]:
        return {"name": "brute_force"}

    def _of_block(
        self, queries: np.ndarray, k: int, left_out: np.ndarray | None
    ) -> Nearest:
        closeness = queries @ self.rows.T
        if self.metric == "euclidean":
            # -(|q - r|^2 - |q|^2); the last term is the same for all rows.
            closeness = 2 * closeness - np.einsum("nd,nd->n", self.rows, self.rows)
        if left_out is not None:
            closeness[left_out] = -np.inf
        # All that are as near as the k-th, so that ties are broken by position.
        least = np.partition(closeness, -k, axis=1)[:, -k]
        positions = np.empty((len(queries), k), np.int64)
        for query, values in enumerate(closeness):
            candidates = np.flatnonzero(values >= least[query])
            order = np.argsort(-values[candidates], kind="stable")
            positions[query] = candidates[order[:k]]
        nearness = np.take_along_axis(closeness, positions, 1)
        found = np.where(np.isneginf(nearness), -1, positions)
        if self.metric == "cosine":
            return found, nearness
        # Recomputed for the few rows left, without the rounding error of the product.
        differences = queries[:, None] - self.rows[positions]
        return found, np.linalg.norm(differences, axis=-1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ScaNNSettings:
    """Settings of a ScaNN search; see `tuning` for how they are found.

    Attributes:
        leaves: Number of partitions of the rows.
        leaves_searched: Number of partitions searched per query.
        reordered: Number of candidates whose values are computed exactly.
        dimension: Dimension to which ScaNN's copy of the rows is projected, see
            `projection`; 0 where it is not.
        projected_metric: Metric by which projections are compared, one of `METRICS`;
            None for that of the rows. Distances order rows of unit length as products
            do, and partition those that lie in clusters better.
    """

    leaves: int
    leaves_searched: int
    reordered: int
    dimension: int = 0
    projected_metric: str | None = None

    def candidate_metric(self, metric: str) -> str:
        """The metric by which ScaNN looks for candidates among rows of a metric."""
        return self.projected_metric or metric


def default_settings(num_rows: int) -> ScaNNSettings:
    """Returns settings for a number of rows, from which tuning starts.

    The number of leaves is its square root, as ScaNN's authors advise.

    Source: google-research/scann, docs/algorithms.md, "Rules of thumb".
    """
    leaves = max(1, round(math.sqrt(num_rows)))
    return ScaNNSettings(leaves, max(1, math.ceil(leaves / 10)), 100)


class ScaNN(Searcher):
    """ScaNN: a tree of partitions and quantized search within; exact values by NumPy.

    Source: Guo et al., Accelerating Large-Scale Inference with Anisotropic Vector
    Quantization, ICML 2020.

    Args:
        rows: float32 `[N, D]`.
        metric: One of `METRICS`.
        settings: By default `default_settings` the number of rows.
        directory: Folder written by `save` for these rows, loaded instead of building.
        projection: Projection to `settings.dimension`; fitted by default. Not needed
            with a directory.

    Attributes:
        settings: Settings of the next searches; only those of the search may change.
        projection: None if ScaNN's copy is not projected.

    Raises:
        ImportError: ScaNN is not installed.
        ValueError: `directory` cannot be loaded.
    """

    def __init__(
        self,
        rows: np.ndarray,
        metric: str,
        settings: ScaNNSettings | None = None,
        directory: str | None = None,
        projection: projections.Projection | None = None,
    ) -> None:
        super().__init__(rows, metric)
        self.settings = settings or default_settings(len(rows))
        self.projection = projection
        library = import_scann()
        if directory is not None:
            self._load(library, directory)
            return
        copied = rows
        if self.settings.dimension:
            if projection is None:
                fitted = projections.fit(rows)
                self.projection = fitted.truncate(self.settings.dimension)
            assert self.projection is not None
            copied = self.projection.project_rows(rows)
        self._searcher = build_scann(
            library.builder, copied, self._candidate_metric, self.settings
        )

    @property
    def _candidate_metric(self) -> str:
        return self.settings.candidate_metric(self.metric)

    def search(self, queries: np.ndarray, k: int) -> Nearest:
        positions, values = self.approximate(queries, k)
        # The leaves searched may have fewer than k rows.
        short = np.flatnonzero((positions < 0).any(axis=1))
        if len(short):
            exact = BruteForce(self.rows, self.metric).search(queries[short], k)
            positions[short], values[short] = exact
        return positions, values

    def approximate(
        self, queries: np.ndarray, k: int, removed: np.ndarray | None = None
    ) -> Nearest:
        """Like `search`, with -1 and NaN where ScaNN finds fewer than `k` rows.

        Args:
            queries: float32 `[Q, D]`.
            k: Number of rows per query.
            removed: bool `[N]`, rows that must not be found.
        """
        positions = np.full((len(queries), k), -1, np.int64)
        values = np.full((len(queries), k), math.nan, np.float32)
        if not len(queries):
            return positions, values
        count = max(self.settings.reordered, k)
        if removed is not None:
            # As many more as would be found among the removed if these were all alike.
            count = min(len(self.rows), count + int(removed.sum()))
        candidates = self.find_candidates(queries, count)
        for query, row in enumerate(candidates):
            found = row[row >= 0]
            if removed is not None:
                found = found[~removed[found]]
            compared = self.rows.take(found, 0)
            exact = compute_values(queries[query], compared, self.metric)
            # The first of equally near rows wins.
            order = np.lexsort((found, exact if self.metric != "cosine" else -exact))
            order = order[:k]
            positions[query, : len(order)] = found[order]
            values[query, : len(order)] = exact[order]
        return positions, values

    def find_candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Finds the nearest rows by ScaNN's quantized values alone.

        Args:
            queries: float32 `[Q, D]`, Q from 1 on.
            count: Most candidates of a query.

        Returns:
            Positions int64 `[Q, C]`, C at most `count`, nearest first; -1 as padding.
        """
        if self.projection is not None:
            queries = self.projection.project_queries(queries, self._candidate_metric)
        options = {
            "final_num_neighbors": count,
            "leaves_to_search": self.settings.leaves_searched,
            # For folders of earlier versions, in which ScaNN itself reorders.
            "pre_reorder_num_neighbors": count,
        }
        if len(queries) == 1:
            found = [x[None] for x in self._searcher.search(queries[0], **options)]
        else:
            found = self._searcher.search_batched(queries, **options)
        positions = np.asarray(found[0], np.int64)
        return np.where(np.isfinite(found[1]), positions, -1)

    def describe(self) -> dict[str, Any]:
        return {"name": "scann", **dataclasses.asdict(self.settings)}

    def save(self, directory: str) -> None:
        self._searcher.serialize(directory, relative_path=True)
        if self.projection is not None:
            np.save(os.path.join(directory, _PROJECTION), self.projection.pack())

    def _load(self, library: Any, directory: str) -> None:
        try:
            self._searcher = library.load_searcher(directory)
            if self.settings.dimension:
                path = os.path.join(directory, _PROJECTION)
                packed = np.load(path, allow_pickle=False)
                self.projection = projections.unpack(packed)
        # Its parser raises many types.
        except Exception as error:
            raise ValueError(
                f"{directory} is not a ScaNN searcher: {error}."
            ) from error


def build_scann(
    make_builder: Any, rows: np.ndarray, metric: str, settings: ScaNNSettings
) -> Any:
    """Builds a ScaNN searcher of candidates.

    Args:
        make_builder: `builder` of ScaNN's module for Python or for TensorFlow.
        rows: float32 `[N, D]`, projected if `settings.dimension` says so.
        metric: One of `METRICS`, see `ScaNNSettings.candidate_metric`.
        settings: Defaults of the search; each call may override them.
    """
    distance = {"cosine": "dot_product", "euclidean": "squared_l2"}[metric]
    builder = make_builder(rows, min(10, len(rows)), distance)
    if len(rows) < _MIN_TREE_ROWS:
        return builder.score_brute_force().build()
    builder = builder.tree(
        settings.leaves,
        settings.leaves_searched,
        training_sample_size=min(len(rows), max(_TRAINED, _OF_LEAF * settings.leaves)),
        # Otherwise recall on unit vectors of classifiers is only .65 to .77; centered
        # rows have no unit length.
        spherical=metric == "cosine" and not settings.dimension,
    )
    threshold = 0.2 if metric == "cosine" else math.nan
    return builder.score_ah(
        # Few dimensions deserve 4 bits each, many 2.
        1 if settings.dimension else 2,
        anisotropic_quantization_threshold=threshold,
        training_sample_size=_TRAINED,
    ).build()


def compute_values(query: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    """Computes cosine similarities or Euclidean distances, float32 `[N]`.

    Args:
        query: float32 `[D]`, of unit length for "cosine".
        rows: float32 `[N, D]`, as well.
        metric: One of `METRICS`.
    """
    if metric == "cosine":
        # Not a product of matrices, which would wake the threads of BLAS. Twice as fast
        # as `einsum`.
        return np.einsum("nd,d->n", rows, query)
    return np.linalg.norm(rows - query, axis=-1).astype(np.float32)


def import_scann() -> Any:
    """Imports ScaNN's module for use in Python.

    Raises:
        ImportError: ScaNN is not installed.
    """
    try:
        from scann.scann_ops.py import scann_ops_pybind
    except ImportError as error:
        raise ImportError("ScaNN is missing: pip install scann==1.4.2") from error
    return scann_ops_pybind
