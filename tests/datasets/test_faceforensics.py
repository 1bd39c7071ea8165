import hashlib

import cv2
import numpy as np
import pytest
import tensorflow as tf

import drawn_clips
from building_support import (
    ROOT,
    YOUTUBE,
    builder_class,
    clip,
    draw_faceforensics,
    method_folder,
    prepare,
    records,
    snapshot,
)

FaceForensics = builder_class("faceforensics")

NO_CLIP = "no clip that can be decoded"
WANTED = "wanted is MP4, QuickTime, Matroska, WebM, AVI or another clip"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faceforensics")
    root = folder / "manual"
    draw_faceforensics(root)
    before = snapshot(root)
    builder = FaceForensics(
        config="c23", data_dir=folder / "data", frames_per_video=4, num_threads=3
    )
    return root, before, prepare(builder, root)


def _official_pairs():
    split = None
    path = ROOT / "datasets/faceforensics/official_split.txt"
    for line in path.read_text().splitlines():
        if line.startswith("["):
            split = line.strip("[]")
        elif not line.startswith("#"):
            yield from ((split, pair) for pair in line.split())


@pytest.mark.parametrize(
    "split, num_ids, total, ids_sha1, pairs_sha1",
    [
        (
            "train",
            720,
            350867,
            "29c892d96e3dbc6434312b4b6389d2155b99975a",
            "535eb5c09bbd144fcf22ebc54b85b042051c4f81",
        ),
        (
            "validation",
            140,
            80957,
            "306cd18ec8af38c53e48e039e891f281df039486",
            "0955b05826784133acf03951e0ab3e1f8620695c",
        ),
        (
            "test",
            140,
            67676,
            "45dd2a79df3b5111619686ed3b6a487e0a30d27a",
            "cf0d72b003901b811daf2a6712de5a280d3f95c7",
        ),
    ],
)
def test_official_split(split, num_ids, total, ids_sha1, pairs_sha1):
    pairs = [pair for name, pair in _official_pairs() if name == split]
    ids = sorted(name for pair in pairs for name in pair.split("_"))
    assert len(ids) == num_ids == len(set(ids))
    assert sum(map(int, ids)) == total
    assert hashlib.sha1(",".join(ids).encode()).hexdigest() == ids_sha1
    assert hashlib.sha1(";".join(pairs).encode()).hexdigest() == pairs_sha1


def test_splits_are_disjoint_and_complete():
    ids = [name for _, pair in _official_pairs() for name in pair.split("_")]
    assert sorted(ids) == [f"{number:03d}" for number in range(1000)]


def test_records(clips):
    builder = clips[2]
    # Of 10 frames in 4 parts, those at 1.25, 3.75, 6.25 and 8.75; all of 3.
    centers = (1, 3, 6, 8)
    expected = {
        "train": [
            ("youtube/071", centers, 0, "071_054", "071", ""),
            ("Deepfakes/071_054", centers, 1, "071_054", "071", "054"),
            ("actors/01__exit_phone_room", centers, 0, "actor_01", "01", ""),
            (
                "DeepFakeDetection/01_02__exit_phone_room__YVGY8LOK",
                centers,
                1,
                "actor_01",
                "01",
                "02",
            ),
        ],
        "validation": [
            ("youtube/720", centers, 0, "720_672", "720", ""),
            ("FaceSwap/720_672", (0, 1, 2), 1, "720_672", "720", "672"),
        ],
        "test": [
            ("youtube/953", centers, 0, "953_974", "953", ""),
            ("FaceShifter/974_953", centers, 1, "953_974", "974", "953"),
        ],
    }
    assert set(builder.info.splits) == set(expected)
    for split, wanted in expected.items():
        found = records(builder, split)
        names = {f"{name}/{i:06d}.png" for name, indices, *_ in wanted for i in indices}
        assert set(found) == names
        for name, indices, label, group, target, source in wanted:
            for index in indices:
                record = found[f"{name}/{index:06d}.png"]
                assert record["method"].decode() == name.split("/")[0]
                assert (record["label"], record["frame"]) == (label, index)
                assert record["group"].decode() == group
                assert record["target_id"].decode() == target
                assert record["source_id"].decode() == source
                assert record["compression"] == b"c23"
                assert record["time"] == pytest.approx(index / 25)
                image = tf.io.decode_png(record["image"]).numpy()
                assert image.shape == (48, 64, 3)
                # JPEG inside the clip moves the gray of a frame by a few levels.
                assert abs(image.mean() - 20 * index) < 3


def test_frames_are_those_of_the_clip_to_the_bit(clips):
    root, _, builder = clips
    capture = cv2.VideoCapture(str(root / YOUTUBE / "071.mp4"))
    frames = [capture.read()[1][..., ::-1] for _ in range(10)]
    for index in (1, 3, 6, 8):
        record = records(builder, "train")[f"youtube/071/{index:06d}.png"]
        np.testing.assert_array_equal(tf.io.decode_png(record["image"]), frames[index])


def test_masks_come_with_their_frames(clips):
    found = records(clips[2], "train")
    for name, record in found.items():
        if name.startswith("Deepfakes/"):
            mask = tf.io.decode_png(record["mask"]).numpy()
            assert mask.shape == (48, 64, 1) and mask.min() > 250
        else:
            assert record["mask"] == b""


