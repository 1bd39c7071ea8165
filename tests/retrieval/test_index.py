"""Searching, changing, saving and loading an index of embeddings."""

import hashlib
import json
import threading

import cv2
import numpy as np
import pytest

from dfdetect.media import source_files
from dfdetect.retrieval import familiarity, searchers, storage, tuning
from dfdetect.retrieval.entries import Entry, EntryTable, Exclusion
from dfdetect.retrieval.index import Index

_EMBEDDING = {"kind": "content", "fingerprint": "ab", "dimension": 16}


def _vectors(count, seed=0, dimension=16):
    """Draws clustered vectors, like embeddings."""
    centers = np.random.default_rng(7).normal(size=(50, dimension))
    random = np.random.default_rng(seed)
    chosen = centers[random.integers(0, 50, count)]
    return (chosen + 0.3 * random.normal(size=(count, dimension))).astype(np.float32)


def _ids(found):
    return [[neighbour.entry.id for neighbour in row] for row in found]


def _names(count):
    return [f"n{i}" for i in range(count)]


@pytest.mark.parametrize("metric", searchers.METRICS)
def test_neighbours_are_those_by_hand(metric):
    rows, queries = _vectors(300), _vectors(7, seed=1)
    index = Index(rows, _names(300), metric=metric)
    found = index.search(queries, 5)
    for query, neighbours in zip(queries, found, strict=True):
        if metric == "cosine":
            values = rows @ query
            values /= np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
            order = np.argsort(-values)[:5]
        else:
            values = np.linalg.norm(rows - query, axis=1)
            order = np.argsort(values)[:5]
        assert _ids([neighbours]) == [[f"n{i}" for i in order]]
        given = [neighbour.value for neighbour in neighbours]
        np.testing.assert_allclose(given, values[order], atol=1e-5)


def test_one_query_equals_its_batch_and_none_gives_none():
    index = Index(_vectors(200), _names(200))
    queries = _vectors(9, seed=2)
    batch = _ids(index.search(queries, 4))
    assert batch == [_ids(index.search(query[None], 4))[0] for query in queries]
    assert index.search(queries[:0], 4) == []


def test_ties_go_to_the_first():
    rows = np.ones((6, 3), np.float32)
    found = Index(rows, _names(6)).search(rows[:1], 3)
    assert _ids(found) == [["n0", "n1", "n2"]]


def test_a_small_index_gives_all_and_an_empty_one_nothing():
    rows = _vectors(3)
    assert len(Index(rows, _names(3)).search(rows[:1], 10)[0]) == 3
    assert Index(rows[:0], []).search(rows[:1], 10) == [[]]


def test_what_is_left_out_does_not_count_however_much_it_is():
    rows = _vectors(300)
    entries = [Entry(f"n{i}", label=int(i >= 290)) for i in range(300)]
    index = Index(rows, entries)
    found = index.search(rows[:2], 5, [Exclusion(kept_label=1)] * 2)
    assert all(n.entry.label == 1 for row in found for n in row)
    assert [len(row) for row in found] == [5, 5]
    everything = index.search(rows[:1], 300)[0]
    wanted = [n.entry.id for n in everything if n.entry.label == 1][:5]
    assert _ids(found)[0] == wanted


@pytest.mark.parametrize("metric", searchers.METRICS)
@pytest.mark.parametrize("searcher", ["brute_force", "scann"])
def test_each_query_leaves_out_its_own(metric, searcher):
    rows = _vectors(400)
    entries = [Entry(f"n{i}", group=f"g{i % 2}", digest=f"d{i}") for i in range(400)]
    index = Index(rows[:390], entries[:390], metric=metric, searcher=searcher)
    # A joined table, which has equal texts twice, and entries that are gone.
    index.add(rows[390:], entries[390:]).result(60)
    index.remove(["n7", "n395"]).result(60)
    leave_out = [
        Exclusion(group="g0"),
        Exclusion(group="g1", digest="d394"),
        Exclusion(id="n2"),
        Exclusion(group="stranger"),
    ]
    found = index.search(rows[:4], 300, leave_out)
    everything = index.search(rows[:4], 400)
    for row, others, exclusion in zip(found, everything, leave_out, strict=True):
        wanted = [x.entry for x in others if not exclusion.meets(x.entry)]
        assert [x.entry for x in row] == wanted[:300]
        assert len(row) == min(300, len(wanted))
    assert [len(row) for row in found[:3]] == [198, 199, 300]
    nothing = Exclusion(kept_label=0)
    assert index.search(rows[:2], 5, [nothing] * 2) == [[], []]


