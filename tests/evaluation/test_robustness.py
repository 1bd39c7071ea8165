"""Robustness of a stand-in that looks for missing detail."""

import json

import cv2
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

import labelled_images
from dfdetect.data import classifier_input, records
from dfdetect.evaluation import classifiers, corruptions, robustness
from dfdetect.reports import robustness_report

_DESCRIBED = {"image_size": 24, "temperature": 2.0}


class _Pairs(labelled_images.LabelledImages, skip_registration=True):
    """Images whose name begins with their group."""

    VERSION = "1.0.0"

    def _generate_examples(self, split, examples):
        for name, fields in super()._generate_examples(split, examples):
            yield name, {**fields, "group": name.split("_")[0]}


def _images(num_groups, labels=(0, 1)):
    """PNGs of 32 px; the fakes have half of the noise."""
    random = np.random.default_rng(0)
    found = []
    for group in range(num_groups):
        for label in labels:
            sigma = random.uniform(6, 9) / (1 + label)
            image = np.clip(random.normal(120, sigma, (32, 32, 3)), 0, 255)
            _, encoded = cv2.imencode(".png", image.astype(np.uint8))
            found.append((f"{group}_{label}", label, encoded.tobytes()))
    return found


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    images = {"test": _images(10), "train": _images(3, labels=(1,))}
    return labelled_images.prepare(tmp_path_factory.mktemp("data"), images, _Pairs)


def _logits(crops):
    """High where neighbours are alike, about 0 in the middle of the drawn images."""
    detail = tf.abs(crops[:, :, 1:] - crops[:, :, :-1])
    return 10 * (3.0 - tf.reduce_mean(detail, axis=[1, 2, 3]))


def _measure(builder, logits=_logits, split="test", **options):
    found = list(records.read_records(builder, split, with_images=False))
    truths = np.array([record.label for record in found])
    groups = np.array([record.group for record in found])
    images = classifier_input.read_encoded_files(builder, split)
    return robustness.measure_robustness(
        logits, _DESCRIBED, images=images, truths=truths, groups=groups, **options
    )


@pytest.fixture(scope="module")
def results(builder):
    names = [name for name in corruptions.CORRUPTIONS if name != "h264"]
    return _measure(builder, batch_size=8, names=names)


def _auc(results, name):
    return [point["auc"] for point in results["alterations"][name]["points"]]


def test_clean_crops_are_those_of_the_evaluation(builder):
    seen = []

    def logits(crops):
        seen.append(crops.numpy())
        return _logits(crops)

    found = _measure(builder, logits, names=())
    batches = list(
        classifier_input.build_evaluation_batches(
            builder, "test", image_size=24, batch_size=16
        )
    )
    assert len(seen) == len(batches) == 2
    for crops, (expected, _) in zip(seen, batches, strict=True):
        assert np.array_equal(crops, expected)
    assert found["alterations"] == found["skipped"] == {}
    logits, truths = classifiers.predict_logits(_logits, batches)
    assert found["clean"]["auc"] == sklearn.metrics.roc_auc_score(truths, logits)
    assert found["clean"]["balanced_accuracy"] == (
        sklearn.metrics.balanced_accuracy_score(truths, logits >= 0)
    )


def test_strength_0_is_the_clean_figure(results):
    for found in results["alterations"].values():
        first = found["points"][0]
        assert first == {"strength": 0, "value": None, **results["clean"]}


def test_what_hides_detail_lowers_the_area(results):
    assert results["clean"]["auc"] > 0.95
    assert _auc(results, "mirror") == [results["clean"]["auc"]] * 2
    noise = _auc(results, "noise")
    assert noise[5] < 0.8 and noise[5] < noise[3] <= noise[0]
    # Everything is a fake to the stand-in once the images are smooth.
    blurred = results["alterations"]["blur"]["points"][5]
    assert blurred["balanced_accuracy"] == 0.5
    for found in results["alterations"].values():
        for point in found["points"]:
            low, high = point["auc_interval"]
            assert 0 <= low <= point["auc"] <= high <= 1


def test_results_are_for_json_and_repeat(builder, results):
    again = _measure(builder, batch_size=8, names=["noise"])
    assert json.loads(json.dumps(again)) == again
    assert again["alterations"]["noise"] == results["alterations"]["noise"]


def test_whole_groups_are_drawn():
    groups, truths = np.repeat([*"abcdefghij"], 2), np.tile([0, 1], 10)
    places = robustness.draw_groups(truths, groups, 7, seed=1)
    assert len(places) == 6 and np.all(np.diff(places) > 0)
    assert all(np.sum(groups[places] == group) == 2 for group in groups[places])
    assert len(robustness.draw_groups(truths, groups, None, 0)) == 20
    other = robustness.draw_groups(truths, groups, 7, seed=2)
    assert not np.array_equal(other, places)


def test_progress_tells_how_many_of_each(builder):
    said = []
    _measure(
        builder,
        max_crops=4,
        names=["mirror", "gamma"],
        say=said.append,
    )
    assert said[-1].startswith("28 crops: 4 clean, 4 mirror, 20 gamma;")


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"names": ["sepia", "blur"]}, "among rotation.*; got sepia"),
        ({"max_crops": 1}, "max_crops must be at least 2, got 1"),
        ({"split": "train"}, "3 crops drawn must be both reals and fakes"),
    ],
)
def test_wrong_arguments_are_named(builder, arguments, message):
    with pytest.raises(ValueError, match=message):
        _measure(builder, **arguments)


def test_what_cannot_be_done_is_skipped_with_its_reason(builder, monkeypatch):
    monkeypatch.setattr(corruptions, "find_missing", lambda: {"h264": "no ffmpeg"})
    found = _measure(builder, names=["h264", "mirror"])
    assert list(found["alterations"]) == ["mirror"]
    assert found["skipped"] == {"h264": "no ffmpeg"}
    assert (
        robustness_report.build_blocks(found)[-1].text
        == "Not measured: h264, no ffmpeg."
    )


def test_the_report_has_a_row_for_each_alteration_and_a_plot(results):
    text, plot, *tables = robustness_report.build_blocks(results, "1_")
    assert "20 crops of 10 groups" in text.text
    assert plot.file_name == "1_robustness.png"
    image = cv2.imdecode(np.frombuffer(plot.content, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[0] > 300 and np.ptp(image) > 100
    for table in tables:
        assert len(table.rows) == len(results["alterations"])
        assert all(len(row) == len(table.columns) == 7 for row in table.rows)
    low, high = results["clean"]["auc_interval"]
    clean = f"{results['clean']['auc']:.3f} [{low:.3f}, {high:.3f}]"
    (row,) = [row for row in tables[0].rows if row[0].startswith("mirror")]
    assert row[1:] == [clean, f"{clean} (1)", "", "", "", ""]
