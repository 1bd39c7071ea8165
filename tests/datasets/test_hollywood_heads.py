import hashlib
import zipfile

import numpy as np
import pytest

from building_support import (
    DAMAGED_FILM_LABELS,
    builder_class,
    draw_hollywood_heads,
    film_frame,
    film_splits,
    head,
    prepare,
    records,
    snapshot,
)

HollywoodHeads = builder_class("hollywood_heads")


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """HollywoodHeads with every known defect: source, its state before, builder."""
    folder = tmp_path_factory.mktemp("heads")
    root = folder / "manual" / "HollywoodHeads"
    draw_hollywood_heads(root)
    before = snapshot(folder / "manual")
    builder = prepare(HollywoodHeads(data_dir=folder / "data"), folder / "manual")
    return root, before, builder


def test_headsrecords(heads):
    root, _, builder = heads
    train = records(builder, "train")
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
    record = records(heads[2], split)[name]
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
        "n_dropped_other_name": 1,
        "n_damaged": 7,
        "n_clipped": 1,
        "n_touching_zero": 1,
        "n_missing_difficult": 1,
        "n_repeated": 0,
        "n_size_mismatch": 0,
        "n_consecutive": 1,
        "n_thinned": 0,
        "n_missing_image": 1,
        "n_missing_annotation": 1,
        "n_unreadable": 2,
        "n_skipped": 11,
    }
    one_head = dict.fromkeys(train, 0) | {"n_frames": 1, "n_heads": 1}
    assert metadata["counts"] == {
        "train": train | {"other_name/person": 1},
        "validation": one_head | {"n_size_mismatch": 1},
        "test": one_head | {"n_missing_image": 1, "n_skipped": 1},
    }
    assert metadata["totals"]["n_frames"] == 5
    assert metadata["totals"]["n_skipped"] == 12
    assert [line.split(":")[0] for line in metadata["skipped"]["train"]] == [
        f"mov_001_{frame:06d}" for frame in (40, 50, 60, 70, *DAMAGED_FILM_LABELS)
    ]
    assert metadata["skipped"]["test"] == [
        "mov_009_000001: listed, but there is no image"
    ]
    assert len(bytes.fromhex(metadata["fingerprint"])) == 32


def test_heads_damaged_labels_are_told_by_file(heads):
    """A frame is named whose label is damaged, and is not a negative."""
    told = dict(
        line.split(": ", 1) for line in heads[2].info.metadata["skipped"]["train"]
    )
    assert [told[f"mov_001_{frame:06d}"] for frame in DAMAGED_FILM_LABELS] == [
        "object 2 has no area: it is smaller than a pixel "
        "(ymin 5, xmin 9, ymax 25, xmax 9)",
        "object 2 has swapped corners (ymin 30, xmin 9, ymax 20, xmax 19)",
        "object 2 lies outside the image of 80 x 40 pixels "
        "(ymin 50, xmin 9, ymax 60, xmax 19)",
        "object 2: ymin is missing; a number is wanted",
        "object 2: ymin is 'ten'; a number is wanted",
        "object 2: ymin is missing, xmin is missing, ymax is missing, xmax is missing; "
        "a number is wanted",
        "object 2 is named 'Head'; nearest known name: 'head'",
    ]


def test_heads_strict_stops_at_a_damaged_label(tmp_path):
    root = tmp_path / "manual"
    film_frame(root, "a_1", [head(30, 9, 20, 19)])
    film_splits(root, train=["a_1"], val=[], test=[])
    with pytest.raises(ValueError, match="a_1: object 1 has swapped corners"):
        prepare(HollywoodHeads(data_dir=tmp_path / "data", strict=True), root)


def test_heads_source_is_untouched(heads):
    root, before, _ = heads
    assert snapshot(root.parent) == before


def test_heads_split_without_images_is_left_out(tmp_path):
    root = tmp_path / "manual"
    film_frame(root, "mov_001_000001", [head(1, 1, 9, 9)])
    film_splits(root, train=["mov_001_000001"], val=["mov_002_000001"], test=[])
    builder = prepare(HollywoodHeads(data_dir=tmp_path / "data"), root)
    assert list(builder.info.splits) == ["train"]
    assert builder.info.metadata["counts"]["validation"]["n_missing_image"] == 1