def test_few_entries_are_made_however_many_are_left_out(monkeypatch):
    rows = _vectors(2000)
    rows[:1000] += 100  # Nearer to each other than to any of the other group.
    entries = [Entry(f"n{i}", group=f"g{i // 1000}") for i in range(2000)]
    index = Index(rows, entries)
    read, made = EntryTable.__getitem__, []

    def count(table, place):
        made.append(place)
        return read(table, place)

    monkeypatch.setattr(EntryTable, "__getitem__", count)
    found = index.search(rows[:50], 1, [Exclusion(group="g0")] * 50)
    assert all(row[0].entry.group == "g1" for row in found)
    assert len(made) <= 50 * 20


def test_scann_finds_what_comparing_with_all_finds():
    rows, queries = _vectors(3000, dimension=32), _vectors(100, 1, 32)
    exact = Index(rows, _names(3000), searcher="brute_force")
    for metric, least in (("cosine", 0.95), ("euclidean", 0.9)):
        exact = Index(rows, _names(3000), metric=metric, searcher="brute_force")
        index = Index(rows, _names(3000), metric=metric, searcher="scann")
        expected, found = (
            _ids(exact.search(queries, 10)),
            _ids(index.search(queries, 10)),
        )
        recall = np.mean(
            [len(set(a) & set(b)) / 10 for a, b in zip(expected, found, strict=True)]
        )
        assert recall >= least
        one = index.search(queries[:1], 10)
        np.testing.assert_allclose(
            [n.value for n in one[0]],
            [n.value for n in exact.search(queries[:1], 10)[0]],
            atol=0.05,
        )


def test_scann_is_tuned_to_a_recall_or_says_what_it_reaches():
    rows = _vectors(2000, dimension=32)
    index = Index(rows, _names(2000), searcher="scann", target_recall=0.99)
    searcher, _ = index.snapshot()
    expected, _ = searchers.BruteForce(searcher.rows, "cosine").search(
        searcher.rows[:100], 10
    )
    found, _ = searcher.approximate(searcher.rows[:100], 10)
    shares = [np.isin(a, b).mean() for a, b in zip(expected, found, strict=True)]
    assert np.mean(shares) >= 0.97
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], got 1.5"):
        tuning.tune(searcher, 1.5)


@pytest.mark.parametrize("count", [1, 2])
def test_few_rows_are_found_by_a_tuned_scann(count):
    rows = _vectors(count, dimension=32)
    index = Index(rows, _names(count), searcher="scann", target_recall=0.9)
    found = index.search(rows[:1], 10)
    assert [n.value for n in found[0]][:1] == pytest.approx([1.0], abs=1e-3)
    assert len(found[0]) == count


def test_a_query_that_scann_finds_too_little_for_is_compared_with_all():
    rows = _vectors(2000, dimension=32)
    searcher = searchers.ScaNN(rows, "euclidean", searchers.ScaNNSettings(200, 1, 400))
    few, _ = searcher.approximate(rows[:20], 300)
    assert (few < 0).any()
    expected, _ = searchers.BruteForce(rows, "euclidean").search(rows[:20], 300)
    np.testing.assert_array_equal(searcher.search(rows[:20], 300)[0], expected)


def test_the_size_decides_and_scann_may_be_missing(monkeypatch):
    monkeypatch.setattr("dfdetect.retrieval.index.BRUTE_FORCE_BELOW", 100)
    rows = _vectors(200)
    assert Index(rows, _names(200)).snapshot()[0].describe()["name"] == "scann"
    small = Index(rows[:99], _names(99)).snapshot()[0]
    assert small.describe() == {"name": "brute_force"}

    def missing():
        raise ImportError("ScaNN is missing: pip install scann==1.4.2")

    monkeypatch.setattr(searchers, "import_scann", missing)
    said = []
    index = Index(rows, _names(200), say=said.append)
    assert index.snapshot()[0].describe() == {"name": "brute_force"}
    (line,) = said
    assert line.startswith("ScaNN is missing: pip install scann==1.4.2; comparing with")
    with pytest.raises(ImportError, match="pip install scann"):
        Index(rows, _names(200), searcher="scann")


