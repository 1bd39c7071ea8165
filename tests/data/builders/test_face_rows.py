"""Lists, numbered files, frames and known data sets that `labeled_faces` reads."""

import json

import numpy as np
import pytest

from building_support import (
    builder_class,
    clip,
    encoded,
    prepare,
    records,
    write,
)
from dfdetect.data import export_lists
from dfdetect.evaluation import classification_protocol, evaluation_set, predictions

LabeledFaces = builder_class("labeled_faces")


def _prepare(root, folder, **options):
    return prepare(LabeledFaces(data_dir=folder, **options), root)


def _found(builder, *fields):
    """By split and file name, the label, group and other fields of each record."""
    return {
        (split, name): (
            record["label"],
            *(
                value.decode() if isinstance(value := record[f], bytes) else int(value)
                for f in ("group", *fields)
            ),
        )
        for split in builder.info.splits
        for name, record in records(builder, split).items()
    }


def _image(path, seed=0):
    write(path, encoded(".png", 8, 8, seed))


def test_lists_of_the_reference_project_are_read(tmp_path):
    """Its paths are those of the machine that wrote them."""
    root = tmp_path / "manual"
    rows = {"train.txt": [("train/0.png", 1), ("train/a b.png", 0)]}
    rows |= {"val.txt": [("validation/0.png", 0)], "test.txt": [("test/0.png", 1)]}
    for name, listed in rows.items():
        lines = [f"/home/someone/dataset/{path} {label}" for path, label in listed]
        write(root / name, "\n".join(lines) + "\n")
        for path, label in listed:
            _image(root / path)
            write(root / path.replace(".png", ".txt"), str(label))
    expected = {
        ("train", "train/0.png"): (1, "train/0.png"),
        ("train", "train/a b.png"): (0, "train/a b.png"),
        ("validation", "validation/0.png"): (0, "validation/0.png"),
        ("test", "test/0.png"): (1, "test/0.png"),
    }
    assert _found(_prepare(root, tmp_path / "data")) == expected
    # The files beside the images say the same.
    for name in rows:
        (root / name).rename(tmp_path / name)
    assert _found(_prepare(root, tmp_path / "numbered")) == expected
    listed = [str(tmp_path / "train.txt"), str(tmp_path / "test.txt")]
    builder = _prepare(root, tmp_path / "some", lists=listed)
    assert {*_found(builder)} == {key for key in expected if key[0] != "validation"}
    assert builder.info.metadata["settings"]["lists"] == listed


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["a.png 2"], r"train\.txt:1: must be PATH LABEL, got 'a\.png 2'"),
        (["a.png"], r"train\.txt:1: must be PATH LABEL"),
        (["a.png 1", "c.png 0"], r"train\.txt:2: there is no file 'c\.png' in"),
        (["a.png 1", "x/a.png 1"], r"train\.txt:2: .* stands in .*train\.txt:1, too"),
    ],
)
def test_wrong_lines_of_lists_are_named(lines, told, tmp_path):
    _image(tmp_path / "manual" / "a.png")
    write(tmp_path / "manual" / "train.txt", "\n".join(lines))
    with pytest.raises(ValueError, match=told):
        _prepare(tmp_path / "manual", tmp_path / "data")


