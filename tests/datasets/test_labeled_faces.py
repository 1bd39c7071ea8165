import collections
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from building_support import (
    builder_class,
    draw_labeled_faces,
    encoded,
    prepare,
    records,
    snapshot,
    write,
)
from building_support import faces as draw_faces
from dfdetect.data import prepared

LabeledFaces = builder_class("labeled_faces")

_BOXED = "path,label,split,group,ymin,xmin,ymax,xmax"


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    root = folder / "manual"
    draw_labeled_faces(root)
    before = snapshot(root)
    return root, before, prepare(LabeledFaces(data_dir=folder / "data"), root)


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
        found = records(builder, split)
        assert {n: (r["label"], r["group"]) for n, r in found.items()} == rows
        for name, record in found.items():
            assert record["image"] == (root / name).read_bytes()
    assert builder.info.features["label"].names == ["real", "fake"]


def test_faces_metadata(faces):
    metadata = faces[2].info.metadata
    hashed = {"n_split_by_hash": 0, "n_groups": 1, "n_skipped": 0}
    assert metadata["counts"] == {
        "train": hashed | {"real": 1, "fake": 1, "n_groups": 2, "n_skipped": 1},
        "validation": hashed | {"real": 1, "fake": 2},
        "test": hashed | {"real": 1, "fake": 0},
    }
    assert metadata["skipped"]["train"] == [
        "broken.jpg: no image that can be decoded: JPEG, cut short or damaged"
    ]


def test_faces_source_is_untouched(faces):
    root, before, _ = faces
    assert snapshot(root) == before


def test_fingerprint_tells_the_data_not_the_order(tmp_path):
    lines = ["a.png,real,train,x", "b.png,fake,train,y"]
    root = tmp_path / "manual"
    draw_faces(root, lines)

    def fingerprint(name):
        builder = prepare(LabeledFaces(data_dir=tmp_path / name), root)
        return builder.info.metadata["fingerprint"]

    first = fingerprint("first")
    assert len(bytes.fromhex(first)) == 32
    draw_faces(root, lines[::-1])
    assert fingerprint("reordered") == first
    draw_faces(root, [lines[0].replace("real", "fake"), lines[1]])
    assert fingerprint("other label") != first
    draw_faces(root, [lines[0], lines[1].replace("y", "x")])
    assert fingerprint("other group") != first
    draw_faces(root, [lines[0], lines[1].replace("train", "test")])
    assert fingerprint("other split") != first
    draw_faces(root, lines)
    write(root / "a.png", encoded(".png", 6, 8, seed=9))
    assert fingerprint("other image") != first


def test_faces_without_split_go_by_hash_of_the_group(tmp_path):
    root = tmp_path / "manual"
    image = encoded(".png", 2, 2)
    lines = [
        f"{kind}{i}.png,{kind},g{i}" for i in range(200) for kind in ("real", "fake")
    ]
    for line in lines:
        write(root / line.split(",")[0], image)
    draw_faces(root, lines, "path,label,group")
    builder = prepare(LabeledFaces(data_dir=tmp_path / "data"), root)
    splits = collections.defaultdict(set)
    for split in ("train", "validation", "test"):
        for record in records(builder, split).values():
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
    assert builder.info.metadata["totals"]["n_split_by_hash"] == 400


@pytest.mark.parametrize(
    "header, lines, message",
    [
        ("path,label,split", ["a.png,real,train"], r"csv:1: columns must be path,"),
        (
            "path,label,split,group,ymin,xmin,ymax",
            ["a.png,real,train,x,0,0,1"],
            r"csv:1: .*all of ymin,xmin,ymax,xmax or none, got ymin,xmin,ymax\.",
        ),
        (
            "path,label,split,group,group",
            ["a.png,real,train,x,x"],
            r"csv:1: .*each once, got path,label,split,group,group\.",
        ),
        (_BOXED, ["a.png,real,train,x,0,0,1,"], "csv:2: ymin.* got 0,0,1,"),
        (_BOXED, ["a.png,real,train,x,.6,0,.5,1"], "csv:2: ymin.* got .6,0,.5,1"),
        (_BOXED, ["a.png,real,train,x,1.1,0,1.2,1"], "csv:2: .* got 1.1,0,1.2,1"),
        (_BOXED, ["a.png,real,train,x,0,0,90,80"], "csv:2: .*relative.*0,0,90,80"),
        (_BOXED, ["a.png,real,train,x,nan,0,1,1"], "csv:2: ymin.*got nan,0,1,1"),
        (None, ["a.png,real,train,x", "b.png,genuine,train,x"], "csv:3: .*'genuine'"),
        (None, ["a.png,real,holdout,x"], "csv:2: split must be .*'holdout'"),
        (None, ["a.png,real,train"], "csv:2: the number of fields"),
        (None, ["a.png,real,train,x,y"], "csv:2: the number of fields"),
        (None, ["a.png,real,train,x", "a.png,fake,train,x"], "csv:3: .*line 2 already"),
        (None, ["../a.png,real,train,x"], "csv:2: path must lead into"),
        (None, [], "csv: no files listed"),
        (
            None,
            ["a.png,real,train,x", "b.png,fake,train,y", "c.png,fake,test,x"],
            r"csv:4: group 'x' stands in train \(.*csv:2\) and in test",
        ),
    ],
)
def test_faces_errors_name_file_and_line(tmp_path, header, lines, message):
    root = tmp_path / "manual"
    draw_faces(root, lines, header or "path,label,split,group")
    with pytest.raises(ValueError, match=r"labels\." + message):
        prepare(LabeledFaces(data_dir=tmp_path / "data"), root)


