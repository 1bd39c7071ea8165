"""Five detections on four heads, one of them difficult, worked out by hand."""

import numpy as np
import pytest

from dfdetect.metrics import detection

HEADS = np.array(
    [[0, 0, 0.1, 0.1], [0.3, 0, 0.4, 0.1], [0.6, 0, 0.7, 0.1], [0, 0.5, 0.1, 0.6]]
)
BOXES = np.concatenate([HEADS[[0, 0, 3, 1]], [[0.8, 0.8, 0.9, 0.9]]])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
DIFFICULT = np.array([False, False, False, True])


def _average_precision(difficult, method):
    correct, ignored = detection.match_detections(BOXES, SCORES, HEADS, difficult)
    num_true = int((~difficult).sum())
    return detection.average_precision(
        SCORES, correct, ignored, num_true, method=method
    )


def test_one_right_detection_a_head_and_difficult_ones_left_out():
    correct, ignored = detection.match_detections(BOXES, SCORES, HEADS, DIFFICULT)
    assert correct.tolist() == [True, False, False, True, False]
    assert ignored.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    "method, expected", [("all", 0.5555556), ("11", 0.5454545), ("101", 0.5544554)]
)
def test_average_precision_without_difficult_heads(method, expected):
    assert _average_precision(DIFFICULT, method) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method, expected", [("all", 0.625), ("11", 0.6136364)])
def test_average_precision_when_difficult_heads_count(method, expected):
    assert _average_precision(np.zeros(4, bool), method) == pytest.approx(
        expected, abs=1e-6
    )


def test_evaluate_joins_images_by_score():
    empty = np.zeros((0, 4)), np.zeros(0)
    found = detection.evaluate(
        [(BOXES, SCORES), (HEADS[:1], np.array([0.95])), empty],
        [(HEADS, DIFFICULT), (np.zeros((0, 4)), np.zeros(0, bool)), (HEADS, DIFFICULT)],
    )
    # Right at ranks 2 and 4 of 5 (the difficult one left out), of 6 heads.
    assert found["ap"] == pytest.approx((1 / 2 + 1 / 2) / 6)
    assert found["recall"] == pytest.approx(2 / 6)
    assert found["num_true"] == 6


def test_best_f1_of_the_toy():
    correct, ignored = detection.match_detections(BOXES, SCORES, HEADS, DIFFICULT)
    # .9 right, .8 wrong, .6 right of 3 heads: 2 * 2 / (3 + 3).
    f1, threshold = detection.best_f1(SCORES, correct, ignored, 3)
    assert (f1, threshold) == (pytest.approx(2 / 3), pytest.approx(0.6))


def test_the_best_threshold_is_below_its_score_and_parts_no_equal_scores():
    scores = np.array([0.8, 0.5, 0.5, 0.5], np.float32)
    correct = np.array([True, True, False, False])
    f1, threshold = detection.best_f1(scores, correct, np.zeros(4, bool), 2)
    # At .8 one of two; at .5 all four.
    assert f1 == pytest.approx(2 / 3) and threshold < 0.8
    assert (scores > np.float32(threshold)).tolist() == [True, False, False, False]


def test_nothing_to_find_is_not_a_number():
    none = np.zeros(0)
    assert np.isnan(detection.average_precision(none, none > 0, none > 0, 0))


def test_unknown_method_is_named():
    none = np.zeros(0)
    with pytest.raises(ValueError, match="'12'"):
        detection.average_precision(none, none > 0, none > 0, 1, method="12")
