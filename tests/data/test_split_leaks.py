"""Groups in two splits, by the columns of a data set, and images split one by one."""

import pytest

import clips
from building_support import builder_class, encoded, prepare, write
from dfdetect.data import conditions, split_leaks
from dfdetect.evaluation.audit import leaks, scan


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    groups = {
        "train": [("a", 20), ("b", 20)],
        "validation": [("b", 20)],
        "test": [("a", 20), ("c", 20)],
    }
    return clips.prepare(tmp_path_factory.mktemp("shared"), groups)


def test_columns_tell_what_a_survey_does(shared):
    found = split_leaks.find_shared_names(shared, dict.fromkeys(shared.info.splits, ()))
    assert found == leaks.find_leaks(scan.scan_dataset(shared, lambda split: None))
    assert [leak["name"] for leak in found] == ["a", "b"]
    assert found[1]["splits"] == {"train": 6, "validation": 6}


def test_only_the_asked_splits_and_records_count(shared):
    every, none = [], [conditions.parse_condition("group!@0/1")]
    (leak,) = split_leaks.find_shared_names(shared, {"train": every, "test": every})
    assert (leak["kind"], leak["name"]) == ("group", "a")
    assert not split_leaks.find_shared_names(shared, {"train": none, "test": every})
    assert not split_leaks.find_shared_names(shared, {"train": every})


def _faces(folder, **options):
    for label in ("real", "fake"):
        for number in range(20):
            write(folder / label / f"{number}.png", encoded(".png", 4, 4, number))
    faces = builder_class("labeled_faces")
    return prepare(faces(data_dir=folder.parent / "data", **options), folder)


def test_images_that_were_split_one_by_one_are_a_leak(tmp_path):
    builder = _faces(tmp_path / "manual", leaky_random_split=True)
    sizes = {name: x.num_examples for name, x in builder.info.splits.items()}
    (leak,) = found = split_leaks.find_random_split(builder)
    assert leak == {
        "kind": split_leaks.RANDOM,
        "name": "leaky_random_split",
        "splits": sizes,
    }
    assert not split_leaks.find_shared_names(builder, dict.fromkeys(sizes, ()))
    told = split_leaks.describe_leaks(found)
    assert told.startswith("images were split one by one (")
    assert f"{sizes['train']} in train" in told


def test_groups_by_hash_are_none(shared, tmp_path):
    assert not split_leaks.find_random_split(shared)  # It says nothing of that.
    for label in ("real", "fake"):
        for number in range(20):
            path = tmp_path / "manual" / label / f"{number}" / "0.png"
            write(path, encoded(".png", 4, 4, number))
    builder = builder_class("labeled_faces")(data_dir=tmp_path / "data")
    builder = prepare(builder, tmp_path / "manual")
    assert builder.info.metadata["totals"]["n_split_by_hash"] == 40
    assert not split_leaks.find_random_split(builder)


def test_only_images_that_are_alone_count(tmp_path):
    for number in range(60):
        name = f"{number}.png" if number < 30 else f"{number}/0.png"
        path = tmp_path / "manual" / "real" / name
        write(path, encoded(".png", 4, 4, number))
    builder = builder_class("labeled_faces")(
        data_dir=tmp_path / "data", leaky_random_split=True
    )
    builder = prepare(builder, tmp_path / "manual")
    (leak,) = split_leaks.find_random_split(builder)
    assert sum(leak["splits"].values()) == 30
    totals = builder.info.metadata["totals"]
    assert (totals["n_split_by_hash"], totals[split_leaks.NUM_ALONE]) == (60, 30)


def test_both_kinds_are_worded_together():
    random = {
        "kind": split_leaks.RANDOM,
        "name": "x",
        "splits": {"train": 3, "test": 1},
    }
    group = {"kind": "group", "name": "b", "splits": {"train": 2, "test": 1}}
    told = split_leaks.describe_leaks([random, group, {**group, "name": "c"}])
    assert told == (
        "images were split one by one (3 in train, 1 in test), so that those of one "
        "video or person stand in two splits; 2 groups in two splits, such as b "
        "(2 in train, 1 in test)"
    )
