"""Building an index, and what search, detect and audit find in it."""

import csv
import io
import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

import labelled_images
from dfdetect import console
from dfdetect.cli import main
from dfdetect.evaluation import hand_crafted_features, retrieval_evaluation
from dfdetect.evaluation.audit import embedded_duplicates, scan
from dfdetect.export import saved_pipeline
from dfdetect.media import source_files
from dfdetect.pipeline import embedding
from dfdetect.reports import contact_sheet
from dfdetect.retrieval import index_building, storage
from dfdetect.retrieval.entries import Entry
from dfdetect.retrieval.index import Index
from disk_limits import full_disk


def _image(seed, height=96, width=128):
    """Draws coarse colors, so that all images differ."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _bytes(image, ending=".png"):
    return cv2.imencode(ending, image)[1].tobytes()


pytestmark = pytest.mark.usefixtures("load_once")


@pytest.fixture(scope="module")
def graph(saved_tiny):
    """The folder of a saved graph."""
    return pathlib.Path(saved_tiny)


@pytest.fixture(scope="module")
def loaded(graph, load_once):
    return saved_pipeline.load(str(graph))


@pytest.fixture
def images(tmp_path):
    """A folder of twelve images, one of them broken."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(11):
        (folder / f"{seed:02d}.png").write_bytes(_bytes(_image(seed)))
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def _given(folder):
    return [
        index_building.IndexedImage(str(path), path.read_bytes, source=str(path))
        for path in sorted(folder.iterdir())
    ]


def _build(folder, output, model, said=None, of_heads=False, **options):
    given = _given(folder)
    return index_building.build_index(
        given,
        len(given),
        origin={"folder": str(folder)},
        embedder=embedding.Embedder(model, "content", of_heads),
        output=str(output),
        say=(said if said is not None else []).append,
        batch_size=4,
        **options,
    )


def _same(one, other):
    """Whether two indexes have equal contents."""
    (one, entries), (other, others) = one.snapshot(), other.snapshot()
    return entries == others and np.array_equal(one.rows, other.rows)


@pytest.mark.parametrize("of_heads", [False, True])
def test_an_index_of_a_folder_holds_what_can_be_read(
    of_heads, images, loaded, tmp_path
):
    said = []
    index = _build(images, tmp_path / "index", loaded, said, of_heads)
    _, entries = index.snapshot()
    names = {pathlib.Path(entry.source).name for entry in entries}
    assert names == {f"{seed:02d}.png" for seed in range(11)}
    assert any("broken.jpg" in line and "can be decoded" in line for line in said)
    # The small detector finds three heads in every image.
    assert len(entries) == (33 if of_heads else 11)
    assert all(bool(entry.box) == of_heads for entry in entries)
    assert entries[1].id.endswith("00.png#1" if of_heads else "01.png")
    small = cv2.imdecode(np.frombuffer(entries[0].thumbnail, np.uint8), 1)
    assert max(small.shape) <= 96 and (of_heads or small.shape == (72, 96, 3))
    stored, described = storage.load(str(tmp_path / "index"), thumbnails=True)
    assert _same(stored, index)
    assert described["embedding"]["unit"] == ("heads" if of_heads else "pictures")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "index"]


def test_an_interrupted_run_goes_on_and_ends_alike(
    images, loaded, tmp_path, monkeypatch
):
    whole = _build(images, tmp_path / "whole", loaded)
    calls, stopped = [], []
    embed = embedding.Embedder.__call__

    def stops(self, contents):
        calls.append(len(contents))
        if len(calls) >= 2 and not stopped:
            raise KeyboardInterrupt
        return embed(self, contents)

    monkeypatch.setattr(embedding.Embedder, "__call__", stops)
    with pytest.raises(KeyboardInterrupt):
        _build(images, tmp_path / "index", loaded)
    assert not (tmp_path / "index").exists()
    stopped.append(True)
    before = len(calls)
    _build(images, tmp_path / "index", loaded)
    # Of twelve, the first two were done, and two more batches at most begun.
    assert before <= 3 and calls[before:] == [2, 2, 2, 2, 2]
    assert _same(storage.load(str(tmp_path / "index"), thumbnails=True)[0], whole)