def test_faces_missing_file(tmp_path):
    root = tmp_path / "manual"
    draw_faces(root, ["a.png,real,train,x", "b.png,fake,train,x"])
    (root / "b.png").unlink()
    with pytest.raises(ValueError, match=r"labels\.csv:3: there is no file 'b\.png'"):
        prepare(LabeledFaces(data_dir=tmp_path / "data"), root)


def test_failed_build_leaves_nothing_and_can_be_run_again(tmp_path):
    root, data = tmp_path / "manual", tmp_path / "data"
    write(root / "b.png", encoded(".png", 6, 8)[:20])
    draw_faces(root, ["a.png,real,train,x", "b.png,fake,test,y"])
    with pytest.raises(
        ValueError, match="No file of the split test gives a record.*b.png: no image"
    ):
        prepare(LabeledFaces(data_dir=data), root)
    assert not [path for path in (data / "labeled_faces").rglob("*") if path.is_file()]
    write(root / "b.png", encoded(".png", 6, 8))
    assert list(records(prepare(LabeledFaces(data_dir=data), root), "test")) == [
        "b.png"
    ]


def test_folders_name_label_split_and_group(tmp_path):
    root = tmp_path / "manual"
    for number, path in enumerate(
        [
            "train/real/video 1/0.png",
            "train/real/video 1/1.png",
            "train/fake/video 1/0.jpg",
            "val/real/a.png",
            "test/fake/b/c/d.webp",
            "test/real/e.bmp",
        ]
    ):
        write(root / path, encoded(pathlib.Path(path).suffix, 6, 8, number))
    write(root / "train/notes.txt", "not an image")
    write(root / "val/real/b.heic", b"\0\0\0\x18ftypheic" + bytes(16))
    write(root / "test/real/f.jfif", encoded(".jpg", 6, 8))
    builder = prepare(LabeledFaces(data_dir=tmp_path / "data"), root)
    found = {
        name: (split, int(record["label"]), record["group"].decode())
        for split in builder.info.splits
        for name, record in records(builder, split).items()
    }
    assert found == {
        "train/real/video 1/0.png": ("train", 0, "video 1"),
        "train/real/video 1/1.png": ("train", 0, "video 1"),
        "train/fake/video 1/0.jpg": ("train", 1, "video 1"),
        "val/real/a.png": ("validation", 0, "val/real/a.png"),
        "test/fake/b/c/d.webp": ("test", 1, "b/c"),
        "test/real/e.bmp": ("test", 0, "test/real/e.bmp"),
        "test/real/f.jfif": ("test", 0, "test/real/f.jfif"),
    }
    # A name tells nothing of an image that has another one's, or of no kind at all.
    assert builder.info.metadata["counts"]["train"]["passed_over/.txt"] == 1
    assert builder.info.metadata["totals"]["passed_over/HEIC"] == 1


def test_what_has_no_label_is_told_and_counted(tmp_path, caplog):
    root = tmp_path / "manual"
    draw_faces(root, ["a.png,real,train,", "sub/b.png,fake,train,"])
    write(root / "sub/c.png", encoded(".png", 4, 4))
    write(root / "photo", encoded(".jpg", 4, 4))
    write(root / "d.heic", b"\0\0\0\x18ftypheic")
    write(root / "notes.txt", "text")
    write(root / "sub/crops.json", "{}")
    moving = io.BytesIO()
    red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    red.save(moving, "GIF", save_all=True, append_images=[blue])
    write(root / "a.png", moving.getvalue())
    metadata = prepare(LabeledFaces(data_dir=tmp_path / "data"), root).info.metadata
    assert "a.png: animated: only its first frame was taken" in caplog.text
    assert metadata["totals"]["n_animated"] == 1
    kinds = ("JPEG without a label", "PNG without a label", "HEIC", ".txt")
    assert {
        name: number for name, number in metadata["totals"].items() if "over" in name
    } == {f"passed_over/{kind}": 1 for kind in kinds}
    assert (
        "passed over 4 files: 1 .txt, 1 HEIC, 1 JPEG without a label, 1 PNG without a "
        "label" in caplog.text
    )