def test_heads_errors(tmp_path):
    root = tmp_path / "manual"
    film_frame(root, "a_1", [])
    film_splits(root, train=["a_1"], test=["a_2"])
    with pytest.raises(FileNotFoundError, match=r"lacks Splits/val\.txt.*Wanted"):
        prepare(HollywoodHeads(data_dir=tmp_path / "data"), root)
    film_splits(root, val=["a_1"])
    with pytest.raises(ValueError, match="a_1 is listed twice: .*train.*validation"):
        prepare(HollywoodHeads(data_dir=tmp_path / "data"), root)
    film_splits(root, train=["a_3"], val=["a_4"])
    with pytest.raises(
        ValueError, match="No file of the data set gives a record.*a_3: listed"
    ):
        prepare(HollywoodHeads(data_dir=tmp_path / "data"), root)


def test_heads_out_of_the_zip_file_are_the_same(heads, tmp_path):
    root, _, builder = heads
    with zipfile.ZipFile(tmp_path / "HollywoodHeads.zip", "w") as file:
        for path in root.rglob("*"):
            file.write(path, path.relative_to(root.parent))
        file.writestr("__MACOSX/HollywoodHeads/._JPEGImages", b"dirt")
    zipped = prepare(HollywoodHeads(data_dir=tmp_path / "data"), tmp_path)
    assert zipped.info.metadata["totals"] == builder.info.metadata["totals"]
    assert zipped.info.metadata["fingerprint"] == builder.info.metadata["fingerprint"]
    assert sorted(records(zipped, "train")) == sorted(records(builder, "train"))


def test_stride_thins_training_frames_of_a_film_only(tmp_path):
    root = tmp_path / "manual"
    numbers = (0, 1, 2, 5, 6, 9, 10)
    train = [f"mov_{film}_{i:06d}" for film in (1, 2) for i in numbers]
    train.append("portrait")
    validation = ["mov_3_000000", "mov_3_000001"]
    for stem in train + validation:
        film_frame(root, stem, [])
    film_splits(root, train=train, val=validation, test=[])
    builder = prepare(HollywoodHeads(data_dir=tmp_path / "data", frame_stride=5), root)
    # 5 is five frames after 0, and 10 after 5; 9 is not.
    expected = [f"mov_{film}_{i:06d}.jpeg" for film in (1, 2) for i in (0, 5, 10)]
    assert sorted(records(builder, "train")) == [*expected, "portrait.jpeg"]
    assert len(records(builder, "validation")) == 2
    assert builder.info.metadata["counts"]["train"]["n_thinned"] == 8
    assert builder.info.metadata["settings"] == {"frame_stride": 5}


def test_numbers_of_frames_need_no_leading_zeros(tmp_path):
    root = tmp_path / "manual"
    train, validation = ([f"{film}_{i}" for i in range(1, 13)] for film in "ab")
    for stem in train + validation:
        film_frame(root, stem, [])
    film_splits(root, train=train, val=validation, test=[])
    builder = prepare(HollywoodHeads(data_dir=tmp_path / "all"), root)
    counts = builder.info.metadata["counts"]
    for split, stems in (("train", train), ("validation", validation)):
        assert {*records(builder, split)} == {f"{stem}.jpeg" for stem in stems}
        assert counts[split]["n_consecutive"] == 11 and not counts[split]["n_thinned"]
    thinned = HollywoodHeads(data_dir=tmp_path / "thinned", frame_stride=5)
    kept = records(prepare(thinned, root), "train")
    assert {*kept} == {"a_1.jpeg", "a_6.jpeg", "a_11.jpeg"}


def test_download_checks_what_came(heads, tmp_path, serve_folder):
    root = heads[0]
    archive = tmp_path / "served" / "HollywoodHeads.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for path in root.rglob("*"):
            file.write(path, path.relative_to(root.parent))
    url = f"{serve_folder(archive.parent)}/HollywoodHeads.zip"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    fetch = {"download": True, "url": url}
    builder = HollywoodHeads(data_dir=tmp_path / "wrong", sha256="0" * 64, **fetch)
    with pytest.raises(ValueError, match=f"must be 0{{64}}, got {digest}"):
        prepare(builder, None)
    builder = HollywoodHeads(data_dir=tmp_path / "data", sha256=digest, **fetch)
    fetched = prepare(builder, None)
    assert fetched.info.metadata["archive_sha256"] == digest
    assert len(records(fetched, "train")) == 3
