"""Head boxes of one's own, in both layouts, sound and damaged."""

import json

import numpy as np
import pytest

from building_support import (
    builder_class,
    draw_labeled_heads,
    encoded,
    head,
    prepare,
    records,
    snapshot,
    write,
)
from dfdetect.data import prepared

LabeledHeads = builder_class("labeled_heads")


def _voc(root, name, *objects, size="<width>80</width><height>40</height>", more=""):
    """An image of 40 rows and 80 columns, and what is said about it."""
    write(root / "JPEGImages" / f"{name}.png", encoded(".png", 40, 80))
    text = f"<annotation><size>{size}</size>{more}{''.join(objects)}</annotation>"
    write(root / "Annotations" / f"{name}.xml", text)


def _coco(path, images, annotations=(), categories=("head",)):
    """A COCO file; `images` by file name, annotations as (image, category, bbox)."""
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(images)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box, **more}
            for i, (image, category, box, more) in enumerate(annotations)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories)],
    }
    write(path, json.dumps(content))


def _prepare(tmp_path, name="mine", **options):
    builder = LabeledHeads(data_dir=tmp_path / "data", config=name, **options)
    return prepare(builder, tmp_path / "manual")


def _split_of(builder):
    return {n: s for s in builder.info.splits for n in records(builder, s)}


def _skipped(builder):
    return [
        line for lines in builder.info.metadata["skipped"].values() for line in lines
    ]


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """A VOC folder of every kind of image: source, its state before, builder."""
    folder = tmp_path_factory.mktemp("voc")
    root = folder / "manual"
    draw_labeled_heads(root)
    before = snapshot(root)
    return root, before, _prepare(folder)


def test_voc_records(voc):
    root, _, builder = voc
    train = records(builder, "train")
    assert sorted(train) == ["a.jpg", "b.PNG", "c.webp", "d.bmp"]
    for name, record in train.items():
        assert record["image"] == (root / "JPEGImages" / name).read_bytes()
    # 40 rows and 80 columns; the second box reaches 20 columns out of the image.
    np.testing.assert_allclose(
        train["a.jpg"]["objects"]["bbox"],
        [[0.25, 0.25, 0.75, 0.75], [0, 0.75, 0.5, 1]],
        atol=1e-7,
    )
    assert train["a.jpg"]["objects"]["is_difficult"].tolist() == [True, False]
    assert train["a.jpg"]["objects"]["label"].tolist() == [0, 0]
    assert train["b.PNG"]["objects"]["bbox"].shape == (0, 4)  # a negative
    groups = {name: record["group"] for name, record in train.items()}
    assert groups == {"a.jpg": b"a", "b.PNG": b"b", "c.webp": b"film", "d.bmp": b"film"}
    assert list(records(builder, "validation")) == ["e.jpeg"]
    # The list of the test is empty.
    assert list(builder.info.splits) == ["train", "validation"]


def test_voc_account(voc):
    metadata = voc[2].info.metadata
    counts = metadata["counts"]["train"]
    assert {name: n for name, n in counts.items() if n} == {
        "n_images": 4,
        "n_heads": 4,
        "n_difficult": 1,
        "n_empty": 1,
        "n_clipped": 1,
        "n_missing_difficult": 1,
        "n_dropped_other_name": 2,
        "other_name/person": 2,
        "n_groups": 5,
        "n_damaged": 1,
        "n_unreadable": 1,
        "n_missing_image": 1,
        "n_missing_annotation": 1,
        "n_skipped": 4,
    }
    assert metadata["skipped"]["train"] == [
        "Annotations/capital.xml: object 1 is named 'Head'; nearest known name: 'head'",
        "Annotations/lost.xml: one image of this name is wanted, found none",
        "JPEGImages/broken.jpg: no image that can be decoded: JPEG, cut short or "
        "damaged",
        "JPEGImages/silent.jpg: there is no annotation; an image without heads needs "
        "one without objects",
    ]
    assert metadata["settings"]["head_names"] == ["head"]


def test_source_is_untouched(voc):
    root, before, _ = voc
    assert snapshot(root) == before


_SOUND = head(1, 2, 9, 12)


