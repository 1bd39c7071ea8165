"""Embeddings of a corpus as shards, and the index of them."""

import functools

import cv2
import numpy as np
import pytest

import mixed_corpus
import tiny_pipeline
from dfdetect.export import graph_cache, saved_pipeline
from dfdetect.pipeline import embedding
from dfdetect.retrieval import index_building, merging

beam = pytest.importorskip("apache_beam")
from dfdetect.corpora import embedding_shards, running, shards  # noqa: E402


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    directory = tmp_path_factory.mktemp("graph") / "1"
    saved_pipeline.save(tiny_pipeline.build(), str(directory))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_pipeline, "load", functools.cache(saved_pipeline.load))
        yield str(directory)


def _draw(folder, count):
    random = np.random.default_rng(5)
    folder.mkdir()
    for i in range(count):
        coarse = random.integers(0, 256, (5, 6, 3)).astype(np.uint8)
        image = cv2.resize(coarse, (96, 72), interpolation=cv2.INTER_CUBIC)
        mixed_corpus.write_image(folder / f"{i:02d}.png", image)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("a note")


@pytest.mark.slow
def test_the_index_of_shards_is_nearly_that_of_one_process(tmp_path, graph):
    folder, prefix = tmp_path / "images", str(tmp_path / "run" / "part")
    _draw(folder, 20)
    settings = embedding_shards.EmbeddingSettings(
        (str(folder),), prefix, model=graph, files_per_shard=6
    )
    running.run(embedding_shards.build(settings), "DirectRunner", ())
    paths = sorted((tmp_path / "run").glob("*.npz"))
    assert len(paths) == shards.find_total(prefix) == 4
    unread = [index_building.unpack(str(path))[2]["unread"] for path in paths]
    assert sum(map(len, unread)) == 1
    assert all(index_building.unpack(str(x))[0].dtype == np.float16 for x in paths)

    parts = [merging.open_shard(str(path)) for path in paths]
    index = merging.merge(parts, str(tmp_path / "index"))
    model = graph_cache.load(graph, print)
    given = [
        index_building.IndexedImage(str(path), path.read_bytes, source=str(path))
        for path in sorted(folder.glob("*.*g"))
    ]
    whole = index_building.build_index(
        given,
        len(given),
        origin={},
        embedder=embedding.Embedder(model, "content"),
        output=str(tmp_path / "whole"),
        say=lambda line: None,
    )
    (one, entries), (other, others) = index.snapshot(), whole.snapshot()
    assert sorted(entries, key=lambda x: x.id) == sorted(others, key=lambda x: x.id)
    rows = {entry.id: row for entry, row in zip(others, other.rows, strict=True)}
    cosines = [
        rows[entry.id] @ row for entry, row in zip(entries, one.rows, strict=True)
    ]
    assert min(cosines) > 0.9999

    # Again: only the shard of the new image is embedded.
    _, before = zip(*[(x, x.stat().st_mtime_ns) for x in paths], strict=True)
    mixed_corpus.write_image(folder / "new.png", np.full((40, 40, 3), 99, np.uint8))
    settings = embedding_shards.EmbeddingSettings(
        (str(folder),), prefix, model=graph, total=shards.find_total(prefix)
    )
    running.run(embedding_shards.build(settings), "DirectRunner", ())
    after = [path.stat().st_mtime_ns for path in paths]
    assert sum(x != y for x, y in zip(before, after, strict=True)) == 1