def test_adding_and_removing_goes_on_behind_searches():
    rows = _vectors(200)
    index = Index(rows[:100], _names(200)[:100])
    stop, wrong = threading.Event(), []

    def search():
        while not stop.is_set():
            found = _ids(index.search(rows[:1], 1))
            if found != [["n0"]]:
                wrong.append(found)

    thread = threading.Thread(target=search)
    thread.start()
    index.add(rows[100:], _names(200)[100:]).result(60)
    assert len(index) == 200
    assert _ids(index.search(rows[150:151], 1)) == [["n150"]]
    index.remove(["n150", "n151"]).result(60)
    stop.set()
    thread.join()
    assert not wrong and len(index) == 198
    assert "n150" not in _ids(index.search(rows[150:151], 198))[0]


def test_a_change_that_fails_leaves_the_index_as_it_was():
    rows = _vectors(20)
    index = Index(rows[:10], _names(10))
    with pytest.raises(KeyError, match="no entry 'stranger'"):
        index.remove(["stranger"]).result(60)
    with pytest.raises(ValueError, match="ids must differ, got 'n3' twice"):
        index.add(rows[10:11], ["n3"]).result(60)
    with pytest.raises(ValueError, match=r"embeddings must be \[N, 16\], got \[1, 3\]"):
        index.add(np.ones((1, 3)), ["x"])
    assert _ids(index.search(rows[:1], 10)) == [
        _ids(Index(rows[:10], _names(10)).search(rows[:1], 10))[0]
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(3), ["a"]), r"embeddings must be \[N, D\], got \[3\]"),
        ((np.ones((2, 3)), ["a"]), "as many as embeddings, 2, got 1"),
        ((np.ones((2, 3)), ["a", "a"]), "ids must differ, got 'a' twice"),
        ((np.zeros((1, 3)), ["a"]), "must not be zero where the metric is cosine"),
        ((np.full((1, 3), np.nan), ["a"]), "must be finite"),
        ((np.ones((1, 3)), ["a"], {"metric": "manhattan"}), "metric must be one of"),
        ((np.ones((1, 3)), ["a"], {"searcher": "tree"}), "searcher must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        embeddings, entries, *options = arguments
        Index(embeddings, entries, **(options[0] if options else {}))


def test_wrong_queries_are_named():
    index = Index(_vectors(5), _names(5))
    with pytest.raises(ValueError, match=r"queries must be \[Q, 16\], got \[1, 3\]"):
        index.search(np.ones((1, 3)), 1)
    with pytest.raises(ValueError, match="queries must be finite"):
        index.search(np.full((1, 16), np.inf), 1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(np.ones((1, 16)), 0)


_SEARCH = """
import json, sys
import numpy as np
from dfdetect.retrieval import storage
queries = np.load(sys.argv[1])
for folder in sys.argv[2:]:
    found = storage.load(folder)[0].search(queries, 5)
    print(json.dumps([[n.entry.id for n in row] for row in found]))
"""


def test_thumbnails_are_no_image_file_and_those_of_earlier_versions_open(tmp_path):
    _, small = cv2.imencode(".jpg", np.zeros((20, 30, 3), np.uint8))
    entries = [Entry("a", thumbnail=small.tobytes()), Entry("b", thumbnail=b"small")]
    folder = tmp_path / "index"
    storage.save(Index(np.eye(2, 4, dtype=np.float32), entries), str(folder))
    # A folder of images may hold an index.
    assert source_files.find_sources([str(tmp_path)])[0] == []
    stored, _ = storage.load(str(folder), thumbnails=True)
    assert stored.snapshot()[1] == entries

    path = folder / "thumbnails.bin"
    path.write_bytes(small.tobytes() + b"small")
    described = json.loads((folder / "manifest.json").read_text())
    described["files"][path.name] = {
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(described))
    stored, _ = storage.load(str(folder), thumbnails=True)
    assert stored.snapshot()[1] == entries


@pytest.mark.slow  # Most of a minute: a process each.
def test_a_saved_index_answers_alike_in_a_fresh_process(tmp_path, run_script):
    rows, queries = _vectors(1500), _vectors(20, seed=3)
    np.save(tmp_path / "queries.npy", queries)
    entries = [
        Entry(f"n{i}", i % 2, f"/evidence/\udcff{i}", f"g{i}", "d", (0, 0, 1, 1), b"j")
        for i in range(1500)
    ]
    indexes = {
        name: Index(rows, entries, searcher=name, embedding=_EMBEDDING)
        for name in ("brute_force", "scann")
    }
    for name, index in indexes.items():
        storage.save(index, str(tmp_path / "made" / name))
    # Elsewhere: nothing in it may name where it was made.
    (tmp_path / "made").rename(tmp_path / "moved")
    folders = [tmp_path / "moved" / name for name in indexes]
    answer = run_script("-c", _SEARCH, tmp_path / "queries.npy", *folders)
    lines = answer.stdout.splitlines()
    for folder, line, index in zip(folders, lines, indexes.values(), strict=True):
        assert json.loads(line) == _ids(index.search(queries, 5))
        loaded, described = storage.load(str(folder), thumbnails=True)
        assert loaded.snapshot()[1] == tuple(entries)
        assert loaded.embedding == _EMBEDDING and described["count"] == 1500
        assert loaded.snapshot()[0].describe() == index.snapshot()[0].describe()


def _saved(tmp_path, count=30, seed=0):
    index = Index(_vectors(count, seed), _names(count), embedding=_EMBEDDING)
    storage.save(index, str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "embeddings.npy").write_bytes(b"short"),
            r"the index is damaged: .*embeddings.npy must have \d+ bytes, got 5",
        ),
        (
            lambda folder: (folder / "entries.jsonl").write_text(
                (folder / "entries.jsonl").read_text().replace("n7", "n8")
            ),
            "the index is damaged: .*entries.jsonl has other content",
        ),
        (
            lambda folder: (folder / "embeddings.npy").unlink(),
            "the index is damaged: .*embeddings.npy is missing",
        ),
        (
            lambda folder: (folder / "manifest.json").write_text(
                '{"kind": "detector"}'
            ),
            "must be of kind 'index', got 'detector'",
        ),
        (
            lambda folder: (folder / "manifest.json").unlink(),
            "is not a dfdetect index",
        ),
    ],
)
def test_a_damaged_or_foreign_index_is_refused(damage, message, tmp_path):
    folder = _saved(tmp_path)
    damage(folder)
    with pytest.raises(ValueError, match=message):
        storage.load(str(folder))


