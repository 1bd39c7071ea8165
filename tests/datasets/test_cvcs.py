"""The combined dataset: from prepared sources, and from a table of crops."""

import csv
import hashlib
import io

import numpy as np
import pytest
import tensorflow_datasets as tfds

from building_support import (
    builder_class,
    clip,
    draw_deepfake_challenge,
    draw_faceforensics,
    encoded,
    method_folder,
    prepare,
    records,
    snapshot,
    write,
)

Challenge = builder_class("deepfake_challenge")
FaceForensics = builder_class("faceforensics")
Cvcs = builder_class("cvcs")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folder with both datasets prepared."""
    folder = tmp_path_factory.mktemp("cvcs")
    draw_deepfake_challenge(folder / "challenge")
    prepare(Challenge(data_dir=folder / "data"), folder / "challenge")
    draw_faceforensics(folder / "clips")
    for source in ("02", "03", "04", "07", "08"):
        name = f"01_{source}__kitchen_pan__ABCDEFGH.mp4"
        clip(folder / "clips" / method_folder("DeepFakeDetection") / name, 2)
    builder = FaceForensics(config="c23", data_dir=folder / "data", frames_per_video=2)
    prepare(builder, folder / "clips")
    return folder / "data"


def _percent(group):
    return int(hashlib.sha256(group.encode()).hexdigest()[:16], 16) % 100


def _all(builder):
    return {
        name: (split, record)
        for split in builder.info.splits
        for name, record in records(builder, split).items()
    }


def test_full_is_split_by_group(sources, tmp_path):
    before = snapshot(sources)
    builder = prepare(Cvcs(config="full", data_dir=tmp_path, sv=20, st=30), sources)
    found = _all(builder)
    crossing = 0
    for source in ("deepfake_challenge/1.0.0", "faceforensics/c23/1.0.0"):
        dataset = source.split("/")[0]
        original = _all(tfds.builder_from_directory(sources / source))
        for name, (_, record) in original.items():
            group = record["group"].decode()
            groups = {group}
            if group.startswith("actor_") and record["source_id"]:
                groups.add(f"actor_{record['source_id'].decode()}")
            sides = {
                "train" if p < 50 else "validation" if p < 70 else "test"
                for p in map(_percent, groups)
            }
            if len(sides) > 1:
                crossing += 1
                assert f"{dataset}/{name}" not in found
                continue
            split, copied = found.pop(f"{dataset}/{name}")
            assert {split} == sides
            assert copied["image"] == record["image"]
            assert copied["label"] == record["label"]
            assert copied["group"] == record["group"]
            assert copied["dataset"].decode() == dataset
            key = "method" if dataset == "faceforensics" else "source"
            assert copied["source"] == record[key]
            assert copied["frame"] == record.get("frame", -1)
    assert not found
    assert crossing == builder.info.metadata["totals"]["n_crossing"] > 0
    assert builder.info.metadata["settings"] == {
        "sv": 20,
        "st": 30,
        "compression": "c23",
    }
    assert snapshot(sources) == before


def test_a_split_of_no_percent_is_left_out(sources, tmp_path):
    builder = prepare(Cvcs(config="full", data_dir=tmp_path, sv=0, st=30), sources)
    assert sorted(builder.info.splits) == ["test", "train"]


def test_full_wants_a_prepared_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="Neither deepfake_challenge nor face"):
        prepare(Cvcs(config="full", data_dir=tmp_path), tmp_path)


_COLUMNS = (
    "path",
    "label",
    "split",
    "group",
    "image/filename",
    "head",
    "ymin",
    "xmin",
    "ymax",
    "xmax",
    "score",
    "margin",
    "compression",
    "dataset",
    "source",
    "target_id",
    "source_id",
    "frame",
)


def _crop_folder(root, num_heads, broken=()):
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for index in range(num_heads):
        split = ("train", "validation", "train", "test")[index % 4]
        path = f"{split}/a \n{index}.png" if index == 3 else f"{split}/{index}.png"
        data = encoded(".png", 20, 20, index)
        write(root / path, data[:50] if index in broken else data)
        box = (0.1, 0.2, 0.5, 0.25 + index / 1000)
        writer.writerow(
            [
                path,
                index % 2,
                split,
                f"group,{index}",
                "whole.png",
                index % 3,
                *box,
                0.75,
                1.3,
                "c23",
                "faceforensics",
                "Deepfakes",
                "071",
                "054",
                12,
            ]
        )
    write(root / "heads.csv", table.getvalue())


def test_cropped_takes_every_head(tmp_path):
    root = tmp_path / "crops"
    _crop_folder(root, 150, broken=(5, 149))
    builder = prepare(Cvcs(config="cropped", data_dir=tmp_path / "data"), root)
    found = _all(builder)
    assert len(found) == 148
    assert builder.info.metadata["totals"]["n_skipped"] == 2
    for name, (split, record) in found.items():
        index = int(name.removesuffix(".png").split("/")[1].split("\n")[-1])
        assert split == ("train", "validation", "train", "test")[index % 4]
        assert record["image"] == encoded(".png", 20, 20, index)
        assert (record["label"], record["head"]) == (index % 2, index % 3)
        assert record["group"].decode() == f"group,{index}"
        np.testing.assert_allclose(
            record["box"], [0.1, 0.2, 0.5, 0.25 + index / 1000], rtol=1e-6
        )
        assert record["score"] == 0.75 and record["margin"] == pytest.approx(1.3)
        assert (record["target_id"], record["frame"]) == (b"071", 12)
    assert "test/a \n3.png" in found


@pytest.mark.parametrize(
    "table, message",
    [
        (None, "There is no .*heads.csv: train/crop_heads.py makes it"),
        ("path,label\r\n", "columns split, group, image/filename, .* are missing"),
    ],
)
def test_cropped_wants_a_table(tmp_path, table, message):
    if table:
        write(tmp_path / "heads.csv", table)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        prepare(Cvcs(config="cropped", data_dir=tmp_path / "data"), tmp_path)