def test_lists_of_frames_keep_what_belongs_together(tmp_path):
    """Frames go by their clip or pair: alone, each would count as independent."""
    fields = ("method", "compression", "clip", "frame")
    real = "original_sequences/youtube/c23/frames"
    fake = "manipulated_sequences/Deepfakes/c23/frames"
    root = tmp_path / "manual"
    names = [f"{real}/071/000.png 0", f"{real}/071/008.png 0"]
    names += [f"{fake}/071_054/008.png 1", "more/frames/x/3.png 0", "more/y/4.png 0"]
    for line in names:
        _image(root / line.split(" ")[0])
    write(root / "train.txt", "\n".join(names))
    found = _found(_prepare(root, tmp_path / "data"), *fields)
    pair, clip = "054_071", "original_sequences/youtube/c23/071"
    swapped = "manipulated_sequences/Deepfakes/c23/071_054"
    assert {path: values for (_, path), values in found.items()} == {
        f"{real}/071/000.png": (0, pair, "youtube", "c23", clip, 0),
        f"{real}/071/008.png": (0, pair, "youtube", "c23", clip, 8),
        f"{fake}/071_054/008.png": (1, pair, "Deepfakes", "c23", swapped, 8),
        "more/frames/x/3.png": (0, "more/x", "", "", "more/x", 3),
        # Any photograph may have a number.
        "more/y/4.png": (0, "more/y/4.png", "", "", "", -1),
    }
    write(root / "test.txt", names.pop(0))
    write(root / "train.txt", "\n".join(names))
    with pytest.raises(ValueError, match=r"group '054_071' stands in .*train.* test"):
        _prepare(root, tmp_path / "no")
    write(root / "train.txt", f"{real}/071/000.png 1")
    (root / "test.txt").unlink()
    with pytest.raises(ValueError, match=r"train\.txt:1: .* is fake here and real by"):
        _prepare(root, tmp_path / "no")


def test_frames_that_extract_frames_wrote_are_known_by_its_file(tmp_path):
    """In lists, beside texts of their labels and in folders that name these."""
    fields = ("clip", "frame", "compression")
    paths = ("real/a/000001.png", "real/a/000003.png", "fake/a/000001.crf23.png")
    for kind, of_group in (("lists", "{}/a"), ("numbered", "{}/a"), ("folders", "a")):
        root = tmp_path / kind
        write(root / "extract_frames.json", "{}")
        labels = [int(path.startswith("fake")) for path in paths]
        lines = [f"{p} {label}" for p, label in zip(paths, labels, strict=True)]
        for path, label in zip(paths, labels, strict=True):
            _image(root / path)
            if kind == "numbered":
                write((root / path).with_suffix(".txt"), str(label))
        if kind == "lists":
            write(root / "train.txt", "\n".join(lines))
        builder = _prepare(root, tmp_path / "data" / kind)
        assert sorted(_found(builder, *fields).values()) == [
            (0, of_group.format("real"), "real/a", 1, ""),
            (0, of_group.format("real"), "real/a", 3, ""),
            (1, of_group.format("fake"), "fake/a", 1, "crf23"),
        ]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-16"])
def test_lists_may_be_in_other_encodings(encoding, tmp_path, caplog):
    root = tmp_path / "manual"
    for name in ("a.png", "é.png"):
        _image(root / name)
    write(root / "train.txt", "a.png 1\né.png 0\n".encode(encoding))
    found = _found(_prepare(root, tmp_path / "data"))
    assert {name: values[0] for (_, name), values in found.items()} == {
        "a.png": 1,
        "é.png": 0,
    }
    told = f"{root / 'train.txt'}:2 is not UTF-8: the file is read as Windows-1252"
    assert (told in caplog.text) == (encoding == "latin-1")


def test_numbered_files_are_known_by_content(tmp_path, caplog):
    root = tmp_path / "manual" / "train"
    contents = {
        "a.png": encoded(".png", 8, 8, 0),
        "b": encoded(".png", 8, 8, 1),
        "c.heic": b"\0\0\0\x18ftypheic",
        "masks/d.png": encoded(".png", 8, 8, 2),
    }
    for name, content in contents.items():
        write(root / name, content)
        write((root / name).with_suffix(".txt"), "1")
    builder = _prepare(tmp_path / "manual", tmp_path / "data")
    assert {name for _, name in _found(builder)} == {"train/a.png", "train/b"}
    told = "passed over 4 files: 2 .txt, 1 HEIC, 1 PNG without a label"
    assert told in caplog.text


def test_numbered_files_without_a_split_are_refused_as_leaky(tmp_path):
    for number in range(2):
        _image(tmp_path / "manual" / f"{number}.png")
        write(tmp_path / "manual" / f"{number}.txt", str(number))
    with pytest.raises(ValueError, match="names neither a group nor a split"):
        _prepare(tmp_path / "manual", tmp_path / "data")
    write(tmp_path / "manual" / "1.txt", "fraud")
    with pytest.raises(ValueError, match=r"1\.txt: must be 0 .* 1 .*, got 'fraud'"):
        _prepare(tmp_path / "manual", tmp_path / "data")