def test_further_values_are_read_without_the_embeddings():
    entries = [Entry("a", thumbnail=b"small"), Entry("b")]
    packed = index_building.pack(np.eye(2, 5), entries, {"paths": ["a", "b\udc80"]})
    rows, unpacked, further = index_building.unpack(io.BytesIO(packed))
    assert unpacked == entries and rows.shape == (2, 5)
    assert further == {"paths": ["a", "b\udc80"]}
    # The others' bytes may be anything.
    damaged = packed.replace(rows.tobytes(), b"x" * rows.nbytes)
    assert damaged != packed
    assert index_building.unpack_further(io.BytesIO(damaged)) == further
    with pytest.raises(ValueError, match="no embeddings as `pack` writes them"):
        index_building.unpack_further(io.BytesIO(b"PK\3\4 no file"))


def test_adding_keeps_the_old_and_replaces_the_same(images, loaded, tmp_path):
    _build(images, tmp_path / "index", loaded)
    more = tmp_path / "more"
    more.mkdir()
    (images / "00.png").write_bytes(_bytes(_image(100)))
    (images / "00.png").rename(more / "00.png")
    older, _ = storage.load(str(tmp_path / "index"), thumbnails=True)
    first = older.snapshot()[1][0]
    given = [
        index_building.IndexedImage(
            first.id, (more / "00.png").read_bytes, source="new"
        )
    ]
    embedder = embedding.Embedder(loaded, "content")
    index = index_building.build_index(
        given,
        1,
        origin={},
        embedder=embedder,
        output=str(tmp_path / "index"),
        say=print,
        older=older,
    )
    _, entries = index.snapshot()
    assert len(entries) == 11 and entries[-1].source == "new"
    assert [entry.id for entry in entries].count(first.id) == 1
    other = Index(older.snapshot()[0].rows, older.snapshot()[1], embedding={})
    with pytest.raises(ValueError, match="the index was made with another model"):
        index_building.build_index(
            given,
            1,
            origin={},
            embedder=embedder,
            output=str(tmp_path / "x"),
            say=print,
            older=other,
        )


class _FakeEmbedder:
    """Finds as many heads in an image as the file has bytes; "x" cannot be read."""

    dimension, kind = 4, "content"

    def __init__(self, of_heads):
        self.of_heads = of_heads

    def describe(self):
        unit = "heads" if self.of_heads else "pictures"
        return {
            "kind": "content", "fingerprint": "a", "dimension": 4, "crop_margin": 1,
            "unit": unit,
        }  # fmt: skip

    def __call__(self, contents):
        for content in contents:
            count = 0 if content == b"x" else len(content) if self.of_heads else 1
            status = "unreadable" if content == b"x" else "ok" if count else "no_head"
            rows = np.full((count, 4), content[0] if content else 0, np.float32)
            yield embedding.Embedded(status, np.zeros((count, 4)), rows)


def _build_fake(output, contents, of_heads, older=None):
    given = [
        index_building.IndexedImage(name, lambda content=content: content)
        for name, content in contents.items()
    ]
    return index_building.build_index(
        given,
        len(given),
        origin={},
        embedder=_FakeEmbedder(of_heads),
        output=str(output),
        say=lambda line: None,
        thumbnail_side=0,
        older=older,
    )


def test_all_heads_of_an_image_that_is_indexed_again_are_replaced(tmp_path):
    before = {"a": b"111", "a#1": b"2", "b": b"3", "c": b"44", "d": b"5"}
    older = _build_fake(tmp_path / "index", before, True)
    again = {"a": b"9", "c": b"", "d": b"x"}
    index = _build_fake(tmp_path / "index", again, True, older)
    ids = [entry.id for entry in index.snapshot()[1]]
    # Of an image that cannot be read, what is known stays.
    assert ids == ["a#1#0", "b#0", "d#0", "a#0"]


def test_whole_images_are_not_added_to_heads(tmp_path):
    older = _build_fake(tmp_path / "index", {"a": b"1"}, True)
    with pytest.raises(ValueError, match="holds heads, .* with it whole images"):
        _build_fake(tmp_path / "index", {"b": b"2"}, False, older)


