"""Leaks and shortcuts, planted and found."""

import json
import re

import cv2
import numpy as np
import pytest
import sklearn.metrics

import labelled_images
from building_support import builder_class, encoded, prepare, write
from dfdetect.evaluation.audit import leaks, metadata_baseline, near_duplicates, scan
from dfdetect.evaluation.audit.survey import Survey
from dfdetect.metrics import classification


def _image(seed, size=96):
    """An image with shapes: noise alone has no low frequencies to speak of."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (7, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _file(image, ending=".png", *parameters):
    return cv2.imencode(ending, image, parameters)[1].tobytes()


def _copies(image):
    """The image as others would post it."""
    small = cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    dark = cv2.convertScaleAbs(image, alpha=0.8)
    return [
        _file(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 40),
        _file(small, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 80),
        _file(large),
        _file(dark, ".webp"),
        _file(image[1:-1, 1:-1]),
    ]


def _survey(splits, labels=None, identities=None, hashes=None, features=None):
    count = len(splits)
    return Survey(
        np.array(splits),
        [f"{i}.png" for i in range(count)],
        None if labels is None else np.array(labels),
        identities or {},
        np.zeros((count, 32), np.uint8) if hashes is None else hashes,
        np.ones(count, bool),
        np.zeros((count, len(metadata_baseline.FEATURES)))
        if features is None
        else features,
    )


def test_groups_in_two_splits_are_found_whatever_their_field():
    clips = [["a"], ["a", "b"], ["b"], ["c"], []]
    survey = _survey(
        ["train", "train", "test", "test", "test"],
        identities={
            "group": [["x"], ["y"], ["x"], ["z"], []],
            "source video or actor": clips,
        },
    )
    assert leaks.find_leaks(survey) == [
        {"kind": "group", "name": "x", "splits": {"train": 1, "test": 1}},
        {
            "kind": "source video or actor",
            "name": "b",
            "splits": {"train": 1, "test": 1},
        },
    ]


def test_near_duplicates_are_all_pairs_within_the_distance():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 256, (300, 32)).astype(np.uint8)
    # Copies with 0 to 59 bits turned.
    for i in range(60):
        bits = np.unpackbits(hashes[i])
        bits[random.permutation(256)[:i]] ^= 1
        hashes[299 - i] = np.packbits(bits)
    splits = np.array(["train", "validation", "test"])[random.integers(0, 3, 300)]
    found = near_duplicates.find_pairs(_survey(splits, hashes=hashes), 30)
    bits = np.unpackbits(hashes, axis=1)
    wanted = {
        (f"{i}.png", f"{j}.png"): int((bits[i] != bits[j]).sum())
        for i in range(300)
        for j in range(i)
        if splits[i] != splits[j] and (bits[i] != bits[j]).sum() <= 30
    }
    assert len(wanted) > 10
    assert len(found) == len(wanted)
    for pair in found:
        one, other = pair["filename"]
        assert pair["distance"] == wanted.get((one, other), wanted.get((other, one)))
        assert pair["split"][0] != pair["split"][1]
    assert [p["distance"] for p in found] == sorted(p["distance"] for p in found)


def test_equal_hashes_are_all_told_without_all_their_pairs():
    survey = _survey(["train"] * 300 + ["test"] * 200 + ["validation"])
    found = near_duplicates.find_pairs(survey, 0)
    names = {name for pair in found for name in pair["filename"]}
    assert names == set(survey.filenames)
    # 300 + 200 - 1 of training and test, 300 and 200 with the one of validation.
    assert len({tuple(sorted(pair["filename"])) for pair in found}) == len(found) == 999


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """24 images, of which copies of the first stand in the test split."""
    folder = tmp_path_factory.mktemp("planted")
    root = folder / "manual"
    rows = ["path,label,split,group"]
    for i in range(24):
        split = ("train", "val", "test")[i % 3]
        label = ("real", "fake")[i % 2]
        write(root / f"{i}.png", _file(_image(i)))
        rows.append(f"{i}.png,{label},{split},g{i}")
    for i, copy in enumerate(_copies(_image(0))):
        write(root / f"copy{i}.png", copy)
        rows.append(f"copy{i}.png,real,test,c{i}")
    for i, split in enumerate(("train", "test")):
        write(root / f"flat{i}.png", _file(np.full((50, 50, 3), 90, np.uint8)))
        rows.append(f"flat{i}.png,fake,{split},f{i}")
    write(root / "labels.csv", "\n".join(rows))
    prepare(builder_class("labeled_faces")(data_dir=folder / "data"), root)
    return folder / "data"


def test_copies_are_found_and_nothing_else(planted, tmp_path, run_script):
    output = tmp_path / "audit.json"
    done = run_script(
        "train/audit.py",
        f"--data_dir={planted}",
        "--dataset=labeled_faces",
        f"--output={output}",
        "--num_listed=2",
        check=False,
    )
    assert done.returncode == 3, done.stderr
    found = json.loads(output.read_text())
    pairs = {tuple(sorted(pair["filename"])) for pair in found["near_duplicates"]}
    assert pairs == {("0.png", f"copy{i}.png") for i in range(5)}
    assert found["num_flat"] == 2
    assert found["group_leaks"] == []
    assert "(b) Near duplicates in two splits: 5 pairs" in done.stdout
    assert "and 3 more" in done.stdout
    assert found["data"]["splits"] == {"train": 9, "validation": 8, "test": 14}


def test_images_split_one_by_one_end_with_3(tmp_path, run_script):
    for number in range(30):
        write(tmp_path / f"manual/real/{number}.png", _file(_image(number)))
    faces = builder_class("labeled_faces")
    builder = faces(data_dir=tmp_path / "data", leaky_random_split=True)
    prepare(builder, tmp_path / "manual")
    done = run_script(
        "train/audit.py",
        f"--data_dir={tmp_path / 'data'}",
        "--dataset=labeled_faces",
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "(a) Groups in two splits: 1" in done.stdout
    assert "| random split of images | leaky_random_split |" in done.stdout


@pytest.mark.slow
def test_group_leaks_end_with_3_and_missing_data_with_1(tmp_path, run_script):
    images = {
        split: [(f"{split}.png", 0, _file(_image(seed)))]
        for seed, split in enumerate(("train", "test"))
    }
    labelled_images.prepare(tmp_path, images)  # `group 0` in both
    flags = (f"--data_dir={tmp_path}", "--dataset=labelled_images")
    done = run_script("train/audit.py", *flags, check=False)
    assert done.returncode == 3
    assert "| group | group 0 | 1 train, 1 test |" in done.stdout
    assert "no figure, as all images have the same label" in done.stdout
    none = run_script("train/audit.py", flags[0], "--dataset=none", check=False)
    assert none.returncode == 1
    assert "none is not prepared in" in none.stderr.splitlines()[-1]
    usage = run_script("train/audit.py", *flags, "--max_distance=300", check=False)
    assert usage.returncode == 2 and "max_distance" in usage.stderr


@pytest.mark.slow  # A quarter of a minute.
def test_frames_of_films_have_no_labels(prepared):
    import dfdetect.data.prepared

    builder = dfdetect.data.prepared.open_builder(str(prepared), "hollywood_heads")
    seen = []
    survey = scan.scan_dataset(builder, seen.append)
    assert len(seen) == 12 and survey.labels is None
    assert set(survey.identities) == {"movie"}
    assert not leaks.find_leaks(survey)
    assert "no labels" in metadata_baseline.measure_baseline(survey)["reason"]


def _containers(count, leak):
    """Features of files of which the fakes are wider where there is a leak."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    features = np.zeros((count, len(metadata_baseline.FEATURES)), np.float32)
    features[:, 0] = 200 + leak * labels * (random.random(count) < 0.7)
    features[:, 3] = random.normal(20_000, 2_000, count)
    names = [[f"g{i // 4}"] for i in range(count)]
    return _survey(["train"] * count, labels, {"group": names}, features=features)


