"""Makers against sources of reals: pairs, baselines, and makers left out."""

import json
import types

import cv2
import numpy as np
import pytest

from dfdetect.evaluation import (
    classifiers,
    evaluation_set,
    leave_one_out,
    maker_evaluation,
    source_pairs,
)
from dfdetect.evaluation.audit import low_level
from dfdetect.reports import classification_report, source_tables
from sourced_faces import face, prepare

MANIFEST = {
    "kind": "classifier",
    "model": "redness",
    "image_size": 16,
    "crop_margin": 1.0,
    "temperature": 1.0,
    "thresholds": {"real_below": 0.3, "fake_from": 0.7},
    "data": [],
}

# Mean red and the deviation of noise. The model goes by red: "hidden" is never found
# among bright reals. Fakes of "smooth" have reds like reals but no noise at all.
MAKERS = {"plain": (200, 20), "hidden": (90, 20), "smooth": (100, 2)}
SOURCES = {"dark": (60, 20), "bright": (110, 20)}


def redness(images, training=False):
    """A classifier, `[B, S, S, 3]` to logits `[B, 1]`."""
    return (np.mean(images[..., 0], (1, 2))[:, None] - 120) / 20


def _draw(random, red, deviation):
    image = np.full((32, 32, 3), 100.0)
    image[..., 0] = red + random.uniform(-8, 8)
    image += cv2.GaussianBlur(random.normal(0, deviation, image.shape), (0, 0), 0.5)
    return np.clip(image, 0, 255).astype(np.uint8)[..., ::-1]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    random = np.random.default_rng(0)
    looks = [(name, 1, look) for name, look in MAKERS.items()]
    looks += [(name, 0, look) for name, look in SOURCES.items()]
    faces = {
        split: [
            face(f"{split}{name}{i}", label, name, image=_draw(random, *look))
            for name, label, look in looks
            for i in range(12)
        ]
        for split in ("train", "test")
    }
    builder = prepare(tmp_path_factory.mktemp("faces"), faces)
    judged = evaluation_set.load_evaluation_set(
        builder, "test", say=print, num_resamples=30
    )
    with pytest.MonkeyPatch.context() as patch:
        # A plain function is not a Keras model: it must not be traced.
        patch.setattr(
            "dfdetect.evaluation.classifiers.build_logits_function",
            lambda model, _: lambda crops: model(crops.numpy())[:, 0],
        )
        result = classifiers.measure_classifier(
            "runs/red", (redness, MANIFEST), judged=judged, say=print
        )
    return judged, result


def _pairs(figures):
    return {(pair["maker"], pair["source"]): pair for pair in figures}


def test_each_maker_stands_against_each_source(measured):
    judged, result = measured
    figures = maker_evaluation.measure_makers(
        [MANIFEST],
        [judged],
        results=[result],
        leave_out=None,
        say=print,
        num_resamples=30,
    )
    (of_model,) = figures["source_pairs"]
    assert of_model["model"] == "runs/red"
    pairs = _pairs(of_model["pairs"])
    assert set(pairs) == {(m, s) for m in MAKERS for s in SOURCES}
    assert pairs["plain", "bright"]["auc"] == pairs["hidden", "dark"]["auc"] == 1
    assert pairs["hidden", "bright"]["auc"] < 0.15
    assert (
        pairs["plain", "dark"]["num_fake"] == pairs["plain", "dark"]["num_real"] == 12
    )
    for pair in pairs.values():
        for of in (pair, pair["low_level"]):
            low, high = of["auc_interval"]
            assert low <= of["auc"] <= high
    # Without noise, sharpness tells where red does not.
    assert pairs["smooth", "bright"]["low_level"]["auc"] > 0.95
    assert len(source_tables.build_sections(figures)) == 1
    assert "leave_one_out" not in figures