@pytest.mark.parametrize(
    "label, reason",
    [
        (head(30, 9, 20, 19), "object 1 has swapped corners (ymin 30, xmin 9, ymax 20"),
        (head(3, 19, 20, 9), "object 1 has swapped corners"),
        (head(5, 9, 25, 9), "object 1 has no area"),
        (head(0.1, 0.2, 0.4, 0.6), "object 1 has no area: it is smaller than a pixel"),
        (head(50, 9, 60, 19), "object 1 lies outside the image of 80 x 40 pixels"),
        (head("ten", 1, 12, 13), "object 1: ymin is 'ten'; a number is wanted"),
        (head("1_0", 1, 12, 13), "object 1: ymin is '1_0'"),
        (head("1,5", 1, 12, 13), "object 1: ymin is '1,5'"),
        (head("nan", 1, 12, 13), "object 1: ymin is 'nan'"),
        (head(1, 1, "inf", 13), "object 1: ymax is 'inf'"),
        (head("", 1, 12, 13), "object 1: ymin is missing"),
        ("<object><name>head</name></object>", "ymin is missing, xmin is missing"),
        (_SOUND.replace("<name>head</name>", ""), "object 1: it has no name"),
        (_SOUND.replace(">head<", ">Head<"), "'Head'; nearest known name: 'head'"),
        (_SOUND.replace(">head<", ">heads<"), "'heads'; nearest known name: 'head'"),
        (_SOUND.replace(">head<", ">haed<"), "'haed'; nearest known name: 'head'"),
        (_SOUND.replace(">head<", ">human head<"), "nearest known name: 'head'"),
        (_SOUND.replace(">head<", ">helmet<"), "is a 'helmet', and there is no head"),
        (
            _SOUND.replace("object>", "Object>"),
            "<Object> is not a known name; nearest: ob",
        ),
        (head(1, 2, 9, 12, "<difficult>maybe</difficult>"), "difficult must be 0 or 1"),
        (
            _SOUND.replace("</bndbox>", "</bndbox><bndbox><xmin>3</xmin></bndbox>"),
            "object 1: it has 2 boxes; one is wanted",
        ),
    ],
)
def test_damaged_label_is_no_negative(tmp_path, label, reason):
    root = tmp_path / "manual"
    _voc(root, "damaged", label)
    # The file is named among sound ones, also where a sound head stands beside.
    _voc(root, "sound", _SOUND)
    if "there is no head" not in reason:
        _voc(root, "beside", label, _SOUND)
    builder = _prepare(tmp_path)
    assert list(_split_of(builder)) == ["sound.png"]
    told = _skipped(builder)
    assert any(line.startswith("Annotations/damaged.xml: ") for line in told)
    assert len(told) == builder.info.metadata["totals"]["n_damaged"]
    assert all(reason in line for line in told), told


@pytest.mark.parametrize(
    "text, reason",
    [
        ("<annotations/>", "the root must be <annotation>, got <annotations>"),
        ("<annotation><object>", "the annotation is not XML"),
        ("head 1 2 3 4", "the annotation is not XML"),
        (
            "<annotation><size><width>160</width><height>80</height></size>"
            f"{_SOUND}</annotation>",
            "of an image of 160 x 80 pixels, but upright this one has 80 x 40",
        ),
    ],
)
def test_damaged_annotation_is_no_negative(tmp_path, text, reason):
    root = tmp_path / "manual"
    _voc(root, "sound", _SOUND)
    _voc(root, "damaged")
    write(root / "Annotations/damaged.xml", text)
    builder = _prepare(tmp_path)
    assert list(_split_of(builder)) == ["sound.png"]
    (line,) = _skipped(builder)
    assert "damaged" in line and reason in line


def test_a_head_that_is_stated_twice_counts_once(tmp_path):
    _voc(tmp_path / "manual", "twice", _SOUND, head(5, 5, 20, 20), _SOUND)
    builder = _prepare(tmp_path)
    (record,) = records(builder, next(iter(builder.info.splits))).values()
    assert record["objects"]["bbox"].shape == (2, 4)
    assert builder.info.metadata["totals"]["n_repeated"] == 1


def test_strict_stops_at_a_damaged_label(tmp_path):
    _voc(tmp_path / "manual", "swapped", head(30, 9, 20, 19))
    with pytest.raises(
        ValueError, match=r"Annotations/swapped\.xml: object 1 has swap"
    ):
        _prepare(tmp_path, strict=True)


