"""Nearest-neighbour search as part of an exported graph."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.pipeline import chunking
from dfdetect.retrieval import amended, searchers, tuning
from dfdetect.retrieval.index import Index

_QUERIES_AT_ONCE = 64
_BLOCK = 2**24  # Values of candidates that are compared at once: 64 MiB.


class Neighbours(tf.Module):
    """Finds the nearest entries of an index by TensorFlow ops.

    Args:
        index: Index with the metric "cosine", not empty.
        top_k: Number of entries per query; at most all of the index.
        exact: Whether to compare with all rows, by ops of stock TensorFlow. Otherwise
            ScaNN searches, whose ops a server must load, as `dfdetect serve` does, with
            the settings of the index; those of an index that is searched exactly are
            tuned first.

    Raises:
        ImportError: ScaNN is not installed.
        ValueError: The index is empty, has another metric, or its dimension differs
            from that of its embedding model.
    """

    # Values of missing neighbours.
    NOTHING = {
        "neighbour_ids": b"",
        "neighbour_similarities": math.nan,
        "neighbour_labels": -1,
    }

    def __init__(self, index: Index, top_k: int, exact: bool) -> None:
        super().__init__(name="neighbours")
        searcher, entries = index.snapshot()
        if searcher is None or index.metric != "cosine":
            raise ValueError(
                "the index of a graph must have entries and the metric 'cosine', got "
                f"{len(index)} entries and {index.metric!r}."
            )
        if index.dimension != index.embedding.get("dimension"):
            raise ValueError(
                "the index of a graph must have embeddings of the stated dimension, "
                f"[N, {index.embedding.get('dimension')}], got "
                f"[{len(index)}, {index.dimension}]."
            )
        self.top_k = min(top_k, len(entries))
        self.exact = exact
        self.embedding = dict(index.embedding)
        self._dimension = index.dimension
        # Variables, because the constants of a graph are limited to 2 GB.
        self._ids = tf.Variable(
            np.array(
                [x.encode(errors="surrogateescape") for x in entries.iterate_ids()]
            ),
            trainable=False,
        )
        self._labels = tf.Variable(entries.labels, trainable=False)
        self._rows = tf.Variable(searcher.rows, trainable=False)
        if not exact:
            self._build_scann(searcher, index)

    def _build_scann(self, searcher: searchers.Searcher, index: Index) -> None:
        """Builds ScaNN's searcher of all rows, with the settings of the index."""
        rows = searcher.rows
        if isinstance(searcher, amended.Amended):
            searcher = searcher.base
        if not isinstance(searcher, searchers.ScaNN):
            searcher = tuning.build(rows, index.metric, index.target_recall)
        self._settings = searcher.settings
        metric = self._settings.candidate_metric(index.metric)
        self._basis = None
        if searcher.projection is not None:
            self._basis = tf.Variable(searcher.projection.basis, trainable=False)
            # What projections of queries are shifted by.
            offset = searcher.projection.project_queries(
                np.zeros([1, rows.shape[1]], np.float32), metric
            )
            self._offset = tf.Variable(offset, trainable=False)
            rows = searcher.projection.project_rows(rows)
        self._searcher = searchers.build_scann(
            import_scann_ops().builder, rows, metric, self._settings
        ).serialize_to_module()

    def describe(self) -> dict[str, Any]:
        """Returns its part of the manifest of a graph."""
        return {
            "count": int(self._labels.shape[0]),
            "top_k": self.top_k,
            "exact": self.exact,
            "embedding": self.embedding,
        }

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """Specs of the outputs of `search`."""
        shape = [None, self.top_k]
        return {
            "neighbour_ids": tf.TensorSpec(shape, tf.string),
            "neighbour_similarities": tf.TensorSpec(shape, tf.float32),
            "neighbour_labels": tf.TensorSpec(shape, tf.int32),
        }

    def search(self, queries: tf.Tensor) -> chunking.Outputs:
        """Finds the nearest entries.

        Args:
            queries: float32 `[Q, D]` of unit length; Q may be 0.

        Returns:
            With K = `top_k`, nearest first: `neighbour_ids` string `[Q, K]`;
            `neighbour_similarities` float32 `[Q, K]`, cosines; `neighbour_labels` int32
            `[Q, K]`, -1 for unlabeled entries. If ScaNN finds fewer, the rest are "",
            NaN and -1.
        """
        queries = tf.ensure_shape(queries, [None, self._dimension])
        find, at_once = self._exactly, _QUERIES_AT_ONCE
        if not self.exact:
            compared = max(self._settings.reordered, self.top_k) * self._dimension
            find, at_once = self._by_scann, min(at_once, max(1, _BLOCK // compared))
        return chunking.map_chunks(find, [queries], at_once, self.specs)

    def _exactly(self, queries: tf.Tensor) -> chunking.Outputs:
        products = tf.matmul(queries, self._rows, transpose_b=True)
        values, positions = tf.math.top_k(products, self.top_k)
        return self._named(positions, values)

    def _by_scann(self, queries: tf.Tensor) -> chunking.Outputs:
        searcher = import_scann_ops().searcher_from_module(self._searcher)
        projected = queries
        if self._basis is not None:
            projected = queries @ self._basis + self._offset
        count = min(max(self._settings.reordered, self.top_k), self._rows.shape[0])
        found, quantized = searcher.search_batched(
            projected,
            final_num_neighbors=count,
            leaves_to_search=self._settings.leaves_searched,
            pre_reorder_num_neighbors=count,
        )
        # ScaNN returns as many columns as the query with most results has, and NaN for
        # queries that have fewer.
        found = tf.where(tf.math.is_finite(quantized), tf.cast(found, tf.int32), -1)
        missing = [[0, 0], [0, tf.maximum(0, self.top_k - tf.shape(found)[1])]]
        found = tf.pad(found, missing, constant_values=-1)
        candidates = tf.gather(self._rows, tf.maximum(found, 0))
        values = tf.linalg.matvec(candidates, queries)
        values = tf.where(found >= 0, values, -math.inf)
        values, order = tf.math.top_k(values, self.top_k)
        positions = tf.gather(found, order, batch_dims=1)
        values = tf.where(positions >= 0, values, math.nan)
        return self._named(positions, values)

    def _named(self, positions: tf.Tensor, values: tf.Tensor) -> chunking.Outputs:
        found = positions >= 0
        positions = tf.where(found, positions, 0)
        named = {
            "neighbour_ids": tf.gather(self._ids, positions),
            "neighbour_similarities": values,
            "neighbour_labels": tf.gather(self._labels, positions),
        }
        return {
            name: tf.where(found, value, tf.constant(self.NOTHING[name], value.dtype))
            for name, value in named.items()
        }


def import_scann_ops() -> Any:
    """Imports ScaNN's TensorFlow ops; a graph with them can be loaded only after that.

    Raises:
        ImportError: ScaNN is not installed.
    """
    searchers.import_scann()  # Raises a helpful error.
    from scann.scann_ops.py import scann_ops

    return scann_ops
