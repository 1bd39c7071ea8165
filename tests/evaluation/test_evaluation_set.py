import numpy as np
import pytest

import clips
import labelled_images
from dfdetect.data import conditions, record_fields
from dfdetect.evaluation import classifiers, evaluation_set, predictions


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return clips.prepare(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    groups = {"train": [("a", 20), ("b", 20)], "test": [("b", 20), ("c", 20)]}
    return clips.prepare(tmp_path_factory.mktemp("leaky"), groups)


def _look(builder, split="test", **options):
    return evaluation_set.load_evaluation_set(
        builder, split, say=print, num_resamples=20, **options
    )


def test_what_is_known_before_any_model(builder):
    judged = _look(builder)
    described = judged.describe()
    assert (described["num_real"], described["num_fake"]) == (12, 24)
    assert (described["num_videos"], described["num_groups"]) == (18, 6)
    assert not described["leaky_split"] and described["num_leaks"] == 0
    majority = judged.baselines["majority"]["metrics"]
    assert majority["accuracy"] == pytest.approx(2 / 3) and majority["auc"] == 0.5
    assert majority["log_loss"] == pytest.approx(
        -(2 * np.log(2 / 3) + np.log(1 / 3)) / 3
    )
    no_pixels = judged.baselines["no_pixels"]
    assert no_pixels["about"] == "trained on train and validation"
    assert 0 <= no_pixels["metrics"]["auc"] <= 1
    assert len(judged.metadata_probabilities) == 36


def test_predictions_are_in_the_order_of_what_is_known(builder):
    judged = _look(builder)
    found = classifiers.predict_split(
        clips.brightness,
        clips.MANIFEST,
        builder=builder,
        split="test",
        survey=judged.survey,
        wanted=judged.wanted,
        batch_size=5,
    )
    assert len(found.labels) == 36
    assert np.array_equal(found.labels, found.fields["method"] != "original")
    by_name = dict(zip(found.filenames, found.logits, strict=True))
    for record in builder.as_dataset(split="test").as_numpy_iterator():
        logit = (record["image"].mean() - 120) / 20
        name = record["image/filename"].decode()
        assert by_name[name] == pytest.approx(logit, abs=1e-3)
    assert found.probabilities == pytest.approx(1 / (1 + np.exp(-found.logits)))


def test_conditions_choose_records_of_all_splits(builder):
    judged = _look(builder, where=["method!=talk", "frame=0"])
    assert judged.describe()["where"] == ["method!=talk", "frame=0"]
    assert (judged.wanted.sum(), len(judged.wanted)) == (12, 36)
    assert set(judged.survey.fields["method"]) == {"original", "swap"}
    # Half of what is left of training is fake.
    assert "0.500" in judged.baselines["majority"]["about"]
    found = classifiers.predict_split(
        clips.brightness,
        clips.MANIFEST,
        builder=builder,
        split="test",
        survey=judged.survey,
        wanted=judged.wanted,
    )
    assert set(found.fields["frame"]) == {0} and len(found.labels) == 12


def test_conditions_choose_as_in_training(builder):
    said = []
    judged = evaluation_set.load_evaluation_set(
        builder,
        "test",
        say=said.append,
        where=["color!=red", "label=fake", "group!@0/2"],
        num_resamples=20,
    )
    where = [conditions.parse_condition(x) for x in ("label=fake", "group!@0/2")]
    wanted = record_fields.choose_records(builder, "test", where)
    assert 0 < wanted.sum() < 24 and np.array_equal(judged.wanted, wanted)
    assert (judged.survey.truths == 1).all()
    assert any("has no field 'color': all of its records meet" in x for x in said)
    one = str(judged.survey.groups[0])
    assert {*_look(builder, where=[f"group={one}"]).survey.groups} == {one}


def test_one_class_is_no_crash(builder):
    judged = _look(builder, where=["method=original"])
    assert judged.baselines["no_pixels"] == {"reason": "all images have the same label"}
    assert judged.metadata_probabilities is None
    assert any("one label" in warning for warning in judged.warnings({}))


@pytest.mark.parametrize(
    "where, message",
    [
        (["method"], "FIELD=VALUE"),
        (["color=red"], "No record of test .* meets color=red"),
        (["method=none"], "No record of test .* meets method=none"),
    ],
)
def test_bad_conditions_say_what_was_wanted(builder, where, message):
    with pytest.raises(ValueError, match=message):
        _look(builder, where=where)


def test_a_split_that_is_not_there(builder):
    with pytest.raises(ValueError, match="train, validation, test .*, got 'dev'"):
        _look(builder, "dev")


def test_a_group_in_two_splits_is_refused(leaky):
    with pytest.raises(
        ValueError,
        match=r"leaky split: 1 group in two splits, such as b "
        r"\(6 in train, 6 in test\).*--allow_leaky_split",
    ):
        _look(leaky)
    judged = _look(leaky, allow_leaky_split=True)
    described = judged.describe()
    assert described["leaky_split"] and described["num_leaks"] == 1
    assert described["leaks"][0]["name"] == "b"
    assert judged.warnings({})[0].startswith("LEAKY SPLIT: 1 group")


def test_images_split_one_by_one_are_refused(tmp_path):
    class Random(clips.Clips, skip_registration=True):
        def _info(self):
            info = super()._info()
            info.metadata.update(
                settings={"leaky_random_split": True},
                counts={s: {"n_split_by_hash": 6} for s in ("train", "test")},
            )
            return info

    groups = {"train": [("a", 20)], "test": [("b", 20)]}
    builder = labelled_images.prepare(tmp_path, groups, Random)
    message = r"leaky split: images were split one by one .*--allow_leaky_split"
    with pytest.raises(ValueError, match=message):
        _look(builder)
    judged = _look(builder, allow_leaky_split=True)
    assert judged.describe()["leaky_split"]
    assert judged.warnings({})[0].startswith(
        "LEAKY SPLIT: images were split one by one"
    )


def test_shortcuts_and_seen_images_are_warned_of(builder):
    judged = _look(builder, "validation")
    judged.baselines["no_pixels"]["metrics"] |= {
        "auc": 0.7,
        "auc_interval": [0.6, 0.8],
    }
    fingerprint = judged.describe()["data"]["fingerprint"]
    warnings = judged.warnings({"data": [{"fingerprint": fingerprint}]})
    assert [warning.split(":")[0] for warning in warnings] == [
        "SEEN BEFORE",
        "TOO SMALL to tell whether there is a shortcut",
        "Fewer than 20 groups",
    ]


def test_without_other_splits_the_baseline_is_out_of_fold(tmp_path):
    builder = clips.prepare(tmp_path, {"test": [(f"g{i}", 20) for i in range(6)]})
    judged = _look(builder)
    assert judged.baselines["no_pixels"]["about"] == "5 folds of test, by group"
    assert len(predictions.name_videos(judged.survey)) == 36