def test_names_that_are_heads_and_that_are_not(tmp_path):
    root = tmp_path / "manual"
    _voc(root, "helmet", _SOUND.replace(">head<", ">helmet<"))
    _voc(root, "dog", _SOUND.replace(">head<", ">dog<"))
    names = {"head_names": ["head", "helmet"], "other_names": ["dog"]}
    builder = _prepare(tmp_path, **names)
    found = {n: r for s in builder.info.splits for n, r in records(builder, s).items()}
    heads = {name: len(record["objects"]["bbox"]) for name, record in found.items()}
    assert heads == {"helmet.png": 1, "dog.png": 0}
    assert builder.info.metadata["totals"]["other_name/dog"] == 1
    for wrong in ({"head_names": []}, {"head_names": ["dog"], "other_names": ["dog"]}):
        with pytest.raises(ValueError, match="head_names must be one name or more"):
            _prepare(tmp_path, "other", **wrong)


def test_fingerprint_tells_which_boxes_are_heads(tmp_path):
    root = tmp_path / "manual"
    face = _SOUND.replace(">head<", ">face<")
    _voc(root, "both", _SOUND, face)
    _voc(root, "head", _SOUND)

    def fingerprint(name, *head_names, others=()):
        options = {"head_names": head_names, "other_names": others}
        builder = _prepare(tmp_path, name, sv=0, st=0, **options)
        assert builder.info.metadata["totals"]["n_images"] == 2
        return builder.info.metadata["fingerprint"]

    plain = fingerprint("plain", "head")
    # Names that choose the same boxes tell the same data.
    assert fingerprint("more", "head", "hat", others=["face"]) == plain
    both = fingerprint("both", "head", "face")
    faces = fingerprint("faces", "face", others=["head"])
    assert len({plain, both, faces}) == 3
    assert fingerprint("again", "face", "head") == both


def test_images_beside_their_annotations(tmp_path):
    root = tmp_path / "manual"
    for name in ("train/a", "valid/b", "c"):
        write(root / f"{name}.jpg", encoded(".jpg", 40, 80))
        write(root / f"{name}.xml", f"<annotation>{_SOUND}</annotation>")
    split_of = _split_of(_prepare(tmp_path, sv=0, st=99))
    assert split_of == {
        "train/a.jpg": "train",
        "valid/b.jpg": "validation",
        "c.jpg": "test",  # Named nowhere: by the hash, here nearly always the test.
    }


def test_images_that_are_passed_over(tmp_path, caplog):
    root = tmp_path / "manual"
    for name in ("a", "b", "c"):
        _voc(root, name, _SOUND)
    # Masks, as PASCAL VOC has them, are not images without annotation.
    write(root / "SegmentationClass/a.png", encoded(".png", 40, 80))
    assert _skipped(_prepare(tmp_path, "all", strict=True)) == []
    write(root / "Splits/train.txt", "a\n")
    assert list(_split_of(_prepare(tmp_path, "listed"))) == ["a.png"]
    assert "2 images are in none of Splits/train.txt and are not taken" in caplog.text
    (root / "Splits/train.txt").write_bytes("a\nä\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"manual/.*Splits/train\.txt:2: must be UTF-8 text"
    ):
        _prepare(tmp_path, "latin")


def test_two_images_of_one_name(tmp_path):
    root = tmp_path / "manual"
    _voc(root, "told", _SOUND, more="<filename>told.jpg</filename>")
    _voc(root, "doubtful", _SOUND)
    for name in ("told", "doubtful"):
        write(root / f"JPEGImages/{name}.jpg", encoded(".jpg", 40, 80))
    builder = _prepare(tmp_path)
    assert list(_split_of(builder)) == ["told.jpg"]
    assert (
        "found there are 2 (JPEGImages/doubtful.jpg, JPEGImages/doubt"
        in (_skipped(builder)[0])
    )


def test_splits_by_hash_keep_groups_together(tmp_path):
    root = tmp_path / "manual"
    rows = ["path,group"]
    for index in range(40):
        _voc(root, f"{index:02d}", _SOUND)
        rows.append(f"{index:02d}.png,film-{index // 4}")
    write(root / "groups.csv", "\n".join(rows))
    builder = _prepare(tmp_path, sv=30, st=30)
    splits = {}
    for split in builder.info.splits:
        for record in records(builder, split).values():
            splits.setdefault(record["group"], set()).add(split)
    assert len(splits) == 10 and all(len(found) == 1 for found in splits.values())
    assert builder.info.metadata["totals"]["n_split_by_hash"] == 40
    assert len(builder.info.splits) > 1


