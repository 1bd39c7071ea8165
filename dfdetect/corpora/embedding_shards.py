"""The Beam pipeline that embeds a corpus: patterns to shards of embeddings.

It is that of `corpus_detection` with another handler. The shard
`prefix-00003-of-00100.npz` has the embeddings and entries of its files, see
`retrieval.index_building.pack`, and which of the files could not be read.
`retrieval.merging` makes an index of them.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference import base as inference

from dfdetect.corpora import (
    corpus_detection,
    file_access,
    process_handler,
    shards,
)
from dfdetect.iterators import batched
from dfdetect.media import source_files

PRECISIONS = ("float16", "float32")

_MOST_IN_SHARD = 2000  # Images by default.


@dataclasses.dataclass(frozen=True)
class EmbeddingSettings:
    """What is embedded, how, and where shards go.

    Attributes:
        inputs: See `file_access.list_files`.
        output: Prefix of the shards; may be a URL.
        model: Folder of an exported graph; None for the default weights.
        kind: One of `embedding.KINDS`.
        of_heads: Whether each head is embedded rather than the whole image.
        thumbnail_side: See `index_building.build_index`.
        batch_size: Images at once.
        precision: One of `PRECISIONS`; float16 moves a cosine by less than .001.
        files_per_shard: About how many files a shard has; by default at most 2,000, see
            `shards.Division`.
        total: Number of shards of an earlier run, or None.
    """

    inputs: tuple[str, ...]
    output: str
    model: str | None = None
    kind: str = "content"
    of_heads: bool = False
    thumbnail_side: int = 96
    batch_size: int = 16
    precision: str = "float16"
    files_per_shard: int | None = None
    total: int | None = None


class ShardEmbedder:
    """Embeds the files of shards; loads the graph once a process.

    Args:
        settings: How files are embedded.
    """

    def __init__(self, settings: EmbeddingSettings) -> None:
        from dfdetect.export import graph_cache
        from dfdetect.pipeline import embedding

        model = graph_cache.load(settings.model, lambda line: None)
        self._settings = settings
        self._embedder = embedding.Embedder(model, settings.kind, settings.of_heads)
        self._lock = threading.Lock()

    def embed(self, shard: shards.Shard) -> tuple[bytes, dict[str, int]]:
        """Embeds the images of a shard.

        Returns:
            The packed shard, and the number of images by status.
        """
        from dfdetect.retrieval import index_building

        rows = [np.zeros((0, self._embedder.dimension), np.float32)]
        entries: list[Any] = []
        unread: dict[str, str] = {}
        without_heads: list[str] = []
        statuses: dict[str, int] = {}
        with self._lock:
            for batch in batched(self._select(shard), self._settings.batch_size):
                found = index_building.embed_batch(
                    batch, self._embedder, self._settings.thumbnail_side
                )
                for image, one in found:
                    statuses[one.status] = statuses.get(one.status, 0) + 1
                    if one.problem:
                        unread[image.source] = one.problem
                    rows.append(one.embeddings)
                    entries += one.entries
                    if one.has_no_heads:
                        without_heads.append(image.id)
        more = {
            "embedding": self._embedder.describe(),
            "paths": [one.path for one in shard.files],
            "unread": unread,
            index_building.WITHOUT_HEADS: without_heads,
            "statuses": statuses,
        }
        joined = np.concatenate(rows).astype(self._settings.precision)
        return index_building.pack(joined, entries, more), statuses

    def _select(self, shard: shards.Shard) -> Iterator[Any]:
        """Selects images as `train/index.py` does."""
        from dfdetect.retrieval import index_building

        for found in shard.files:
            kind = "" if found.problem else file_access.identify_kind(found.path)
            source = source_files.select_source(found, kind, clips=False)
            if source is not None:
                path = file_access.identify(source.path)
                read = functools.partial(_read, path, source.problem)
                yield index_building.IndexedImage(path, read, source=path)


def _read(path: str, problem: str) -> bytes:
    if problem:
        raise OSError(problem)
    return file_access.read(path)


def build(settings: EmbeddingSettings) -> Callable[[beam.Pipeline], Any]:
    """Returns a function that adds the transforms of a run to a pipeline."""

    def add(pipeline: beam.Pipeline) -> Any:
        handler = process_handler.ProcessHandler(
            functools.partial(ShardEmbedder, settings),
            ShardEmbedder.embed,
            process_handler.count_threads(pipeline),
        )
        division = shards.Division(
            batch_size=settings.batch_size,
            most=_MOST_IN_SHARD,
            files_per_shard=settings.files_per_shard,
            total=settings.total,
            num_processes=process_handler.count_processes(pipeline),
        )
        return (
            corpus_detection.divide(pipeline, settings.inputs, division)
            | "Pass over" >> beam.Filter(_is_missing, settings.output)
            | "Embed" >> inference.RunInference(handler)
            | "Write" >> beam.Map(_write, settings.output)
        )

    return add


def _is_missing(shard: shards.Shard, output: str) -> bool:
    """Whether no earlier run has embedded just these files."""
    from dfdetect.retrieval import index_building

    name = shard.name(output, ".npz")
    if not file_access.exists(name):
        return True
    # The embeddings stay unread.
    more = file_access.look_into(name, index_building.unpack_further)
    return more["paths"] != [one.path for one in shard.files]


def _write(prediction: Any, output: str) -> None:
    shard: shards.Shard = prediction.example
    content, statuses = prediction.inference
    for status, number in statuses.items():
        beam.metrics.Metrics.counter("dfdetect", f"embedded/{status}").inc(number)
    file_access.write(shard.name(output, ".npz"), content)
