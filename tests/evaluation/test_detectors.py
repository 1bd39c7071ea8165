"""What is measured of a detector, with a stand-in that always finds the same."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf

import clips
from dfdetect.data import detector_input
from dfdetect.data import prepared as data
from dfdetect.evaluation import classifiers, detectors
from dfdetect.pipeline import head_detection

_MODEL = types.SimpleNamespace(input_shape=(None, 128, 128, 3))


def _finds(monkeypatch, boxes, scores):
    """Lets every detector find these, relative to what it sees."""

    def detect(images):
        count = tf.shape(images)[0]
        padding = [[0, 0], [0, 100 - len(boxes)]]
        return {
            "boxes": tf.pad(tf.tile([boxes], [count, 1, 1]), [*padding, [0, 0]]),
            "scores": tf.pad(tf.tile([scores], [count, 1]), padding),
            "num_heads": tf.fill([count], len(boxes)),
        }

    monkeypatch.setattr(head_detection, "build_detector_function", lambda *_: detect)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_detections_are_of_the_originals_with_their_sizes(
    prepared, monkeypatch, batch_size
):
    # Of the square: the image of 96 x 160 fills its upper .6.
    seen = [[0.0, 0.25, 0.3, 0.5], [0.3, 0.0, 0.9, 1.0]]
    _finds(monkeypatch, seen, [0.9, 0.8])
    builder = data.open_builder(str(prepared), "hollywood_heads")
    batches = detector_input.build_evaluation_batches(
        builder, "test", image_size=128, batch_size=batch_size
    )
    found, truth, extents = detectors.collect_detections(
        detectors.build_detect_function(_MODEL), batches
    )
    assert np.array_equal(extents, [[96, 160]] * 3)
    assert sorted(len(boxes) for boxes, _ in truth) == [0, 1, 2]
    whole = np.array([[0, 0.25, 0.5, 0.5], [0.5, 0, 1, 1]])
    assert len(found) == 3
    for boxes, scores in found:
        np.testing.assert_allclose(boxes, whole, atol=1e-6)
        np.testing.assert_allclose(scores, [0.9, 0.8])


def test_tiles_are_measured_in_the_originals(prepared, monkeypatch):
    _finds(monkeypatch, [[0.25, 0.25, 0.5, 0.5]], [0.9])
    builder = data.open_builder(str(prepared), "hollywood_heads")
    batches = detector_input.build_evaluation_batches(
        builder, "test", image_size=128, batch_size=2
    )
    found, _, _ = detectors.collect_detections(
        detectors.build_detect_function(_MODEL, tile=True), batches
    )
    # The whole image, and tiles of 96 x 128 from the left and the right.
    by_hand = np.array([[40, 40, 80, 80], [32, 32, 64, 64], [32, 64, 64, 96]])
    expected = by_hand / [96, 160, 96, 160]
    assert len(found) == 3
    for boxes, _ in found:
        order = np.lexsort((boxes[:, 1], -boxes[:, 0]))
        np.testing.assert_allclose(boxes[order], expected, atol=1e-6)


def test_a_released_classifier_has_figures_with_intervals(tmp_path):
    builder = clips.prepare(tmp_path)
    figures = classifiers.measure_split(
        clips.brightness, clips.MANIFEST, builder=builder, split="test"
    )
    low, high = figures["auc_interval"]
    assert 0 <= low <= figures["auc"] <= high <= 1 and figures["num_groups"] == 6
    single = clips.prepare(tmp_path / "one", {"test": [("a", 20)]})
    figures = classifiers.measure_split(
        clips.brightness, clips.MANIFEST, builder=single, split="test"
    )
    assert "auc_interval" not in figures and 0 <= figures["auc"] <= 1
    json.dumps(figures, allow_nan=False)