@pytest.mark.parametrize("by_file", [True, False])
def test_group_in_two_splits_is_an_error(tmp_path, by_file):
    root = tmp_path / "manual"
    more = "" if by_file else "<group>film</group>"
    _voc(root, "a", _SOUND, more=more)
    _voc(root, "b", _SOUND, more=more)
    write(root / "ImageSets/Main/train.txt", "a\n")
    write(root / "ImageSets/Main/val.txt", "b\n")
    if by_file:
        write(root / "groups.csv", "path,group\nJPEGImages/a.png,film\nb,film\n")
    with pytest.raises(
        ValueError,
        match=r"group 'film' is in train \(a\.png\) and in validation \(b\.png\)",
    ):
        _prepare(tmp_path)


def test_errors(tmp_path):
    root = tmp_path / "manual"
    write(root / "JPEGImages/a.png", encoded(".png", 40, 80))
    with pytest.raises(FileNotFoundError, match="has no annotations. Wanted: Annotat"):
        _prepare(tmp_path)
    _voc(root, "a", _SOUND)
    write(root / "groups.csv", "path,film\n")
    with pytest.raises(ValueError, match=r"groups\.csv:1: columns must be path,group"):
        _prepare(tmp_path)
    write(root / "groups.csv", "path,group\nz,film\n")
    with pytest.raises(ValueError, match=r"groups\.csv:2: there is no image 'z'"):
        _prepare(tmp_path)
    (root / "groups.csv").unlink()
    write(root / "Splits/train.txt", "a\na\n")
    with pytest.raises(ValueError, match="'a' is listed twice"):
        _prepare(tmp_path)
    for name in (None, "1.0.0", "a/b", ""):
        with pytest.raises(ValueError, match="labeled_heads needs a config"):
            _prepare(tmp_path, name)
    with pytest.raises(ValueError, match="sv and st must be percentages"):
        _prepare(tmp_path, sv=60, st=40)


def test_coco_records(tmp_path, caplog):
    root = tmp_path / "manual"
    for name in ("train2017/0.jpg", "val2017/0.jpg", "train2017/empty.png"):
        write(root / name, encoded(name[-4:], 40, 80))
    write(root / "more.jpg", encoded(".jpg", 40, 80))
    crowd = {"iscrowd": 1}
    _coco(
        root / "annotations/instances_train2017.json",
        ["0.jpg", "empty.png"],
        [(0, 1, [20, 10, 40, 20], {}), (0, 1, [60, -4, 40, 24], crowd), (1, 0, [], {})],
        ("dog", "head"),
    )
    _coco(
        root / "annotations/instances_val2017.json",
        ["0.jpg"],
        [(0, 0, [20, 10, 40, 20], {})],
    )
    builder = _prepare(tmp_path)
    assert _split_of(builder) == {
        "train2017/0.jpg": "train",
        "train2017/empty.png": "train",
        "val2017/0.jpg": "validation",
    }
    objects = records(builder, "train")["train2017/0.jpg"]["objects"]
    np.testing.assert_allclose(
        objects["bbox"], [[0.25, 0.25, 0.75, 0.75], [0, 0.75, 0.5, 1]], atol=1e-7
    )
    assert objects["is_difficult"].tolist() == [False, True]
    counts = builder.info.metadata["counts"]["train"]
    assert "1 images are in none of annotations/instances_train2017.json" in caplog.text
    # The dog is a declared category: its image is a negative.
    assert counts["other_name/dog"] == counts["n_empty"] == counts["n_clipped"] == 1


@pytest.mark.parametrize(
    "category, box, reason",
    [
        (0, [30, 20, -10, 10], "annotation 0 has swapped corners"),
        (0, [30, 20, 10, 0], "annotation 0 has no area"),
        (0, [30, 20, 10], "annotation 0: bbox must be four numbers, got [30, 20, 10]"),
        (0, [30, 20, "ten", 9], "annotation 0: bbox must be four numbers"),
        (0, [30, 20, float("nan"), 9], "annotation 0: bbox must be four numbers"),
        (0, None, "annotation 0: bbox must be four numbers, got None"),
        (9, [30, 20, 10, 9], "annotation 0: category_id is 9, which is not a category"),
        (
            1,
            [30, 20, 10, 9],
            "annotation 0 is named 'Head'; nearest known name: 'head'",
        ),
    ],
)
def test_damaged_coco_label_is_no_negative(tmp_path, category, box, reason):
    root = tmp_path / "manual"
    for name in ("a.jpg", "b.jpg"):
        write(root / "images" / name, encoded(".jpg", 40, 80))
    _coco(
        root / "annotations.json",
        ["a.jpg", "b.jpg", "lost.jpg"],
        [(0, category, box, {}), (7, 0, [1, 1, 5, 5], {})],
        ("head", "Head"),
    )
    builder = _prepare(tmp_path)
    assert list(_split_of(builder)) == ["images/b.jpg"]
    told = sorted(_skipped(builder))
    assert told[0] == (
        "annotations.json: an annotation of the image 7, which is not listed"
    )
    assert told[1].startswith(f"images/a.jpg in annotations.json: {reason}")
    assert told[2] == "lost.jpg: annotations.json lists it, but there is no such image"


