"""ScaNN indexes whose entries change a little, without building again."""

import json

import numpy as np
import pytest

from dfdetect.retrieval import amended, searchers, storage, tuning
from dfdetect.retrieval.index import Index


def _rows(count, seed=0, dimension=32):
    centers = np.random.default_rng(7).normal(size=(50, dimension))
    random = np.random.default_rng(seed)
    chosen = centers[random.integers(0, 50, count)]
    return np.float32(chosen + 0.3 * random.normal(size=(count, dimension)))


def _names(start, stop):
    return [f"n{i}" for i in range(start, stop)]


def _ids(index, queries, k):
    return [[x.entry.id for x in row] for row in index.search(queries, k)]


@pytest.fixture(name="built")
def _built(monkeypatch):
    """An index of 1,000 rows, the other rows, and the number of builds so far."""
    builds = []
    build = tuning.build

    def count(*arguments):
        builds.append(1)
        return build(*arguments)

    monkeypatch.setattr(tuning, "build", count)
    rows = _rows(1600)
    return Index(rows[:1000], _names(0, 1000), searcher="scann"), rows, builds


def test_a_few_rows_are_added_and_removed_without_building(built, tmp_path):
    index, rows, builds = built
    for place in range(1000, 1010):
        index.add(rows[place : place + 1], [f"n{place}"]).result(60)
    index.remove(["n3", "n1004"]).result(60)
    assert len(builds) == 1 and len(index) == 1008
    assert _ids(index, rows[1000:1010:2], 1) == [[f"n{i}"] for i in (1000, 1002)] + [
        _ids(index, rows[1004:1005], 1)[0],
        ["n1006"],
        ["n1008"],
    ]
    everything = _ids(index, rows[[3, 1004]], 1008)
    for found in everything:
        assert len(set(found)) == 1008 and not {"n3", "n1004"} & set(found)
    exact = Index(rows[:1010], _names(0, 1010), searcher="brute_force")
    exact.remove(["n3", "n1004"]).result(60)
    queries = _rows(100, 1)
    pairs = zip(_ids(index, queries, 10), _ids(exact, queries, 10), strict=True)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in pairs]) >= 0.95
    # The same name may be given again; those that are there may not.
    index.add(rows[3:4], ["n3"]).result(60)
    assert _ids(index, rows[3:4], 1) == [["n3"]]
    with pytest.raises(ValueError, match="ids must differ, got 'n5' twice"):
        index.add(rows[3:4], ["n5"]).result(60)
    with pytest.raises(KeyError, match="no entry 'n1004'"):
        index.remove(["n1004"]).result(60)
    # What was removed is not kept: it is built again before it is saved.
    storage.save(index, str(tmp_path / "index"))
    assert len(builds) == 2 and len(index) == 1009
    loaded, described = storage.load(str(tmp_path / "index"))
    assert described["count"] == 1009 and "rows" not in described["searcher"]
    assert _ids(loaded, queries, 3) == _ids(index, queries, 3)


def test_what_was_added_is_saved_with_the_searcher_of_before(built, tmp_path):
    index, rows, builds = built
    index.add(rows[1000:1100], _names(1000, 1100)).result(60)
    storage.save(index, str(tmp_path / "index"))
    loaded, described = storage.load(str(tmp_path / "index"))
    assert len(builds) == 1 and described["searcher"]["rows"] == 1000
    queries = rows[900:1100]
    assert _ids(loaded, queries, 3) == _ids(index, queries, 3)
    assert isinstance(loaded.snapshot()[0], amended.Amended)
    loaded.add(rows[1100:1101], ["n1100"]).result(60)
    assert _ids(loaded, rows[1100:1101], 1) == [["n1100"]] and len(builds) == 1


def test_many_changes_build_again(built):
    index, rows, builds = built
    index.add(rows[1000:1600], _names(1000, 1600)).result(60)
    assert len(builds) == 2 and isinstance(index.snapshot()[0], searchers.ScaNN)
    index.remove(_names(0, 100)).result(60)
    assert len(builds) == 3 and len(index) == 1500
    assert _ids(index, rows[1500:1501], 1) == [["n1500"]]
    index.remove(_names(100, 1600)).result(60)
    assert len(index) == 0 and index.search(rows[:2], 3) == [[], []]
    index.add(rows[:1], ["n0"]).result(60)
    assert _ids(index, rows[:1], 3) == [["n0"]]


def test_euclidean_neighbours_are_those_of_all_rows():
    rows = _rows(700)
    base = searchers.ScaNN(
        rows[:600], "euclidean", searchers.ScaNNSettings(20, 20, 600)
    )
    removed = np.arange(700) % 150 == 0
    changed = amended.Amended(base, rows, removed)
    queries = _rows(30, 2)
    positions, values = changed.search(queries, 7)
    distances = np.linalg.norm(queries[:, None] - rows[None], axis=-1)
    distances[:, removed] = np.inf
    wanted = np.argsort(distances, 1)[:, :7]
    np.testing.assert_array_equal(positions, wanted)
    nearest = np.take_along_axis(distances, wanted, 1)
    np.testing.assert_allclose(values, nearest, rtol=1e-4)


def test_an_index_of_format_1_opens(tmp_path):
    rows, queries = _rows(800), _rows(20, 1)
    index = Index(rows, _names(0, 800), searcher="scann")
    storage.save(index, str(tmp_path / "index"))
    path = tmp_path / "index/manifest.json"
    described = json.loads(path.read_text())
    described["format"] = 1
    del described["target_recall"], described["searcher"]["dimension"]
    path.write_text(json.dumps(described))
    loaded, _ = storage.load(str(tmp_path / "index"))
    assert _ids(loaded, queries, 5) == _ids(index, queries, 5)
    described["format"] = 3
    path.write_text(json.dumps(described))
    with pytest.raises(
        ValueError, match=r"format of .* must be one of \(1, 2\), got 3"
    ):
        storage.load(str(tmp_path / "index"))