def test_a_size_that_tells_the_class_is_a_shortcut():
    leaky = metadata_baseline.measure_baseline(_containers(800, leak=56))
    # 70 % of the fakes are wider, the rest looks real: .85.
    assert leaky["auc"] == pytest.approx(0.85, abs=0.04)
    assert leaky["interval"][0] < leaky["auc"] < leaky["interval"][1]
    assert leaky["single"]["width"] == pytest.approx(0.85, abs=0.03)
    assert list(leaky["single"]) == ["width", "num_bytes"]
    assert leaky["majority_share"] == 0.5 and leaky["num_groups"] == 200
    fair = metadata_baseline.measure_baseline(_containers(800, leak=0))
    assert fair["interval"][0] < 0.5 < fair["interval"][1]
    assert leaky["warning"].startswith("SHORTCUT: without a look at any pixel")
    assert not fair["warning"]


@pytest.mark.parametrize(
    ("count", "warning"), [(10, "TOO SMALL"), (24, "SHORTCUT:"), (44, "SHORTCUT:")]
)
def test_a_shortcut_shows_in_a_small_set_too(count, warning):
    labels = np.arange(count) % 2
    features = np.zeros((count, len(metadata_baseline.FEATURES)), np.float32)
    features[:, 0] = 200 + 56 * labels
    found = metadata_baseline.measure_baseline(
        _survey(["train"] * count, labels, features=features)
    )
    assert found["auc"] == 1 and found["accuracy"] == 1
    assert found["warning"].startswith(warning)


