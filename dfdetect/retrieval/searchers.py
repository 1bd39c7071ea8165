"""Searches the nearest rows of a matrix, by brute force or by ScaNN.

Rows and queries are float32, and of unit length if the metric is "cosine". Searchers
return positions of rows, int64 `[Q, K]`, nearest first, and values, float32 `[Q, K]`:
cosine similarities or Euclidean distances. K is at most the number of rows.
"""

import abc
import dataclasses
import math
from typing import Any

import numpy as np

METRICS = ("cosine", "euclidean")

Nearest = tuple[np.ndarray, np.ndarray]

_BLOCK = 2**24  # Values in one product of queries and rows: 64 MiB.
_SAMPLE = 256  # Rows that measure recall when tuning.
_MIN_TREE_ROWS = 16  # ScaNN cannot train a tree on fewer.


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
        at_once = max(1, _BLOCK // len(self.rows))
        found = [
            self._of_block(queries[start : start + at_once], k)
            for start in range(0, len(queries), at_once)
        ]
        if not found:
            return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
        positions, values = zip(*found, strict=True)
        return np.concatenate(positions), np.concatenate(values)

    def describe(self) -> dict[str, Any]:
        return {"name": "brute_force"}

    def _of_block(self, queries: np.ndarray, k: int) -> Nearest:
        closeness = queries @ self.rows.T
        if self.metric == "euclidean":
            # -(|q - r|^2 - |q|^2); the last term is the same for all rows.
            closeness = 2 * closeness - np.einsum("nd,nd->n", self.rows, self.rows)
        # All that are as near as the k-th, so that ties are broken by position.
        least = np.partition(closeness, -k, axis=1)[:, -k]
        positions = np.empty((len(queries), k), np.int64)
        for query, values in enumerate(closeness):
            candidates = np.flatnonzero(values >= least[query])
            order = np.argsort(-values[candidates], kind="stable")
            positions[query] = candidates[order[:k]]
        if self.metric == "cosine":
            return positions, np.take_along_axis(closeness, positions, 1)
        # Recomputed for the few rows left, without the rounding error of the product.
        differences = queries[:, None] - self.rows[positions]
        return positions, np.linalg.norm(differences, axis=-1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ScaNNSettings:
    """Settings of a ScaNN search.

    Attributes:
        leaves: Number of partitions of the rows.
        leaves_searched: Number of partitions searched per query.
        reordered: Number of candidates whose values are computed exactly.
    """

    leaves: int
    leaves_searched: int
    reordered: int


def default_settings(num_rows: int) -> ScaNNSettings:
    """Returns settings for a number of rows.

    The number of leaves is its square root, as ScaNN's authors advise. Searching a
    tenth of them and reordering 100 candidates finds .99 of the nearest ten of 20,000
    to 100,000 of our embeddings, see `train/benchmark_retrieval.py`.

    Source: google-research/scann, docs/algorithms.md, "Rules of thumb".
    """
    leaves = max(1, round(math.sqrt(num_rows)))
    return ScaNNSettings(leaves, max(1, math.ceil(leaves / 10)), 100)


class ScaNN(Searcher):
    """ScaNN: a tree of partitions, quantized search within, exact reordering.

    Source: Guo et al., Accelerating Large-Scale Inference with Anisotropic Vector
    Quantization, ICML 2020.

    Args:
        rows: float32 `[N, D]`.
        metric: One of `METRICS`.
        settings: By default `default_settings` the number of rows.
        directory: Folder written by `save` for these rows, loaded instead of building.

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
    ) -> None:
        super().__init__(rows, metric)
        self.settings = settings or default_settings(len(rows))
        library = import_scann()
        if directory is None:
            self._searcher = build_scann(library.builder, rows, metric, self.settings)
            return
        try:
            self._searcher = library.load_searcher(directory)
        # Its parser raises many types.
        except Exception as error:
            raise ValueError(
                f"{directory} is not a ScaNN searcher: {error}."
            ) from error

    def search(self, queries: np.ndarray, k: int) -> Nearest:
        positions, values = self.approximate(queries, k)
        # The leaves searched may have fewer than k rows.
        short = np.flatnonzero((positions < 0).any(axis=1))
        if len(short):
            exact = BruteForce(self.rows, self.metric).search(queries[short], k)
            positions[short], values[short] = exact
        return positions, values

    def approximate(self, queries: np.ndarray, k: int) -> Nearest:
        """Like `search`, with -1 and NaN where ScaNN finds fewer than `k` rows."""
        if not len(queries):
            return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
        options = {
            "final_num_neighbors": k,
            "leaves_to_search": self.settings.leaves_searched,
            "pre_reorder_num_neighbors": max(self.settings.reordered, k),
        }
        if len(queries) == 1:
            found = [x[None] for x in self._searcher.search(queries[0], **options)]
        else:
            found = self._searcher.search_batched(queries, **options)
        short = ((0, 0), (0, k - found[0].shape[1]))
        positions = np.pad(np.asarray(found[0], np.int64), short, constant_values=-1)
        values = np.pad(
            np.asarray(found[1], np.float32), short, constant_values=math.nan
        )
        if self.metric == "euclidean":
            values = np.sqrt(np.maximum(values, 0))
        positions[~np.isfinite(values)] = -1
        return positions, values

    def describe(self) -> dict[str, Any]:
        return {"name": "scann", **dataclasses.asdict(self.settings)}

    def save(self, directory: str) -> None:
        self._searcher.serialize(directory, relative_path=True)


def build_scann(
    make_builder: Any, rows: np.ndarray, metric: str, settings: ScaNNSettings
) -> Any:
    """Builds a ScaNN searcher.

    Args:
        make_builder: `builder` of ScaNN's module for Python or for TensorFlow.
        rows: float32 `[N, D]`.
        metric: One of `METRICS`.
        settings: Defaults of the search; each call may override them.
    """
    distance = {"cosine": "dot_product", "euclidean": "squared_l2"}[metric]
    builder = make_builder(rows, min(10, len(rows)), distance)
    if len(rows) < _MIN_TREE_ROWS:
        return builder.score_brute_force().build()
    builder = builder.tree(
        settings.leaves,
        settings.leaves_searched,
        training_sample_size=min(len(rows), 100_000),
        # Otherwise recall on unit vectors of classifiers is only .65 to .77.
        spherical=metric == "cosine",
    )
    threshold = 0.2 if metric == "cosine" else math.nan
    builder = builder.score_ah(2, anisotropic_quantization_threshold=threshold)
    return builder.reorder(settings.reordered).build()


def tune(searcher: ScaNN, target_recall: float, k: int = 10) -> ScaNN:
    """Tunes the settings of a searcher, in place, to the fastest that reach a recall.

    Args:
        searcher: Searcher with any settings.
        target_recall: Recall in (0, 1] of the `k` nearest other rows of random rows.
        k: Number of neighbours.

    Raises:
        ValueError: No settings reach it.
    """
    rows, k = searcher.rows, min(k, len(searcher.rows) - 1)
    if k < 1:
        return searcher  # A single row is always found.
    generator = np.random.default_rng(0)
    chosen = generator.choice(len(rows), min(_SAMPLE, len(rows)), replace=False)
    # Each row also finds itself, which is left out.
    expected, _ = BruteForce(rows, searcher.metric).search(rows[chosen], k + 1)
    best = 0.0
    leaves = searcher.settings.leaves
    for searched in _doubling(max(1, leaves // 50), leaves):
        for reordered in (50, 100, 200, 400):
            settings = ScaNNSettings(leaves, searched, reordered)
            searcher.settings = settings
            found, _ = searcher.approximate(rows[chosen], k + 1)
            recall = _recall_of_others(expected, found, chosen)
            best = max(best, recall)
            if recall >= target_recall:
                return searcher
    raise ValueError(
        f"target_recall must be at most {best:.3f}, the best here, got {target_recall}."
    )


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


def _recall_of_others(
    expected: np.ndarray, found: np.ndarray, chosen: np.ndarray
) -> float:
    shares = []
    for wanted, came, self_position in zip(expected, found, chosen, strict=True):
        others = set(wanted.tolist()) - {self_position}
        shares.append(len(others & set(came.tolist())) / len(others))
    return float(np.mean(shares))


def _doubling(first: int, last: int) -> list[int]:
    values = [first]
    while values[-1] < last:
        values.append(min(2 * values[-1], last))
    return values