def test_random_split_of_images_needs_a_flag_that_names_the_danger(tmp_path):
    root = tmp_path / "manual"
    for label in ("real", "fake"):
        for number in range(40):
            write(root / label / f"{number}.png", encoded(".png", 4, 4, number))
    message = r"real/0\.png.* nor do 79 others.*leaks.*--leaky_random_split"
    with pytest.raises(ValueError, match=message.replace("real/0", "(fake|real)/0")):
        prepare(LabeledFaces(data_dir=tmp_path / "data"), root)
    builder = LabeledFaces(data_dir=tmp_path / "data", leaky_random_split=True)
    builder = prepare(builder, root)
    assert sum(split.num_examples for split in builder.info.splits.values()) == 80
    assert builder.info.metadata["settings"] == {"leaky_random_split": True}


def test_folders_without_labels_say_what_is_wanted(tmp_path):
    root = tmp_path / "manual"
    write(root / "genuine/a.png", encoded(".png", 4, 4))
    with pytest.raises(ValueError, match=r"must have a labels\.csv.*lies genuine/a"):
        prepare(LabeledFaces(data_dir=tmp_path / "data"), root)


def test_source_method_and_head_box_become_fields(tmp_path, caplog):
    root = tmp_path / "manual"
    lines = [
        "a.png,real,train,x,camera,,.25,-.1,1.2,.5,9",
        "b.png,fake,train,y,lab,diffusion,,,,,",
        "c.png,fake,train,z,lab,diffusion,0,0,0,0,",
        "d.png,fake,train,w,,,nan,nan,nan,nan,7",
    ]
    header = "path,label,split,group,source,method,ymin,xmin,ymax,xmax,age"
    draw_faces(root, lines, header)
    builder = prepare(LabeledFaces(data_dir=tmp_path / "data"), root)
    found = {
        name: (
            *(record[field].decode() for field in ("source", "method")),
            *(float(record[side]) for side in ("ymin", "xmin", "ymax", "xmax")),
        )
        for name, record in records(builder, "train").items()
    }
    assert found == {
        "a.png": ("camera", "", 0.25, np.float32(-0.1), np.float32(1.2), 0.5),
        "b.png": ("lab", "diffusion", 0, 0, 0, 0),
        "c.png": ("lab", "diffusion", 0, 0, 0, 0),
        "d.png": ("", "", 0, 0, 0, 0),
    }
    assert "labels.csv: the columns 'age' are ignored" in caplog.text


def test_a_table_of_crops_has_no_boxes(tmp_path, caplog):
    """Boxes of `heads.csv` are those of the images that the crops were cut of."""
    root = tmp_path / "manual"
    lines = ["a.png,real,train,x,.1,.2,.4,.5,1.0", "b.png,fake,train,y,.1,.2,.4,.5,"]
    header = "path,label,split,group,ymin,xmin,ymax,xmax,margin"
    draw_faces(root, lines, header)
    builder = prepare(LabeledFaces(data_dir=tmp_path / "data"), root)
    found = {
        x: float(record["xmax"]) for x, record in records(builder, "train").items()
    }
    assert found == {"a.png": 0, "b.png": 0.5}
    assert "ignored" not in caplog.text


def test_further_columns_count_for_the_fingerprint_where_they_say_something(tmp_path):
    root = tmp_path / "manual"
    lines = ["a.png,real,train,x", "b.png,fake,train,y"]

    def fingerprint(name, lines, more=""):
        draw_faces(root, lines, "path,label,split,group" + more)
        builder = prepare(LabeledFaces(data_dir=tmp_path / name), root)
        return builder.info.metadata["fingerprint"]

    plain = fingerprint("plain", lines)
    empty = [f"{line},,,,,," for line in lines]
    columns = ",source,method,ymin,xmin,ymax,xmax"
    assert fingerprint("empty", empty, columns) == plain
    named = [f"{line},lab" for line in lines]
    boxed = [f"{line},0,0,1,1" for line in lines]
    others = {
        fingerprint("source", named, ",source"),
        fingerprint("method", named, ",method"),
        fingerprint("box", boxed, ",ymin,xmin,ymax,xmax"),
    }
    assert len(others | {plain}) == 4


def test_several_folders_stand_side_by_side_with_and_without_a_name(tmp_path):
    for name in ("first", "second", ""):
        root = tmp_path / f"manual{name}"
        image = f"{name or 'plain'}.png"
        draw_faces(root, [f"{image},real,train,x"])
        prepare(LabeledFaces(data_dir=tmp_path / "data", config=name or None), root)
    for name in ("first", "second", ""):
        full = f"labeled_faces/{name}" if name else "labeled_faces"
        builder = prepared.open_builder(str(tmp_path / "data"), full)
        assert prepared.name_dataset(builder) == full
        assert list(records(builder, "train")) == [f"{name or 'plain'}.png"]
    with pytest.raises(ValueError, match="labeled_faces/NAME.*got '1'"):
        LabeledFaces(data_dir=tmp_path / "data", config="1")
