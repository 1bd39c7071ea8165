"""Metrics over several validation sets, worked out by hand."""

import numpy as np
import pytest

from dfdetect.metrics import detection, detection_sets

_HEAD = np.array([[0.1, 0.1, 0.3, 0.3]])
_ELSEWHERE = np.array([[0.6, 0.6, 0.8, 0.8]])
_NONE = np.zeros((0, 4))


def _image(*found, heads=_HEAD):
    """One image: its detections (box, score) and its heads."""
    boxes = np.concatenate([box for box, _ in found]) if found else _NONE
    scores = np.array([score for _, score in found])
    return (boxes, scores), (heads, np.zeros(len(heads), bool))


def _set(*images):
    found, truth = zip(*images, strict=True)
    return list(found), list(truth)


SURE = _set(_image((_HEAD, 0.9), (_ELSEWHERE, 0.5)), _image((_HEAD, 0.8)))
DOUBTFUL = _set(_image((_HEAD, 0.4)), _image((_HEAD, 0.4)), _image())
ROOMS = _set(_image((_ELSEWHERE, 0.45), heads=_NONE), _image((_HEAD, 0.3), heads=_NONE))


def test_one_set_is_measured_as_ever():
    assert detection_sets.evaluate({"sure": SURE}) == detection.evaluate(*SURE)


def test_means_are_over_the_sets_with_heads_at_one_threshold():
    figures = detection_sets.evaluate({"a": SURE, "b": DOUBTFUL})
    # At .4 both sets have all that can be found; the first one false box more.
    assert figures["f1_score_threshold"] == pytest.approx(0.4)
    assert figures["a/f1"] == pytest.approx(4 / 5)
    assert figures["b/f1"] == pytest.approx(4 / 5)
    assert figures["f1"] == pytest.approx(4 / 5)
    assert figures["a/ap"] == 1 and figures["b/ap"] == pytest.approx(2 / 3)
    assert figures["ap"] == pytest.approx(5 / 6)
    assert figures["recall"] == pytest.approx(5 / 6)
    assert figures["a/num_true"] == 2 and figures["b/num_true"] == 3


def test_negatives_raise_the_threshold_and_are_no_part_of_ap():
    sets = {"a": SURE, "b": DOUBTFUL, "rooms": ROOMS}
    figures = detection_sets.evaluate(sets, max_false_boxes=0.0)
    assert figures["f1_score_threshold"] == pytest.approx(0.8)
    assert figures["rooms/false_boxes_per_image"] == 0
    assert figures["f1"] == pytest.approx(1 / 2)
    assert figures["ap"] == pytest.approx(5 / 6) and "rooms/ap" not in figures
    figures = detection_sets.evaluate(sets, max_false_boxes=0.5)
    assert figures["f1_score_threshold"] == pytest.approx(0.4)
    assert figures["rooms/false_boxes_per_image"] == pytest.approx(0.5)


def test_nothing_found_and_nothing_to_find():
    nothing = _set(_image(), _image())
    figures = detection_sets.evaluate({"a": nothing, "b": nothing})
    assert (figures["ap"], figures["f1"], figures["f1_score_threshold"]) == (0, 0, 1)
    rooms = detection_sets.evaluate({"a": ROOMS, "b": ROOMS})
    assert np.isnan(rooms["ap"]) and rooms["a/false_boxes_per_image"] == 0
    with pytest.raises(ValueError, match="sets must not be empty"):
        detection_sets.evaluate({})