def test_unseen_makers_stand_apart_with_the_least_of_each_row(measured, tmp_path):
    judged, result = measured
    manifest = {
        **MANIFEST,
        "where": ["source!=hidden"],
        "origins": {"source": {"fake": ["plain", "smooth"], "real": ["dark"]}},
    }
    figures = maker_evaluation.measure_makers(
        [manifest],
        [judged],
        results=[result],
        leave_out="source",
        say=print,
        num_resamples=30,
    )
    found = figures["leave_one_out"]
    assert found["left_out"] == {"runs/red": ["hidden"]}
    (row,) = found["unseen"]["rows"]
    assert row["maker"] == "hidden" and row["least"]["source"] == "bright"
    assert row["least"]["auc"] == row["against"]["bright"]["auc"] < 0.15
    assert found["unseen"]["mean_least"] == row["least"]["auc"]
    assert [row["maker"] for row in found["seen"]["rows"]] == ["plain", "smooth"]
    told = f"hidden (unseen) by runs/red: at least {row['least']['auc']:.3f}"
    said = source_tables.summarize_left_out(found)
    assert any(line.startswith(told) for line in said)
    sections = source_tables.build_sections(figures)
    classification_report.write_report(str(tmp_path), [result], sections)
    page = (tmp_path / "report.md").read_text()
    assert page.index("Leave one source out") < page.index("Makers against sources")
    assert "| hidden | runs/red | " in page and "low level" in page
    json.dumps(figures)


def test_without_origins_a_maker_is_seen_with_its_data_set(measured):
    judged, _ = measured
    pooled = source_pairs.pool_sets([judged], 1.0)
    own, other = {"fingerprint": "of the faces"}, {"fingerprint": "other"}
    named = {"name": "elsewhere"}
    for described, seen in ((own | named, True), (other | named, False)):
        assert leave_one_out.is_seen({"data": [described]}, pooled, "plain") == seen
    same_name = {**other, "name": "sourced_faces", "config": ""}
    assert leave_one_out.is_seen({"data": [same_name]}, pooled, "plain")
    assert not leave_one_out.is_seen(MANIFEST, pooled, "plain")


def test_one_class_or_too_few_groups_say_why(measured, tmp_path):
    judged, result = measured
    rows = [face(f"a{i}", 0, "dark") for i in range(3)]
    builder = prepare(tmp_path / "reals", {"test": rows})
    reals = evaluation_set.load_evaluation_set(
        builder, "test", say=print, num_resamples=30
    )
    figures = maker_evaluation.measure_makers(
        [MANIFEST],
        [reals],
        results=[result],
        leave_out=None,
        say=print,
        num_resamples=30,
    )
    assert figures["source_pairs"] == {"reason": "all images have the same label"}
    assert not source_tables.build_sections(figures)
    with pytest.raises(ValueError, match="--leave_out finds no makers to compare"):
        maker_evaluation.measure_makers(
            [MANIFEST],
            [reals],
            results=[],
            leave_out="source",
            say=print,
            num_resamples=30,
        )
    rows.append(face("b", 1, "lab"))
    few = prepare(tmp_path / "few", {"test": rows})
    pooled = source_pairs.pool_sets(
        [evaluation_set.load_evaluation_set(few, "test", say=print, num_resamples=30)],
        1.0,
    )
    baselines = source_pairs.measure_baselines(pooled, 30)
    assert "a class has 1 groups" in baselines["lab", "dark"]["low_level"]["reason"]


def test_low_level_features_of_known_images():
    flat = np.full((64, 64, 3), (10, 20, 30), np.float32)
    red, green, blue, sharpness, _ = low_level.describe_crop(flat)
    assert (red, green, blue) == pytest.approx((10, 20, 30))
    noise = np.random.default_rng(0).normal(128, 20, (64, 64, 1)).repeat(3, axis=2)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.5)
    of_noise, of_soft = low_level.describe_crop(noise), low_level.describe_crop(soft)
    assert sharpness < of_soft[3] < of_noise[3]
    # White noise has a flat spectrum; a blur takes the high frequencies.
    assert abs(of_noise[4]) < 0.3 and of_soft[4] < of_noise[4] - 1


def test_a_field_of_names_is_not_paired():
    def explain(num_makers):
        count = num_makers + 11
        survey = types.SimpleNamespace(
            truths=np.repeat([1, 0], [num_makers, 11]),
            fields={"source": np.array([f"origin {i}" for i in range(count)])},
        )
        info = types.SimpleNamespace(name="faces", config_name="")
        builder = types.SimpleNamespace(info=info)
        judged = types.SimpleNamespace(builder=builder, survey=survey)
        return source_pairs.explain_unfit([judged])

    # As many as the default classifier has.
    assert explain(15) == ""
    assert explain(41) == (
        "41 makers and 11 sources are too many to pair, at most 40 of each are"
    )
