"""Finds images in different splits that show the same, by embeddings and an index.

Finds what a perceptual hash cannot: copies that were cut further or mirrored, frames of
one scene, a fake and its source. On faces of DFDC (600, in 300 groups), 95 % of copies
cut by a tenth are at least .954 alike, of those also scaled by half, mirrored and saved
with quality 75 .890; the nearest face of another group is .898 alike in the median and
.929 in one of ten, often the same actor in the same room. What is found is therefore to
be looked at, and no proof.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

from dfdetect import iterators
from dfdetect.data import prepared
from dfdetect.evaluation.audit.survey import Survey
from dfdetect.retrieval.entries import Entry, Exclusion
from dfdetect.retrieval.index import Index

MIN_SIMILARITY = 0.95

_NEIGHBOURS = 20  # Of one image; thousands of equal frames would make millions.
_BATCH = 16

# Encoded images to float32 `[B, D]`, zeros for what cannot be decoded.
Embed = Callable[[Sequence[bytes]], np.ndarray]


def find_pairs(
    builder: tfds.core.DatasetBuilder,
    survey: Survey,
    *,
    embed: Embed,
    min_similarity: float = MIN_SIMILARITY,
    count: Callable[[str], None] = lambda split: None,
) -> list[dict]:
    """Finds pairs of images in different splits that are alike.

    Args:
        builder: A prepared data set with encoded images in `image`.
        survey: Survey of the data set.
        embed: Embeds a batch.
        min_similarity: The least cosine of a pair.
        count: Called for each image, with its split.

    Returns:
        For each pair `similarity`, and `filename`, `split` and `label` of both in
        lists, the most alike first.
    """
    rows, places = _embedded(builder, survey, embed, count)
    entries = [
        Entry(str(place), group=str(survey.splits[place])) for place in places.tolist()
    ]
    if len(rows) < 2:
        return []
    index = Index(rows, entries)
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(rows), _BATCH):
        batch = slice(start, start + _BATCH)
        others = [Exclusion(group=entry.group) for entry in entries[batch]]
        near = index.search(rows[batch], _NEIGHBOURS, others)
        for place, neighbours in zip(places[batch].tolist(), near, strict=True):
            for neighbour in neighbours:
                if neighbour.value >= min_similarity:
                    pair = sorted((place, int(neighbour.entry.id)))
                    found[pair[0], pair[1]] = neighbour.value
    labels = survey.labels
    return [
        {
            "similarity": round(similarity, 4),
            "filename": [survey.filenames[one], survey.filenames[other]],
            "split": [str(survey.splits[one]), str(survey.splits[other])],
            "label": None if labels is None else labels[[one, other]].tolist(),
        }
        for (one, other), similarity in sorted(found.items(), key=lambda x: -x[1])
    ]


def _embedded(
    builder: tfds.core.DatasetBuilder,
    survey: Survey,
    embed: Embed,
    count: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the images that have any contrast, and their places."""

    def contents() -> Iterator[bytes]:
        for split in builder.info.splits:
            # In the order of the survey, which is not that of `records`.
            for example in prepared.read_encoded(builder, split).as_numpy_iterator():
                count(split)
                yield example["image"]

    rows = [embed(batch) for batch in iterators.batched(contents(), _BATCH)]
    everything = np.concatenate(rows)
    places = np.flatnonzero(survey.comparable & everything.any(axis=1))
    return everything[places], places