_TABLE = """path,label,split,group,source,method,compression,clip,frame,camera
a/000004.png,real,train,one,lab,,c23,a,4,x1
b.png,fake,train,one,,swap,c40,,,x2
c.png,fake,test,two,,swap,,,,x1
d.png,real,test,two,lab,,,,,x2
"""


def test_columns_become_fields_and_rows_of_the_evaluation(tmp_path):
    root = tmp_path / "manual"
    write(root / "labels.csv", _TABLE)
    for seed, name in enumerate(("a/000004.png", "b.png", "c.png", "d.png")):
        _image(root / name, seed)
    builder = _prepare(root, tmp_path / "data", columns=["camera"])
    fields = ("source", "method", "compression", "clip", "frame", "camera")
    assert _found(builder, *fields) == {
        ("train", "a/000004.png"): (0, "one", "lab", "", "c23", "a", 4, "x1"),
        ("train", "b.png"): (1, "one", "", "swap", "c40", "", -1, "x2"),
        ("test", "c.png"): (1, "two", "", "swap", "", "", -1, "x1"),
        ("test", "d.png"): (0, "two", "lab", "", "", "", -1, "x2"),
    }
    judged = evaluation_set.load_evaluation_set(
        builder, "test", say=lambda _: None, num_resamples=5
    )
    found = predictions.join_survey(judged.survey, np.array([0.2, 0.7]))
    strata = classification_protocol.measure_strata(found, 5)
    assert {*strata["camera"]} == {"x1", "x2"} and {*strata["source"]} == {"", "lab"}
    assert "clip" not in strata
    # One still of a real and one of a fake of a group are two videos.
    assert len({*predictions.name_videos(judged.survey)}) == 2
    judged = evaluation_set.load_evaluation_set(
        builder, "test", say=lambda _: None, where=["camera=x1"]
    )
    assert judged.survey.filenames == ["c.png"]
    with pytest.raises(ValueError, match="has no column 'lens' for --columns"):
        _prepare(root, tmp_path / "no", columns=["camera", "lens"])
    with pytest.raises(ValueError, match="columns must be others than"):
        _prepare(root, tmp_path / "no", columns=["label"])


def test_exported_lists_are_read_again_with_all_that_was_known(tmp_path):
    root = tmp_path / "manual"
    write(root / "labels.csv", _TABLE)
    for seed, name in enumerate(("a/000004.png", "b.png", "c.png", "d.png")):
        _image(root / name, seed)
    builder = _prepare(root, tmp_path / "data", columns=["camera"])
    export_lists.export_dataset(builder, str(tmp_path / "lists"), say=lambda _: None)
    again = _prepare(tmp_path / "lists", tmp_path / "again", columns=["camera"])
    fields = ("source", "method", "compression", "clip", "frame", "camera")

    def without_names(found):
        return sorted((split, *values) for (split, _), values in found.items())

    expected = without_names(_found(builder, *fields))
    assert without_names(_found(again, *fields)) == expected
    # Lists choose among the images; what they do not say is in the table.
    lists = [str(tmp_path / "lists" / f"{name}.txt") for name in ("train", "test")]
    chosen = _prepare(
        tmp_path / "lists", tmp_path / "chosen", columns=["camera"], lists=lists
    )
    assert without_names(_found(chosen, *fields)) == expected


