"""Looks up the known heads nearest to the heads of an image."""

from typing import Any

import numpy as np

from dfdetect import labels
from dfdetect.pipeline import embedding, interfaces, result_lines
from dfdetect.retrieval import familiarity
from dfdetect.retrieval.entries import Exclusion, Neighbour
from dfdetect.retrieval.index import Index

_DIGITS = 4


class Lookup:
    """Looks up heads in an index.

    Args:
        index: Index with the metric "cosine".
        described: Manifest of the index.
        model: Pipeline that embeds the heads, see `embedding.Embedder`.
        given_crops: Whether each image is one head, cropped as those of the index.

    Raises:
        ValueError: The index has another model or another metric.
    """

    def __init__(
        self,
        index: Index,
        described: dict[str, Any],
        model: interfaces.Pipeline,
        given_crops: bool = False,
    ) -> None:
        if index.metric != "cosine":
            raise ValueError(
                f"the metric of the index must be 'cosine', got {index.metric!r}."
            )
        self._embedder = embedding.Embedder(
            model,
            index.embedding.get("kind", ""),
            of_heads=True,
            given_crops=given_crops,
        )
        embedding.check(index.embedding, self._embedder.describe())
        self._index = index
        self._familiar = described["familiarity"]
        _, entries = index.snapshot()
        self._labels = set(entries.labels.tolist())

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray
    ) -> list[result_lines.KnownImages]:
        """Looks up each head of an image.

        Args:
            image: `[height, width, 3]` uint8 RGB, upright.
            boxes: `[K, 4]` in the format of `dfdetect.boxes`.

        Returns:
            For each head: `nearest_real` and `nearest_fake`, each with `id`, `source`
            and `similarity`, or None if the index has no such entry; `familiarity` of
            `familiarity.measure_familiarity`, None if the index has no quantiles; and
            `unfamiliar`, whether the head is unlike anything in the index.
        """
        queries = self._embedder.embed_boxes(image, boxes)
        nearest = self._index.search(queries, 1)
        by_label = [
            self._of_label(queries, label) for label in (labels.REAL, labels.FAKE)
        ]
        found: list[result_lines.KnownImages] = []
        for any_label, real, fake in zip(nearest, *by_label, strict=True):
            share = None
            if self._familiar and any_label:
                share = familiarity.measure_familiarity(
                    any_label[0].value, self._familiar
                )
            found.append(
                {
                    "nearest_real": _described(real),
                    "nearest_fake": _described(fake),
                    "familiarity": None if share is None else round(share, _DIGITS),
                    "unfamiliar": share is not None
                    and share < familiarity.UNFAMILIAR_BELOW,
                }
            )
        return found

    def _of_label(self, queries: np.ndarray, label: int) -> list[list[Neighbour]]:
        if label not in self._labels:
            return [[] for _ in queries]
        others = Exclusion(kept_label=label)
        return self._index.search(queries, 1, [others] * len(queries))


def describe_neighbour(neighbour: Neighbour) -> dict[str, Any]:
    """Converts a neighbour to JSON."""
    entry = neighbour.entry
    known = 0 <= entry.label < len(labels.NAMES)
    return {
        "id": entry.id,
        "similarity": round(neighbour.value, _DIGITS),
        "label": labels.NAMES[entry.label] if known else None,
        "source": entry.source,
    }


def _described(neighbours: list[Neighbour]) -> result_lines.Nearest | None:
    if not neighbours:
        return None
    found = describe_neighbour(neighbours[0])
    return {
        "id": found["id"],
        "similarity": found["similarity"],
        "source": found["source"],
    }
