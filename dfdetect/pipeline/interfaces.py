"""What the pipeline asks of parts that others make."""

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from dfdetect.pipeline import chunking


class NeighbourIndex(Protocol):
    """Known images in whose midst heads are looked for, see `retrieval.neighbours`.

    Attributes:
        embedding: The embedding that it was made with, see `embedding.description`.
        NOTHING: By the name of an output, what stands where there is no neighbour.
    """

    embedding: dict[str, Any]
    NOTHING: Mapping[str, Any]

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """What `search` returns."""

    def describe(self) -> dict[str, Any]:
        """What the manifest of a graph keeps of it."""

    def search(self, queries: tf.Tensor) -> chunking.Outputs:
        """The nearest entries of each query, by operations in a graph.

        Args:
            queries: float32 `[Q, D]` of unit length; Q may be 0.
        """