def test_a_new_index_takes_the_old_ones_place_or_leaves_it(tmp_path, monkeypatch):
    folder = _saved(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fails(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(storage.manifest, "write", fails)
        with pytest.raises(OSError, match="disk full"):
            _saved(tmp_path, 31)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    _saved(tmp_path, 31)
    assert len(storage.load(str(folder))[0]) == 31
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_what_is_no_index_is_never_overwritten(tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index/thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not an index"):
        _saved(tmp_path)
    assert (tmp_path / "index/thesis.txt").read_text() == "mine"


def test_familiarity_is_a_share_of_the_index_and_knows_groups():
    rows = _vectors(400)
    # Frames of a clip are alike: they do not tell how far others are.
    entries = [Entry(f"n{i}", group=f"g{i // 2}") for i in range(400)]
    rows[1::2] = rows[::2]
    known = familiarity.compute_quantiles(Index(rows, entries))
    assert len(known) == 201 and known == sorted(known) and known[-1] < 0.9999
    assert familiarity.measure_familiarity(1.0, known) == 1.0
    assert familiarity.measure_familiarity(-1.0, known) == 0.0
    assert familiarity.measure_familiarity(known[100], known) == pytest.approx(
        0.5, abs=0.01
    )
    assert familiarity.compute_quantiles(Index(rows[:2], entries[:2])) == []