@pytest.mark.parametrize(
    ("auc", "interval", "num_groups", "warning"),
    [
        (0.7, (0.65, 0.75), 20, "SHORTCUT: .* an AUC of 0.700 .0.650, 0.750.*"),
        (0.7, (0.45, 0.9), 20, "TOO SMALL .* may be chance with 20 groups of a class."),
        (0.7, (0.65, 0.75), 9, "TOO SMALL .* may be chance with 9 groups of a class."),
        (0.7, (np.nan, np.nan), 1, "TOO SMALL .* with 1 groups of a class."),
        (0.55, (0.52, 0.58), 20, ""),
        (np.nan, (np.nan, np.nan), 20, ""),
    ],
)
def test_a_shortcut_is_told_from_chance(auc, interval, num_groups, warning):
    groups = np.repeat(np.arange(num_groups), 2)
    truths = np.tile([0, 1], num_groups)
    found = metadata_baseline.describe_shortcut(auc, interval, truths, groups)
    assert re.fullmatch(warning, found)


def test_too_few_groups_give_a_reason():
    assert (
        "5 folds need as many"
        in metadata_baseline.measure_baseline(_containers(12, 0))["reason"]
    )


def test_features_are_those_of_the_file():
    image = _image(3)[:40, :60]
    parameters = (
        cv2.IMWRITE_JPEG_QUALITY,
        50,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    )
    image_bytes = _file(image, ".jpg", *parameters)
    found = dict(
        zip(
            metadata_baseline.FEATURES,
            metadata_baseline.read_features(image_bytes),
            strict=True,
        )
    )
    # At quality 50 the table is that of the standard (ITU-T T.81, annex K.1): its first
    # entry is 16 and its sum 3688.
    assert (found["width"], found["height"], found["aspect"]) == (60, 40, 1.5)
    assert found["num_bytes"] == len(image_bytes)
    assert found["bits_per_pixel"] == 8 * len(image_bytes) / 2400
    assert found["luminance_first"] == 16
    assert found["luminance_table"] == 3688
    assert found["subsampling"] == 0x22
    png = dict(
        zip(
            metadata_baseline.FEATURES,
            metadata_baseline.read_features(encoded(".png", 4, 8)),
            strict=True,
        )
    )
    assert (png["format"], found["format"]) == (1, 0)
    assert png["luminance_table"] == 0 and png["subsampling"] == 0


def test_interval_is_that_of_groups():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    scores = np.round(labels + random.normal(0, 1.5, 400), 1)
    auc, alone = classification.compute_auc_interval(labels, scores, np.arange(400))
    assert auc == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))
    # Hanley and McNeil's standard error of this area is about .026.
    width = alone[1] - alone[0]
    assert alone[0] < auc < alone[1] and width == pytest.approx(4 * 0.026, abs=0.02)
    # Ten copies of each image prove no more if they are one group.
    _, copied = classification.compute_auc_interval(
        np.repeat(labels, 10), np.repeat(scores, 10), np.repeat(np.arange(400), 10)
    )
    assert copied[1] - copied[0] == pytest.approx(width, rel=0.1)
    _, naive = classification.compute_auc_interval(
        np.repeat(labels, 10), np.repeat(scores, 10), np.arange(4000)
    )
    assert naive[1] - naive[0] < width / 2