def test_a_table_of_clips_names_their_extracted_frames(run_script, tmp_path):
    clips = tmp_path / "clips"
    for name in ("one", "one_fake", "two", "two_fake"):
        clip(clips / "a" / f"{name}.mp4", 4)
    table = ["path,label,split,group,method"]
    table += [
        f"a/{name}.mp4,{label},{split},{group},{method}"
        for name, label, split, group, method in (
            ("one", "real", "train", "one", ""),
            ("one_fake", "fake", "train", "one", "swap"),
            ("two", "real", "test", "two", ""),
            ("two_fake", "fake", "test", "two", "swap"),
        )
    ]
    write(clips / "labels.csv", "\n".join(table))
    frames = tmp_path / "frames"
    run_script("datasets/extract_frames.py", "-i", clips, "-o", frames, "-f", 2)
    builder = _prepare(frames, tmp_path / "data")
    assert _found(builder, "method", "clip", "frame") == {
        (split, f"a/{name}/{frame:06d}.png"): (label, group, method, f"a/{name}", frame)
        for split, group in (("train", "one"), ("test", "two"))
        for label, (suffix, method) in enumerate((("", ""), ("_fake", "swap")))
        for frame in (1, 3)
        for name in (f"{group}{suffix}",)
    }
    judged = evaluation_set.load_evaluation_set(
        builder, "test", say=lambda _: None, num_resamples=5
    )
    assert {*predictions.name_videos(judged.survey)} == {"a/two", "a/two_fake"}


def test_frames_tell_the_rate_factor_that_their_clip_was_compressed_at(tmp_path):
    """As `extract_frames --rate_factors` names them, of each kind of clip."""
    frames = ("000004.crf18.png", "000009.crf40.png")
    fields = ("clip", "frame", "compression")
    root = tmp_path / "table"
    write(
        root / "labels.csv",
        "path,label,split,group,compression\na.mp4,real,train,x,\nb.mp4,fake,train,x,c23",
    )
    sets = tmp_path / "sets"
    fake = "manipulated_sequences/Deepfakes/c23"
    for name in frames:
        for folder in (root / "a", root / "b"):
            _image(folder / name)
        _image(sets / "faceforensics" / fake / "videos" / "071_054" / name)
        _image(sets / "celeb" / "Celeb-real" / "id0_0000" / name)
    assert _found(_prepare(root, tmp_path / "data"), *fields) == {
        ("train", f"{clip}/{name}"): (label, "x", clip, number, before + factor)
        for clip, label, before in (("a", 0, ""), ("b", 1, "c23+"))
        for name, number, factor in zip(frames, (4, 9), ("crf18", "crf40"), strict=True)
    }
    for name, told in {
        "faceforensics": [
            (1, "054_071", f"{fake}/071_054", 4, "c23+crf18"),
            (1, "054_071", f"{fake}/071_054", 9, "c23+crf40"),
        ],
        "celeb": [
            (0, "id0_0000", "Celeb-real/id0_0000", 4, "crf18"),
            (0, "id0_0000", "Celeb-real/id0_0000", 9, "crf40"),
        ],
    }.items():
        builder = _prepare(sets / name, tmp_path / "of" / name)
        assert sorted(_found(builder, *fields).values()) == told


@pytest.mark.parametrize("prefix", ["", "FaceForensics++/"])
def test_frames_of_faceforensics_as_deepfakebench_prepares_them(prefix, tmp_path):
    root = tmp_path / "manual"
    folder = root / prefix
    real, fake = "original_sequences/youtube/c23", "manipulated_sequences/Deepfakes/c23"
    for split, pair in (("train", ("071", "054")), ("test", ("953", "974"))):
        write(folder / f"{split}.json", json.dumps([pair]))
        for one, other in (pair, pair[::-1]):
            _image(folder / real / "frames" / one / "008.png")
            _image(folder / fake / "frames" / f"{one}_{other}" / "008.png")
            _image(folder / fake / "masks" / f"{one}_{other}" / "008.png")
            write(folder / fake / "landmarks" / f"{one}_{other}" / "008.npy", "x")
    actors = "original_sequences/actors/c23/frames/01__talking"
    _image(folder / actors / "000.png")
    builder = _prepare(root, tmp_path / "data")
    found = _found(builder, "source", "method", "compression", "clip", "frame")
    assert len(found) == 8
    name = f"{prefix}{fake}/frames/974_953/008.png"
    assert found["test", name] == (
        1,
        "953_974",
        "",
        "Deepfakes",
        "c23",
        f"{prefix}{fake}/974_953",
        8,
    )
    name = f"{prefix}{real}/frames/054/008.png"
    assert found["train", name][:4] == (0, "054_071", "youtube", "youtube")
    totals = builder.info.metadata["totals"]
    assert totals["passed_over/frames of clips in no pair of FaceForensics++"] == 1