def test_coco_annotations_find_their_image_or_leave_no_negative(tmp_path):
    root = tmp_path / "manual"
    for name in ("a.jpg", "b.jpg"):
        write(root / name, encoded(".jpg", 40, 80))
    box = [1, 1, 5, 5]
    # Written as a text, the number is meant; `true` is not a number.
    _coco(root / "annotations.json", ["a.jpg", "b.jpg"], [("1", 0, box, {})])
    builder = _prepare(tmp_path)
    counts = builder.info.metadata["totals"]
    assert counts["n_heads"] == counts["n_empty"] == 1 and not _skipped(builder)
    boxes = [(0, 0, box, {}), (True, 0, box, {})]
    _coco(root / "annotations.json", ["a.jpg", "b.jpg"], boxes)
    builder = _prepare(tmp_path, "stray")
    assert list(_split_of(builder)) == ["a.jpg"]
    assert any(
        line.startswith("b.jpg in annotations.json") for line in _skipped(builder)
    )


def test_coco_errors(tmp_path):
    root = tmp_path / "manual"
    write(root / "a.jpg", encoded(".jpg", 40, 80))
    path = root / "annotations.json"
    _coco(path, ["a.jpg"], [(0, 0, [1, 1, 5, 5], {})], ("person", "Head"))
    with pytest.raises(
        ValueError, match="has no category 'head', but 'person', 'Head'; head_names"
    ):
        _prepare(tmp_path)
    assert len(_split_of(_prepare(tmp_path, "named", head_names=["person"]))) == 1
    write(path, json.dumps({"images": [], "categories": []}))
    with pytest.raises(ValueError, match="it lacks annotations"):
        _prepare(tmp_path)
    write(path, "[" * 100_000)
    with pytest.raises(ValueError, match="annotations.json is not JSON"):
        _prepare(tmp_path)
    write(path, "{")
    with pytest.raises(ValueError, match="annotations.json is not JSON"):
        _prepare(tmp_path)
    _coco(path, ["a.jpg", "a.jpg"])
    with pytest.raises(ValueError, match=r"a\.jpg is listed twice"):
        _prepare(tmp_path)
    _voc(root, "b", _SOUND)
    with pytest.raises(ValueError, match="has annotations in two layouts"):
        _prepare(tmp_path)


def test_split_of_damaged_images_is_left_out(tmp_path):
    root = tmp_path / "manual"
    _voc(root, "sound", _SOUND)
    _voc(root, "swapped", head(30, 9, 20, 19))
    write(root / "Splits/train.txt", "sound\n")
    write(root / "Splits/val.txt", "swapped.png\n")
    builder = _prepare(tmp_path)
    assert _split_of(builder) == {"sound.png": "train"}
    assert builder.info.metadata["counts"]["validation"]["n_damaged"] == 1
    assert "has swapped corners" in builder.info.metadata["skipped"]["validation"][0]


def test_sets_lie_side_by_side(tmp_path, run_script):
    """As a user prepares them, and as training opens them."""
    _voc(tmp_path / "manual", "rooms")
    _prepare(tmp_path, "rooms")
    _voc(tmp_path / "faces", "portrait", _SOUND.replace(">head<", ">face<"))
    write(tmp_path / "faces/Splits/train.txt", "portrait\n")
    told = run_script(
        "datasets/prepare.py",
        "--dataset=labeled_heads/my-faces",
        f"--manual_dir={tmp_path / 'faces'}",
        f"--data_dir={tmp_path / 'data'}",
        "--head_names=head,face",
    ).stdout
    assert "train: 1 images, 1 n_groups, 1 n_heads, 1 n_images" in told
    for name, heads in (("rooms", 0), ("my-faces", 1)):
        builder = prepared.open_builder(str(tmp_path / "data"), f"labeled_heads/{name}")
        (split,) = builder.info.splits
        (record,) = records(builder, split).values()
        assert len(record["objects"]["bbox"]) == heads
        assert prepared.describe_dataset(builder)["config"] == name