def test_metadata_counts_and_lists(clips):
    metadata = clips[2].info.metadata
    assert metadata["counts"]["train"] == {
        "fake": 8,
        "real": 8,
        "method/Deepfakes": 4,
        "method/DeepFakeDetection": 4,
        "method/actors": 4,
        "method/youtube": 4,
        "n_clips": 4,
        "n_crossing": 1,
        "n_masks": 4,
        "n_skipped": 4,
    }
    assert metadata["skipped"] == {
        "train": [
            f"Deepfakes/054_071.mp4: {NO_CLIP}: an empty file; {WANTED}",
            "Deepfakes/071_054 (1).mp4: not a name of the set",
            "Deepfakes/071_672.mp4: not a name of the set",
            "youtube/054.mp4: cut short: 1.6 of 4.0 seconds could be read",
        ],
        "validation": [f"Deepfakes/720_672.mp4: {NO_CLIP}: a text; {WANTED}"],
        "test": [],
    }
    assert metadata["settings"] == {"frames_per_video": 4, "frame_format": "png"}


def test_source_is_untouched(clips):
    root, before, _ = clips
    assert snapshot(root) == before


def test_all_frames_as_jpeg(tmp_path):
    root = tmp_path / "manual"
    # c0 is another name of raw.
    clip(root / "original_sequences/youtube/c0/videos/071.mp4", 12)
    clip(root / "original_sequences/youtube/c23/videos/071.mp4", 3)
    builder = FaceForensics(
        config="raw",
        data_dir=tmp_path / "data",
        frames_per_video=-1,
        frame_format="jpeg",
    )
    found = records(prepare(builder, root), "train")
    assert set(found) == {f"youtube/071/{index:06d}.jpg" for index in range(12)}
    for record in found.values():
        assert record["image"].startswith(b"\xff\xd8\xff")


def test_a_clip_cut_short_gives_none_of_all_its_frames(tmp_path):
    root = tmp_path / "manual"
    draw_faceforensics(root)
    builder = FaceForensics(
        config="c23", data_dir=tmp_path / "data", frames_per_video=-1
    )
    found = records(prepare(builder, root), "train")
    assert not [name for name in found if name.startswith("youtube/054/")]
    assert len([name for name in found if name.startswith("youtube/071/")]) == 10


def test_a_damaged_mask_leaves_the_frames(tmp_path):
    root = tmp_path / "manual"
    clip(root / method_folder("Face2Face") / "071_054.mp4", 4)
    mask = root / "manipulated_sequences/Face2Face/masks/videos/071_054.mp4"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"no clip")
    builder = prepare(FaceForensics(config="c23", data_dir=tmp_path / "data"), root)
    assert [r["mask"] for r in records(builder, "train").values()] == [b""] * 4
    assert builder.info.metadata["skipped"]["train"] == [
        f"mask of Face2Face/071_054: {NO_CLIP}: a text; {WANTED}"
    ]


def test_what_is_wrong_with_a_clip_is_told_and_counted(tmp_path, caplog):
    root = tmp_path / "manual"
    clip(root / YOUTUBE / "071.mp4", 4)
    drawn_clips.draw_hdr(root / YOUTUBE / "054.mp4")
    builder = FaceForensics(config="c23", data_dir=tmp_path / "data")
    metadata = prepare(builder, root).info.metadata
    assert metadata["counts"]["train"]["n_clips"] == 2
    assert metadata["totals"]["n_clips_with_warning"] == 1
    assert "youtube/054.mp4: PQ of high dynamic range" in caplog.text


def test_actors_never_cross(tmp_path):
    root = tmp_path / "manual"
    folder = root / method_folder("DeepFakeDetection")
    for target in (1, 5, 6):
        for source in (2, 12, 13):
            clip(folder / f"{target:02d}_{source:02d}__kitchen_pan__ABCDEFGH.mp4", 2)
    builder = prepare(FaceForensics(config="c23", data_dir=tmp_path / "data"), root)
    sides = {
        split: {
            actor.decode()
            for record in records(builder, split).values()
            for actor in (record["target_id"], record["source_id"])
        }
        for split in builder.info.splits
    }
    assert sides == {
        "train": {"01", "02"},
        "validation": {"05", "12"},
        "test": {"06", "13"},
    }
    assert builder.info.metadata["totals"]["n_crossing"] == 6


@pytest.mark.parametrize(
    "options, message",
    [
        ({"frames_per_video": 0}, "above 0, or -1 for all, got 0"),
        ({"frame_format": "bmp"}, "one of png, jpeg, got 'bmp'"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        FaceForensics(config="c23", data_dir=tmp_path, **options)


def test_an_empty_folder_says_what_is_wanted_and_where_to_ask(tmp_path):
    message = (
        r"has clips of c40: none; missing: youtube, actors, Deepfakes, .* Wanted: "
        r"original_sequences/\{youtube,actors\}/c40/videos/\*.mp4, .*ondyari"
    )
    with pytest.raises(FileNotFoundError, match=message):
        prepare(FaceForensics(config="c40", data_dir=tmp_path / "data"), tmp_path)


def test_clips_are_compressed_at_rate_factors(clips, tmp_path):
    root, _, plain = clips
    builder = FaceForensics(
        config="c23",
        data_dir=tmp_path,
        frames_per_video=4,
        num_threads=3,
        rate_factors=["23", "40"],
    )
    found = records(prepare(builder, root), "train")
    before = records(plain, "train")
    assert found.keys() == before.keys()
    for label in (0, 1):
        # A real and its fakes alike: the factor does not tell them apart.
        alike = [x for x in found.values() if x["label"] == label]
        compressions = [x["compression"] for x in alike]
        assert set(compressions) == {b"c23+crf23", b"c23+crf40"}
        assert compressions.count(b"c23+crf23") * 2 == len(compressions)
    assert all(before[name]["image"] != x["image"] for name, x in found.items())
    with pytest.raises(ValueError, match="numbers from 0 to 51, got '99'"):
        FaceForensics(config="c23", data_dir=tmp_path, rate_factors=[99])