def test_nothing_to_index_is_said(loaded, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no image could be embedded"):
        _build(tmp_path / "images", tmp_path / "index", loaded)


@pytest.fixture(scope="module")
def scripted(graph, tmp_path_factory, run_script):
    """An index that train/index.py built, and the folder of its images."""
    folder = tmp_path_factory.mktemp("scripted")
    for seed in range(8):
        name = folder / "images" / f"{seed:02d}.png"
        name.parent.mkdir(exist_ok=True)
        name.write_bytes(_bytes(_image(seed)))
    (folder / "images" / "notes.txt").write_text("text")
    done = run_script(
        "train/index.py",
        f"--images={folder / 'images'}",
        f"--output={folder / 'index'}",
        f"--model={graph}",
    )
    assert "passed over 1 file: 1 .txt\n" in done.stderr
    assert done.stdout == f'{folder / "index"}: 8 entries, {{"name": "brute_force"}}\n'
    return folder


def _search(capsys, graph, scripted, *arguments):
    given = [str(x) for x in arguments]
    code = main.main(
        ["search", *given, "--index", str(scripted / "index"), "--model", str(graph)]
    )
    return code, capsys.readouterr()


def test_search_finds_copies_and_leaves_out_the_query(
    graph, scripted, tmp_path, capsys
):
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(_bytes(_image(3)[:, ::-1], ".jpg"))
    (tmp_path / "broken.png").write_bytes(b"")
    queries = (copy, scripted / "images/05.png", tmp_path / "broken.png")
    sheet = tmp_path / "sheet.png"
    code, told = _search(
        capsys, graph, scripted, *queries, "--top_k", "3", "--output", sheet
    )
    assert code == console.UNREAD
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert [line["status"] for line in lines] == ["ok", "ok", "unreadable"]
    first = lines[0]["neighbours"][0]
    assert first["source"] == str(scripted / "images/03.png")
    assert first["similarity"] > 0.99 and first["label"] is None
    found = [x["source"] for x in lines[1]["neighbours"]]
    assert len(found) == 3 and str(scripted / "images/05.png") not in found
    assert lines[2]["neighbours"] == [] and "can be decoded" in told.err
    assert "05.png': left out the same file, " in told.err
    # A row for each query that was read: it and three neighbours.
    height, width = cv2.imread(str(sheet)).shape[:2]
    assert (height, width) == (2 * 148, 4 * 118)
    _, told = _search(capsys, graph, scripted, queries[1], "--keep_self")
    kept = json.loads(told.out)["neighbours"]
    assert kept[0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert len(kept) == 8 and "left out" not in told.err


def test_a_sheet_that_cannot_be_written_ends_no_search(
    graph, scripted, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(contact_sheet, "ROWS", 2)
    queries = [scripted / f"images/{seed:02d}.png" for seed in range(5)]
    (tmp_path / "sheet-2.jpg").mkdir()
    arguments = (*queries, "--top_k", "1", "--output", tmp_path / "sheet.jpg")
    code, told = _search(capsys, graph, scripted, *arguments)
    assert code == console.UNREAD and len(told.out.splitlines()) == 5
    (said,) = (line for line in told.err.splitlines() if "sheet is missing" in line)
    assert said.startswith(f"dfdetect: {str(tmp_path / 'sheet.jpg')!r}: a contact")
    assert "sheet-2.jpg': Is a directory" in said
    # The others are written.
    shapes = [cv2.imread(str(tmp_path / f"sheet{n}.jpg")).shape for n in ("", "-3")]
    assert shapes == [(2 * 148, 2 * 118, 3), (148, 2 * 118, 3)]
    # A full disk, to whoever writes.
    with full_disk(1000):
        arguments = (*arguments[:-1], tmp_path / "other.png")
        code, told = _search(capsys, graph, scripted, *arguments)
    assert code == console.UNREAD and len(told.out.splitlines()) == 5
    assert told.err.count("File too large") == 3
    assert not list(tmp_path.glob("other*")) and not list(tmp_path.glob(".*"))


def test_no_sheet_replaces_a_query(graph, scripted, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(contact_sheet, "ROWS", 1)
    content = (scripted / "images/05.png").read_bytes()
    # A name that no font has, not even as a whole character.
    names = ["caf\udce9.png", "s.png", "s-2.png"]
    for name in names:
        (tmp_path / name).write_bytes(content)
    for refused in (tmp_path / "s.png", tmp_path):
        with pytest.raises(SystemExit) as caught:
            _search(capsys, graph, scripted, tmp_path, "--output", refused)
        assert caught.value.code == 2
    queries = [tmp_path / name for name in names]
    arguments = (*queries, "--top_k", "1", "--output", tmp_path / "s-1.png")
    code, told = _search(capsys, graph, scripted, *arguments)
    assert code == 0 and len(told.out.splitlines()) == 3
    assert all((tmp_path / name).read_bytes() == content for name in names)
    sheets = contact_sheet.Sheets(str(tmp_path / "s.jpg"), 1, [tmp_path / "s-2.jpg"])
    for _ in range(2):
        sheets.add(_image(3), np.array([0, 0, 1, 1]), "query", [])
    written = sorted(path.name for path in tmp_path.glob("s*.jpg"))
    assert written == ["s-3.jpg", "s.jpg"]


def test_of_an_animated_image_the_first_frame_is_told(
    graph, scripted, loaded, tmp_path, capsys
):
    folder = tmp_path / "in"
    folder.mkdir()
    first, second = (Image.fromarray(_image(seed)) for seed in (3, 4))
    first.save(folder / "a.gif", save_all=True, append_images=[second])
    first.save(folder / "b.gif")
    (folder / "c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    code, told = _search(capsys, graph, scripted, folder, "--top_k", "1")
    lines = [json.loads(line) for line in told.out.splitlines()]
    warning = "animated: only its first frame was searched"
    assert code == 0 and [x.get("warning") for x in lines] == [warning, None]
    assert told.err.count(f"a.gif': {warning}\n") == told.err.count(": animated: ") == 1
    said = []
    assert "2 images: 2 ok; passed over 1 file: 1 HEIC; " in told.err.splitlines()[-1]
    index = _build(folder, tmp_path / "index", loaded, said)
    assert len(index) == 2
    (line,) = (line for line in said if ": animated: " in line)
    path = str(folder / "a.gif")
    assert line == f"{path!r}: animated: only its first frame was indexed"


def test_search_looks_for_each_head(graph, scripted, capsys):
    code, told = _search(capsys, graph, scripted, scripted / "images/01.png", "--heads")
    (line,) = map(json.loads, told.out.splitlines())
    assert code == 0 and len(line["heads"]) == 3
    assert all(len(head["box"]) == 4 for head in line["heads"])
    assert all(len(head["neighbours"]) == 7 for head in line["heads"])


def test_mistakes_are_told_in_one_line(graph, scripted, tmp_path, capsys):
    query = str(scripted / "images/01.png")
    index, described = storage.load(str(scripted / "index"))
    searcher, entries = index.snapshot()
    strange = {**described["embedding"], "fingerprint": "another"}
    storage.save(
        Index(searcher.rows, entries, embedding=strange), str(tmp_path / "strange")
    )
    small = {**described["embedding"], "dimension": 3}
    storage.save(
        Index(np.eye(3), ["a", "b", "c"], embedding=small), str(tmp_path / "s")
    )
    for index, model, message in (
        (tmp_path / "none", graph, "is not a dfdetect index"),
        (graph, graph, "is not a dfdetect index"),
        (tmp_path / "strange", graph, "fingerprint must be"),
        (tmp_path / "s", graph, "dimension must be"),
        (scripted / "index", tmp_path, "is not a graph of dfdetect"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main.main(["search", query, "--index", str(index), "--model", str(model)])
        told = capsys.readouterr()
        assert stopped.value.code == console.USAGE and told.out == ""
        assert message in told.err and len(told.err.splitlines()) == 1
    with pytest.raises(SystemExit) as stopped:
        main.main(["search", query, "--index", "x", "--output", "sheet.gif"])
    assert "--output must end in .jpg or .png" in capsys.readouterr().err


def test_detect_tells_the_nearest_known_and_what_is_unfamiliar(
    graph, images, loaded, tmp_path, capsys
):
    index = _build(images, tmp_path / "heads", loaded, of_heads=True)
    searcher, entries = index.snapshot()
    labeled = [
        Entry(x.id, i // 3 % 2, x.source, f"image {i // 3}", x.digest, x.box)
        for i, x in enumerate(entries)
    ]
    storage.save(
        Index(searcher.rows, labeled, embedding=index.embedding),
        str(tmp_path / "index"),
    )
    strange = tmp_path / "strange.png"
    cv2.imwrite(str(strange), np.zeros((64, 64, 3), np.uint8))
    arguments = ["--index", str(tmp_path / "index"), "--model", str(graph)]
    paths = [str(images / "01.png"), str(strange)]
    output = ["--output", str(tmp_path / "copies")]
    assert main.main(["detect", *paths, *arguments, *output]) == 0
    known, unknown = map(json.loads, capsys.readouterr().out.splitlines())
    for place, head in enumerate(known["heads"]):
        nearest = head["nearest_fake"]
        assert nearest["source"] == paths[0] and nearest["similarity"] > 0.999
        assert nearest["id"].endswith(f"#{place}")
        assert head["nearest_real"]["similarity"] < nearest["similarity"]
        assert not head["unfamiliar"] and head["familiarity"] > 0.9
    # Black all over: unlike every image.
    assert all(head["unfamiliar"] for head in unknown["heads"])
    assert (tmp_path / "copies/01.png").exists()
    # Where all would be real, what is unlike everything known is not.
    assert main.main(["detect", *paths, *arguments, "--threshold", "1"]) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["verdict"] for line in lines] == ["real", "uncertain"]
    main.main(["detect", paths[0], *arguments, "--csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["nearest_fake"][-2:] for row in rows] == ["#0", "#1", "#2"]
    assert [row["unfamiliar"] for row in rows] == ["False"] * 3


def test_an_index_of_one_class_has_no_nearest_of_the_other(loaded, images, tmp_path):
    from dfdetect.retrieval import lookup

    index = _build(images, tmp_path / "index", loaded)
    _, described = storage.load(str(tmp_path / "index"))
    look_up = lookup.Lookup(index, described, loaded)
    (found,) = look_up(_image(0), np.array([[0.0, 0.0, 1.0, 1.0]]))
    assert found["nearest_real"] is None and found["nearest_fake"] is None
    assert look_up(_image(0), np.zeros((0, 4))) == []


def _cells(images):
    """Describes an image by the colors of 4 x 4 cells, and of its mirror image."""
    small = [cv2.resize(x, (4, 4), interpolation=cv2.INTER_AREA) for x in images]
    small = np.stack(small).astype(np.float32)
    small -= small.mean(axis=(1, 2, 3), keepdims=True)
    return (small + small[:, :, ::-1]).reshape(len(images), -1)


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """Real images and fakes made from them by a blot; each pair is a group."""

    class Pairs(labelled_images.LabelledImages, skip_registration=True):
        def _generate_examples(self, split, examples):
            for key, fields in super()._generate_examples(split, examples):
                yield key, {**fields, "group": key.split("/")[0]}

    def pair(seed):
        real = _image(seed)
        fake = real.copy()
        fake[30:60, 40:80] = 128
        return [
            (f"{seed}/real.png", 0, _bytes(real)),
            (f"{seed}/fake.png", 1, _bytes(fake)),
        ]

    images = {
        "train": [x for seed in range(20) for x in pair(seed)],
        "test": [x for seed in range(20, 32) for x in pair(seed)],
    }
    # What stands in both splits, mirrored.
    images["test"].append(("3/real.png", 0, _bytes(_image(3)[:, ::-1])))
    return labelled_images.prepare(tmp_path_factory.mktemp("pairs"), images, Pairs)


def test_what_finds_copies_and_sources_is_measured(labeled):
    def blind(images):
        return np.ones((len(images), 4), np.float32)

    measured = retrieval_evaluation.measure_descriptions(
        labeled, "test", descriptions={"cells": _cells, "blind": blind}, num_copies=10
    )
    assert measured["num_pool"] == 25 and measured["num_copies"] == 10
    assert measured["num_fakes"] == 12 and measured["num_reals"] == 33
    cells, nothing = measured["methods"]["cells"], measured["methods"]["blind"]
    assert cells["dimension"] == 48
    assert cells["copies"]["mirror"]["share"] == 1.0
    assert cells["sources"]["first"]["share"] == 1.0
    # Of equals the first in the pool is taken: right for one copy at the most.
    assert nothing["copies"]["mirror"]["share"] <= 0.1
    assert nothing["sources"]["first_ten"]["share"] == 0.0
    lines = retrieval_evaluation.format_table(measured)
    assert lines[0] == "| | cells (48) | blind (4) |"
    assert lines[-2].startswith("| a fake: a real of its group first | 1.000 [1.000")
    with pytest.raises(ValueError, match="has no split 'nowhere', only"):
        retrieval_evaluation.measure_descriptions(
            labeled, "nowhere", descriptions={"cells": _cells}
        )


@pytest.mark.slow
def test_copies_across_splits_are_found_by_embedding(labeled):
    survey = scan.scan_dataset(labeled, lambda split: None)

    def embed(contents):
        decoded = [cv2.imdecode(np.frombuffer(x, np.uint8), 1) for x in contents]
        return _cells(decoded)

    found = embedded_duplicates.find_pairs(
        labeled, survey, embed=embed, min_similarity=0.999
    )
    assert [sorted(pair["filename"]) for pair in found] == [["3/real.png"] * 2]
    assert sorted(found[0]["split"]) == ["test", "train"]
    assert found[0]["similarity"] > 0.999 and found[0]["label"] == [0, 0]


def test_harris_corners_are_described_and_a_flat_image_has_none():
    board = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((12, 12))) * 255
    found = hand_crafted_features.describe_harris(board.astype(np.uint8))
    assert found.shape[1] == 128 and 49 <= len(found) <= 500
    assert hand_crafted_features.describe_harris(
        np.zeros((40, 40), np.uint8)
    ).shape == (0, 128)


@pytest.mark.slow
def test_the_script_tells_what_it_needs(run_script, scripted, graph):
    output = f"--output={scripted / 'other'}"
    for code, arguments, message in (
        (2, [output], "either --images or --dataset must be given"),
        (2, [output, "--dataset=x"], "--dataset needs --data_dir"),
    ):
        done = run_script("train/index.py", *arguments, check=False)
        assert done.returncode == code and message in done.stderr.splitlines()[-1]
    assert source_files.find_sources([str(scripted / "index")])[0] == []


@pytest.mark.slow
def test_the_script_measures_what_a_graph_finds(run_script, labeled, graph, tmp_path):
    folder = pathlib.Path(labeled.data_dir).parents[1]
    done = run_script(
        "train/evaluate_retrieval.py",
        f"--data_dir={folder}",
        f"--dataset={labeled.info.name}",
        f"--model={graph}",
        "--num_copies=5",
        f"--output={tmp_path / 'found.json'}",
    )
    figures = json.loads((tmp_path / "found.json").read_text())
    assert list(figures["methods"]) == ["content", "forgery", "perceptual_hash"]
    assert figures["num_copies"] == 5 and figures["num_pool"] == 25
    assert "5 altered copies among 25 images; 12 fakes among 33" in done.stdout


@pytest.mark.slow
def test_the_benchmark_prints_a_row_for_each_searcher():
    # It starts processes that import it, and so must be a program by itself.
    command = [sys.executable, "train/benchmark_retrieval.py", "--sizes=500"]
    command += ["--dimension=32", "--queries=100", "--target_recall=.9"]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, check=True, capture_output=True, encoding="utf-8"
    )
    rows = [x.split(" | ") for x in done.stdout.splitlines() if " | 500 | " in x]
    for draw in ("| clustered", "| gaussian"):
        brute, ours, *_ = (row for row in rows if row[0] == draw)
        assert brute[2] == "brute force" and ours[2] == "ours (ScaNN, tuned)"
        assert float(ours[5]) >= 0.8
        assert all(float(x.strip(" |").replace(",", "")) > 0 for x in ours[6:])


@pytest.mark.slow
def test_the_audit_lists_what_is_alike(run_script, labeled, graph, tmp_path):
    done = run_script(
        "train/audit.py",
        f"--data_dir={pathlib.Path(labeled.data_dir).parents[1]}",
        f"--dataset={labeled.info.name}",
        f"--model={graph}",
        "--embeddings",
        "--min_similarity=.99",
        f"--output={tmp_path / 'found.json'}",
        check=False,
    )
    found = json.loads((tmp_path / "found.json").read_text())["embedded_duplicates"]
    assert sorted(found[0]["filename"]) == ["3/real.png"] * 2
    assert found[0]["similarity"] > 0.999
    assert (
        f"## (d) Alike by embedding in two splits: {len(found):,} pairs" in done.stdout
    )
