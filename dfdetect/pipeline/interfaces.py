"""What a graph answers and says of itself, and what it asks of its index."""

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from dfdetect import manifest
from dfdetect.pipeline import chunking

FORMAT = 1  # Of the graph's signatures and manifest.
# Those that every graph has, and the methods that they are.
SIGNATURES = {
    "serving_default": "detect",
    "frames": "detect_frames",
    "classify_crops": "classify_crops",
    "embed": "embed",
    "embed_content": "embed_content",
    "explain": "explain",
}


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


def check(description: dict[str, Any]) -> None:
    """Refuses a manifest of a graph that this version cannot make or call.

    Raises:
        ValueError: It is incomplete, of another format, or its detector has classes.
    """
    manifest.check(description, "pipeline")
    if description["format"] != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {description['format']!r}.")
    if description["detector"]["num_classes"] != 1:
        raise ValueError(
            "num_classes of the detector must be 1, heads, "
            f"got {description['detector']['num_classes']}."
        )
