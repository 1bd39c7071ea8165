"""Contracts of the chain: of a pipeline, its manifest, and the index it looks into."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import tensorflow as tf

from dfdetect import manifest
from dfdetect.pipeline import chunking

FORMAT = 1  # Version of the graph's signatures and manifest.
# The signatures that every graph has, and the methods that answer them.
SIGNATURES = {
    "serving_default": "detect",
    "frames": "detect_frames",
    "classify_crops": "classify_crops",
    "embed": "embed",
    "embed_content": "embed_content",
    "explain": "explain",
}
# Those that take boxes besides images; graphs exported by earlier versions lack them.
BOX_SIGNATURES = {"explain_heads": "explain_heads"}


# A signature: a batch of encoded images or frames to outputs of as many rows.
Signature = Callable[[tf.Tensor], chunking.Outputs]


class Pipeline(Protocol):
    """Whatever answers as a pipeline: just built, frozen, exported, or cached.

    See `deepfake_pipeline.DeepfakePipeline` for what the signatures take and give.

    Attributes:
        manifest: Its manifest, of kind "pipeline".
        detect: Encoded images to heads and probabilities.
        detect_frames: Frames of one size to heads and probabilities.
        classify_crops: Encoded crops to probabilities.
        embed: Encoded crops to embeddings by which they are judged.
        embed_content: Encoded crops to embeddings of what they show; None for a graph
            that was exported before there was such an embedding.
        explain: Encoded crops to heat maps; None for a graph that was exported
            without them.
        neighbours: Encoded images to known images; None without an index.
    """

    @property
    def manifest(self) -> dict[str, Any]: ...
    @property
    def detect(self) -> Signature: ...
    @property
    def detect_frames(self) -> Signature: ...
    @property
    def classify_crops(self) -> Signature: ...
    @property
    def embed(self) -> Signature: ...
    @property
    def embed_content(self) -> Signature | None: ...
    @property
    def explain(self) -> Signature | None: ...
    @property
    def neighbours(self) -> Signature | None: ...


class NeighbourIndex(Protocol):
    """Known images among which the graph looks heads up, see `retrieval.neighbours`.

    Attributes:
        embedding: The embedding that it was made with, see `embedding.describe`.
        NOTHING: By the name of an output, the value where there is no neighbour.
    """

    embedding: dict[str, Any]
    NOTHING: Mapping[str, Any]

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """Specs of what `search` returns."""

    def describe(self) -> dict[str, Any]:
        """Returns what the manifest of a graph says of the index."""

    def search(self, queries: tf.Tensor) -> chunking.Outputs:
        """Finds the nearest entries of each query, by operations in a graph.

        Args:
            queries: float32 `[Q, D]` of unit length; Q may be 0.
        """


def check(description: dict[str, Any]) -> None:
    """Refuses the manifest of a graph that this version cannot build or call.

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
