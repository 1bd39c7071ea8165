"""The dataset builders over small drawn folders, and the script that runs them."""

import collections
import hashlib
import importlib.util
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def _builder_class(name):
    """Loads a builder by its path, as `prepare.py` does, but keeps it to the test."""
    module_name = f"{name}_dataset_builder"
    spec = importlib.util.spec_from_file_location(
        module_name, _ROOT / "datasets" / name / f"{module_name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    # Unregistered, `tfds.builder` has nothing but the prepared folder to read.
    with registered.skip_registration():
        spec.loader.exec_module(module)
    return module.Builder


HollywoodHeads = _builder_class("hollywood_heads")
LabeledFaces = _builder_class("labeled_faces")


def _encoded(ending, height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return cv2.imencode(ending, pixels.astype(np.uint8))[1].tobytes()


def _prepare(builder_class, manual_dir, data_dir):
    """Prepares and opens again from the folder alone."""
    builder = builder_class(data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )
    builder = tfds.builder(builder.name, data_dir=data_dir)
    assert isinstance(builder, tfds.core.read_only_builder.ReadOnlyBuilder)
    return builder


def _records(builder, split):
    records = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return {r["image/filename"].decode(): r for r in records.as_numpy_iterator()}


def _snapshot(folder):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


# --- HollywoodHeads ---


def _object(ymin, xmin, ymax, xmax, rest="<difficult>0</difficult>"):
    return (
        f"<object><name>head</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>{rest}</object>"
    )


def _frame(root, stem, objects, size="<width>80</width><height>40</height>"):
    _write(root / "JPEGImages" / f"{stem}.jpeg", _encoded(".jpg", 40, 80))
    _write(
        root / "Annotations" / f"{stem}.xml",
        f"<annotation><size>{size}</size>{''.join(objects)}</annotation>",
    )


def _list(root, **splits):
    for name, stems in splits.items():
        _write(root / "Splits" / f"{name}.txt", "".join(f"{s}\n" for s in stems))


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """HollywoodHeads with every known defect: source, its state before, builder."""
    folder = tmp_path_factory.mktemp("heads")
    root = folder / "manual" / "HollywoodHeads"
    train = [f"mov_001_{i:06d}" for i in (1, 2, 30, 40, 50, 60, 70)]
    _frame(
        root,
        train[0],
        [
            _object("10.0", "20.0", "30.0", "60.0", "<difficult>1</difficult>"),
            _object("4", "8.5", "20", "16", ""),
        ],
    )
    _frame(root, train[1], ["<object/>"])
    _frame(
        root,
        train[2],
        [
            _object(-4, 60, 20, 100),  # clipped
            _object(0, 0, 40, 80),  # the whole image: touches 0, not clipped
            _object(5, 9, 25, 9),  # no width
            _object(30, 9, 20, 19),  # upside down
            _object(50, 9, 60, 19),  # below the image
            _object("", 1, 2, 3),
            _object("ten", 1, 2, 3),
            _object("nan", 1, 2, 3),
            "<object><name>head</name></object>",
            _object(1, 1, 9, 9).replace("head", "person"),
        ],
    )
    _write(root / "Annotations" / f"{train[3]}.xml", "<annotation/>")
    _write(root / "JPEGImages" / f"{train[4]}.jpeg", _encoded(".jpg", 40, 80))
    _frame(root, train[5], [])
    _write(root / "JPEGImages" / f"{train[5]}.jpeg", _encoded(".jpg", 40, 80)[:-200])
    _frame(root, train[6], [])
    _write(root / "Annotations" / f"{train[6]}.xml", "<annotation><object>")
    _frame(root, "PartB_00007", [_object(10, 20, 30, 60)], "<width>80</width>")
    _frame(root, "portrait", [_object(10, 20, 30, 60)])
    _list(root, train=train, val=["PartB_00007"], test=["portrait", "mov_009_000001"])
    before = _snapshot(folder / "manual")
    builder = _prepare(HollywoodHeads, folder / "manual", folder / "data")
    return root, before, builder


def test_heads_records(heads):
    root, _, builder = heads
    train = _records(builder, "train")
    assert sorted(train) == [f"mov_001_{i:06d}.jpeg" for i in (1, 2, 30)]
    for name, record in train.items():
        assert record["image"] == (root / "JPEGImages" / name).read_bytes()
        assert record["movie"] == b"mov_001"
        assert record["frame"] == int(name[8:14])
    first = train["mov_001_000001.jpeg"]["objects"]
    # 40 rows, 80 columns: 10/40, 20/80, 30/40, 60/80 and 4/40, 8.5/80, 20/40, 16/80.
    np.testing.assert_allclose(
        first["bbox"], [[0.25, 0.25, 0.75, 0.75], [0.1, 0.10625, 0.5, 0.2]], atol=1e-7
    )
    assert first["is_difficult"].tolist() == [True, False]
    assert first["label"].tolist() == [0, 0]
    assert train["mov_001_000002.jpeg"]["objects"]["bbox"].shape == (0, 4)
    np.testing.assert_allclose(
        train["mov_001_000030.jpeg"]["objects"]["bbox"],
        [[0, 0.75, 0.5, 1], [0, 0, 1, 1]],
    )


@pytest.mark.parametrize(
    "split, name, movie, frame",
    [
        ("validation", "PartB_00007.jpeg", b"PartB", 7),
        ("test", "portrait.jpeg", b"portrait", -1),
    ],
)
def test_heads_names_of_other_sets(heads, split, name, movie, frame):
    record = _records(heads[2], split)[name]
    assert record["movie"] == movie
    assert record["frame"] == frame
    np.testing.assert_allclose(record["objects"]["bbox"], [[0.25, 0.25, 0.75, 0.75]])


def test_heads_metadata_counts_every_defect(heads):
    metadata = heads[2].info.metadata
    train = {
        "n_frames": 3,
        "n_heads": 4,
        "n_difficult": 1,
        "n_empty": 1,
        "n_dropped_zero_area": 3,
        "n_dropped_malformed": 4,
        "n_dropped_other_name": 1,
        "n_clipped": 1,
        "n_touching_zero": 1,
        "n_missing_difficult": 1,
        "n_size_mismatch": 0,
        "n_consecutive": 1,
        "n_skipped_missing_image": 1,
        "n_skipped_missing_annotation": 1,
        "n_skipped_unreadable": 2,
    }
    nothing = dict.fromkeys(train, 0)
    one_head = nothing | {"n_frames": 1, "n_heads": 1}
    assert metadata["counts"] == {
        "train": train,
        "validation": one_head | {"n_size_mismatch": 1},
        "test": one_head | {"n_skipped_missing_image": 1},
    }
    assert metadata["n_frames"] == 5
    assert metadata["n_heads"] == 6
    assert metadata["n_skipped_missing_image"] == 2
    assert metadata["n_size_mismatch"] == 1
    assert len(bytes.fromhex(metadata["fingerprint"])) == 32


def test_heads_source_is_untouched(heads):
    root, before, _ = heads
    assert _snapshot(root.parent) == before


def test_heads_split_without_images_is_left_out(tmp_path):
    root = tmp_path / "manual"
    _frame(root, "mov_001_000001", [_object(1, 1, 9, 9)])
    _list(root, train=["mov_001_000001"], val=["mov_002_000001"], test=[])
    builder = _prepare(HollywoodHeads, root, tmp_path / "data")
    assert list(builder.info.splits) == ["train"]
    assert builder.info.metadata["counts"]["validation"]["n_skipped_missing_image"] == 1


def test_heads_errors(tmp_path):
    root = tmp_path / "manual"
    _frame(root, "a_1", [])
    _list(root, train=["a_1"], test=["a_2"])
    with pytest.raises(FileNotFoundError, match=r"lacks Splits/val\.txt.*Wanted"):
        _prepare(HollywoodHeads, root, tmp_path / "data")
    _list(root, val=["a_1"])
    with pytest.raises(ValueError, match="a_1 is listed twice: .*train.*validation"):
        _prepare(HollywoodHeads, root, tmp_path / "data")
    _list(root, train=["a_3"], val=["a_4"])
    with pytest.raises(ValueError, match="None of the images listed"):
        _prepare(HollywoodHeads, root, tmp_path / "data")


# --- labeled_faces ---


def _faces(root, lines, header="path,label,split,group"):
    """Writes `labels.csv` and a small image for each path in it that has none."""
    _write(root / "labels.csv", "\n".join([header, *lines]) + "\n")
    for seed, line in enumerate(lines):
        path = root / line.split(",")[0]
        if not path.exists():
            _write(path, _encoded(path.suffix, 6, 8, seed))


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    root = folder / "manual"
    _write(root / "real/large.jpg", _encoded(".jpg", 50, 30))
    _write(root / "broken.jpg", _encoded(".jpg", 50, 30)[:-100])
    _faces(
        root,
        [
            "real/large.jpg,real,train,one",
            "fake/b.png,fake,train,one",
            "c.bmp,0,val,two",
            "d.webp,1,validation,two",
            '"e f.jpg",real,test,',
            "g.png,fake,,two",
            "broken.jpg,fake,train,three",
        ],
        "\ufeffpath,label,split,group",
    )
    _write(root / "e f.jpg", _encoded(".jpg", 9, 9))
    before = _snapshot(root)
    return root, before, _prepare(LabeledFaces, root, folder / "data")


def test_faces_records(faces):
    root, _, builder = faces
    expected = {
        "train": {"real/large.jpg": (0, b"one"), "fake/b.png": (1, b"one")},
        # g.png names no split and follows its group.
        "validation": {
            "c.bmp": (0, b"two"),
            "d.webp": (1, b"two"),
            "g.png": (1, b"two"),
        },
        "test": {"e f.jpg": (0, b"e f.jpg")},
    }
    assert sorted(builder.info.splits) == sorted(expected)
    for split, rows in expected.items():
        records = _records(builder, split)
        assert {n: (r["label"], r["group"]) for n, r in records.items()} == rows
        for name, record in records.items():
            assert record["image"] == (root / name).read_bytes()
    assert builder.info.features["label"].names == ["real", "fake"]


def test_faces_metadata(faces):
    metadata = faces[2].info.metadata
    assert metadata["counts"] == {
        "train": {"real": 1, "fake": 1},
        "validation": {"real": 1, "fake": 2},
        "test": {"real": 1, "fake": 0},
    }
    assert metadata["n_groups"] == {"train": 1, "validation": 1, "test": 1}
    assert metadata["n_split_by_hash"] == 0
    assert metadata["n_unreadable"] == 1
    assert metadata["unreadable"] == ["broken.jpg"]


def test_faces_source_is_untouched(faces):
    root, before, _ = faces
    assert _snapshot(root) == before


def test_fingerprint_tells_the_data_not_the_order(tmp_path):
    lines = ["a.png,real,train,x", "b.png,fake,train,y"]
    root = tmp_path / "manual"
    _faces(root, lines)

    def fingerprint(name):
        builder = _prepare(LabeledFaces, root, tmp_path / name)
        return builder.info.metadata["fingerprint"]

    digests = []
    for path, label, group in (("a.png", "real", "x"), ("b.png", "fake", "y")):
        content = hashlib.sha256((root / path).read_bytes()).digest()
        row = f"{path}\0{label}\0train\0{group}\0".encode()
        digests.append(hashlib.sha256(row + content).digest())
    expected = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    assert fingerprint("first") == expected
    _faces(root, lines[::-1])
    assert fingerprint("reordered") == expected
    _write(root / "a.png", _encoded(".png", 6, 8, seed=9))
    assert fingerprint("other image") != expected


def test_faces_without_split_go_by_hash_of_the_group(tmp_path):
    root = tmp_path / "manual"
    image = _encoded(".png", 2, 2)
    lines = [
        f"{kind}{i}.png,{kind},g{i}" for i in range(200) for kind in ("real", "fake")
    ]
    for line in lines:
        _write(root / line.split(",")[0], image)
    _faces(root, lines, "path,label,group")
    builder = _prepare(LabeledFaces, root, tmp_path / "data")
    splits = collections.defaultdict(set)
    for split in ("train", "validation", "test"):
        for record in _records(builder, split).values():
            splits[record["group"].decode()].add(split)
    assert len(splits) == 200
    assert all(len(found) == 1 for found in splits.values())
    # A group never moves: the first 16 digits of `sha256sum` modulo 100 are 62 for g0
    # (0xf21b0ef89d8ee5da), 95 for g5 (0x239261316e505a03), 82 for g21
    # (0x21b76155b51b2676).
    assert splits["g0"] == {"train"}
    assert splits["g5"] == {"test"}
    assert splits["g21"] == {"validation"}
    sizes = collections.Counter(next(iter(found)) for found in splits.values())
    # 80, 10 and 10 % of 200, within three standard deviations.
    assert abs(sizes["train"] - 160) <= 17
    assert abs(sizes["validation"] - 20) <= 13
    assert abs(sizes["test"] - 20) <= 13
    assert builder.info.metadata["n_split_by_hash"] == 400


@pytest.mark.parametrize(
    "header, lines, message",
    [
        ("path,label,split", ["a.png,real,train"], r"csv:1: columns must be path,"),
        (
            "path,label,split,group,age",
            ["a.png,real,train,x,4"],
            r"csv:1: .*got path,label,split,group,age\.",
        ),
        (None, ["a.png,real,train,x", "b.png,genuine,train,x"], "csv:3: .*'genuine'"),
        (None, ["a.png,real,holdout,x"], "csv:2: split must be .*'holdout'"),
        (None, ["a.png,real,train"], "csv:2: the number of fields"),
        (None, ["a.png,real,train,x,y"], "csv:2: the number of fields"),
        (None, ["a.png,real,train,x", "a.png,fake,train,x"], "csv:3: .*line 2 already"),
        (None, ["../a.png,real,train,x"], "csv:2: path must lead into"),
        (None, [], "csv: no images listed"),
        (
            None,
            ["a.png,real,train,x", "b.png,fake,train,y", "c.png,fake,test,x"],
            r"csv:4: group 'x' stands in train \(line 2\) and in test",
        ),
    ],
)
def test_faces_errors_name_file_and_line(tmp_path, header, lines, message):
    root = tmp_path / "manual"
    _faces(root, lines, header or "path,label,split,group")
    with pytest.raises(ValueError, match=r"labels\." + message):
        _prepare(LabeledFaces, root, tmp_path / "data")


def test_faces_missing_file(tmp_path):
    root = tmp_path / "manual"
    _faces(root, ["a.png,real,train,x", "b.png,fake,train,x"])
    (root / "b.png").unlink()
    with pytest.raises(ValueError, match=r"labels\.csv:3: there is no file 'b\.png'"):
        _prepare(LabeledFaces, root, tmp_path / "data")


def test_failed_build_leaves_nothing_and_can_be_run_again(tmp_path):
    root, data = tmp_path / "manual", tmp_path / "data"
    _write(root / "b.png", _encoded(".png", 6, 8)[:20])
    _faces(root, ["a.png,real,train,x", "b.png,fake,test,y"])
    with pytest.raises(ValueError, match="No image of the split test can be read"):
        _prepare(LabeledFaces, root, data)
    assert not [path for path in (data / "labeled_faces").rglob("*") if path.is_file()]
    _write(root / "b.png", _encoded(".png", 6, 8))
    assert list(_records(_prepare(LabeledFaces, root, data), "test")) == ["b.png"]


# --- prepare.py ---


def _run(*arguments):
    return subprocess.run(
        [sys.executable, str(_ROOT / "datasets/prepare.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        timeout=300,
        check=False,
    )


def test_prepare(tmp_path):
    root, data = tmp_path / "manual", tmp_path / "data"
    _faces(root, ["a.png,real,train,x", "b.png,fake,train,x"])
    flags = ["--dataset=labeled_faces", f"--manual_dir={root}", f"--data_dir={data}"]
    done = _run(*flags)
    assert done.returncode == 0, done.stderr
    assert "train: 2 images, 1 real, 1 fake" in done.stdout
    assert sorted(_records(tfds.builder("labeled_faces", data_dir=data), "train")) == [
        "a.png",
        "b.png",
    ]
    _faces(root, ["a.png,real,train,x"])
    again = _run(*flags)
    assert again.returncode == 0, again.stderr
    assert "Prepared already" in again.stdout
    assert "train: 2 images" in again.stdout
    anew = _run(*flags, "--overwrite")
    assert anew.returncode == 0, anew.stderr
    assert "train: 1 images, 1 real\n" in anew.stdout


def test_prepare_says_what_is_wrong_in_one_line(tmp_path):
    root = tmp_path / "manual"
    _faces(root, ["a.png,genuine,train,x"])
    common = ["--dataset=labeled_faces", f"--data_dir={tmp_path / 'data'}"]
    bad_data = _run(*common, f"--manual_dir={root}")
    assert bad_data.returncode == 1
    last_line = bad_data.stderr.splitlines()[-1]
    assert last_line.startswith("prepare.py: ")
    assert f"{root / 'labels.csv'}:2: label must be" in last_line
    assert "Traceback" not in bad_data.stderr
    for arguments, message in (
        (common, "--manual_dir must have a value"),
        ([*common, f"--manual_dir={tmp_path / 'none'}"], "is no folder"),
        (["--dataset=beans", *common[1:]], "hollywood_heads|labeled_faces"),
    ):
        wrong = _run(*arguments)
        assert wrong.returncode == 2
        assert message in wrong.stderr
        assert "Traceback" not in wrong.stderr
