"""Indexes of many parts: other indexes and shards of embeddings."""

import numpy as np
import pytest

from dfdetect.retrieval import index_building, merging, storage
from dfdetect.retrieval.index import Entry, Index

EMBEDDING = {
    "kind": "content",
    "fingerprint": "a" * 64,
    "dimension": 8,
    "crop_margin": 1.3,
    "unit": "pictures",
}


def _draw(count, seed):
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _save(directory, rows, names, **changes):
    entries = [Entry(name, thumbnail=name.encode()) for name in names]
    index = Index(rows, entries, embedding={**EMBEDDING, **changes})
    storage.save(index, str(directory))
    return str(directory)


def test_a_merged_index_has_all_entries_and_the_last_of_a_name(tmp_path):
    one, two = _draw(5, 1), _draw(4, 2)
    first = _save(tmp_path / "1", one, "abcde")
    second = _save(tmp_path / "2", two, "efgh")
    parts = [merging.open_index(first), merging.open_index(second)]
    merging.merge(parts, str(tmp_path / "all"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "all"]
    index, described = storage.load(str(tmp_path / "all"), thumbnails=True)
    assert described["count"] == len(index) == 8
    wanted = dict(zip("abcdefgh", [*one[:4], *two], strict=True))
    for name, row in wanted.items():
        ((nearest,),) = index.search(row[None], 1)
        assert nearest.entry.id == name and nearest.entry.thumbnail == name.encode()
        assert nearest.value == pytest.approx(1, abs=1e-6)
    searcher, _ = index.snapshot()
    assert isinstance(searcher.rows, np.memmap)

    # Onto one of its own parts, which stays readable until the end.
    merging.merge(parts, first)
    assert len(storage.load(first)[0]) == 8


def test_heads_are_those_of_the_last_part_that_has_their_image(tmp_path):
    names = ["a#0", "a#1", "a#2", "b#0", "c#0"]
    first = _save(tmp_path / "1", _draw(5, 1), names, unit="heads")
    new, path = _draw(1, 2), tmp_path / "2.npz"
    more = {"embedding": {**EMBEDDING, "unit": "heads"}, "without_heads": ["b"]}
    path.write_bytes(index_building.pack(new, [Entry("a#0")], more))
    parts = [merging.open_index(first), merging.open_shard(str(path))]
    index = merging.merge(parts, str(tmp_path / "all"))
    searcher, entries = index.snapshot()
    assert [entry.id for entry in entries] == ["c#0", "a#0"]
    np.testing.assert_allclose(searcher.rows[1], new[0], atol=1e-6)


def test_half_precision_shards_give_nearly_the_same_index(tmp_path):
    rows = _draw(300, 3)
    parts = []
    for i in range(3):
        entries = [Entry(str(j)) for j in range(100 * i, 100 * i + 100)]
        some = rows[100 * i : 100 * i + 100].astype(np.float16)
        path = tmp_path / f"{i}.npz"
        more = {"embedding": EMBEDDING}
        path.write_bytes(index_building.pack(some, entries, more))
        parts.append(merging.open_shard(str(path)))
    index = merging.merge(parts, str(tmp_path / "index"))
    searcher, _ = index.snapshot()
    assert searcher.rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(searcher.rows, axis=1), 1, atol=1e-6)
    cosines = searcher.rows @ searcher.rows.T
    assert np.abs(cosines - rows @ rows.T).max() < 1e-3


def test_parts_of_other_embeddings_are_refused(tmp_path):
    parts = [
        merging.open_index(_save(tmp_path / "1", _draw(2, 1), "ab")),
        merging.open_index(
            _save(tmp_path / "2", _draw(2, 1), "cd", fingerprint="b" * 64)
        ),
    ]
    with pytest.raises(ValueError, match="2 beside .*1: .*fingerprint must be"):
        merging.merge(parts, str(tmp_path / "all"))
    heads = merging.open_index(_save(tmp_path / "3", _draw(2, 1), "ef", unit="heads"))
    with pytest.raises(ValueError, match="3 beside .*1: the index holds heads"):
        merging.merge([parts[0], heads], str(tmp_path / "all"))
    assert not (tmp_path / "all").exists()
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="x.npz is not a shard of embeddings"):
        merging.open_shard(str(tmp_path / "x.npz"))