@pytest.mark.parametrize("between", ["", "frames/"])
def test_frames_of_celeb_df(between, tmp_path):
    root = tmp_path / "manual" / "Celeb-DF-v2"
    clips = [
        *[f"Celeb-real/{between}id{i}_0000" for i in range(12)],
        *[f"Celeb-synthesis/{between}id{i}_id20_0000" for i in range(12)],
        f"Celeb-synthesis/{between}id0_id21_0000",
        f"YouTube-real/{between}00170",
    ]
    for number, name in enumerate(clips):
        _image(root / name / "000.png", number)
    tested = ["1 Celeb-real/id0_0000.mp4", "0 Celeb-synthesis/id0_id20_0000.mp4"]
    tested += ["1 YouTube-real/00170.mp4"]
    write(root / "List_of_testing_videos.txt", "\n".join(tested) + "\n")
    builder = _prepare(root.parent, tmp_path / "data")
    found = _found(builder, "source", "method", "clip")
    assert {name for split, name in found if split == "test"} == {
        f"Celeb-DF-v2/{folder}/{between}{name}/000.png"
        for folder, name in (
            ("Celeb-real", "id0_0000"),
            ("Celeb-synthesis", "id0_id20_0000"),
            ("YouTube-real", "00170"),
        )
    }
    # A fake of the test's scene is in no split, and others go with their scene.
    assert len(found) == len(clips) - 1
    groups = {}
    for (split, _), (_, group, *_) in found.items():
        assert groups.setdefault(group, split) == split
    assert groups["youtube_00170"] == "test"
    name = f"Celeb-DF-v2/Celeb-synthesis/{between}id3_id20_0000/000.png"
    fake = found[groups["id3_0000"], name]
    assert fake[:4] == (1, "id3_0000", "", "Celeb-synthesis")
    write(root / "List_of_testing_videos.txt", "Celeb-real/id0_0000.mp4\n")
    with pytest.raises(ValueError, match=r"videos\.txt:1: must be LABEL FOLDER/CLIP"):
        _prepare(root.parent, tmp_path / "no")


def test_sets_of_deepfakebench_side_by_side(tmp_path, caplog):
    """Both known sets are read, of `rgb/` as a whole; what is not read is counted."""
    root = tmp_path / "rgb"
    names = {
        "FaceForensics++/original_sequences/youtube/c23/frames/071": "youtube",
        "FaceForensics++/manipulated_sequences/FaceShifter/c23/frames/071_054": (
            "FaceShifter"
        ),
        "Celeb-DF-v1/Celeb-real/frames/id0_0000": "Celeb-real",
        "Celeb-DF-v2/Celeb-synthesis/frames/id0_id1_0000": "Celeb-synthesis",
    }
    for name in names:
        _image(root / name / "000.png")
    for name in ("UADFV/real/frames/0047", "DFDCP/method_A/1/frames/1_A", "DFDCP"):
        _image(root / name / "000.png")
    actors = "FaceForensics++/original_sequences/actors/c23/frames/01__talking"
    _image(root / actors / "000.png")
    builder = _prepare(root, tmp_path / "data")
    found = _found(builder, "method")
    assert {name: values[-1] for (_, name), values in found.items()} == {
        f"{name}/000.png": method for name, method in names.items()
    }
    assert {name: values[1] for (_, name), values in found.items()} == {
        f"{name}/000.png": "054_071" if "FaceForensics" in name else "id0_0000"
        for name in names
    }
    totals = builder.info.metadata["totals"]
    passed_over = {k: n for k, n in totals.items() if k.startswith("passed_over/")}
    assert sorted(passed_over.values()) == [1, 3]
    assert "3 images of neither FaceForensics++ nor Celeb-DF" in caplog.text
    with pytest.raises(ValueError, match="DeepfakeBench.*name those of other sets"):
        _prepare(root / "DFDCP", tmp_path / "no")
