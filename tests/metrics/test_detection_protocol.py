"""Metrics of papers on boxes small enough to count by hand."""

import numpy as np
import pytest

from dfdetect.metrics import detection, detection_protocol

EXTENT = (100, 200)
NOTHING = np.zeros((0, 4)), np.zeros(0)
NO_HEADS = np.zeros((0, 4)), np.zeros(0, bool)


def _relative(*boxes):
    """Converts boxes in pixels of `EXTENT` to relative ones."""
    return np.array(boxes, np.float64).reshape(-1, 4) / np.tile(EXTENT, 2)


def _heads(*boxes, difficult=()):
    marks = np.isin(np.arange(len(boxes)), difficult)
    return _relative(*boxes), marks


def _found(*boxes, scores):
    return _relative(*boxes), np.array(scores)


def _square(left, side):
    return (10, left, 10 + side, left + side)


def _matches(found, truth, **more):
    return detection_protocol.match_images(found, truth, [EXTENT] * len(found), **more)


# .9 right, .8 the same head again, .7 on a difficult head, .6 right, .5 on nothing.
TOY_TRUTH = _heads(*(_square(x, 10) for x in (0, 30, 60, 90)), difficult=[3])
TOY_FOUND = _found(
    *(_square(x, 10) for x in (0, 0, 90, 30, 150)), scores=[0.9, 0.8, 0.7, 0.6, 0.5]
)


def test_toy_is_measured_alike_by_all_conventions():
    figures = detection_protocol.compute_metrics([TOY_FOUND], [TOY_TRUTH], [EXTENT])
    for name in ("ap", "voc_ap"):
        assert figures[name] == pytest.approx(0.5555556, abs=1e-6)
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["num_true"] == 3


def test_detections_are_sorted_and_those_of_difficult_heads_left_out():
    matches = _matches([NOTHING, TOY_FOUND], [NO_HEADS, TOY_TRUTH])
    assert matches.scores.tolist() == [0.9, 0.8, 0.6, 0.5]
    assert matches.correct.tolist() == [True, False, True, False]
    assert matches.images.tolist() == [1, 1, 1, 1]
    assert matches.true_images.tolist() == [1, 1, 1]
    assert matches.num_images == 2
    assert np.allclose(matches.sizes, 10) and np.allclose(matches.true_sizes, 10)


def test_voc_boxes_hold_their_last_pixels():
    # Squares of 3 moved by 2: overlaps of 3 / 15 and, with all pixels, 8 / 24. Those
    # of 2 moved by 1: 2 / 6 and 6 / 12, which is just enough.
    for moved, side, ap, voc_ap in ((2, 3, 0, 0), (1, 2, 0, 1), (0, 2, 1, 1)):
        truth = [_heads(_square(40, side))]
        found = [_found(_square(40 + moved, side), scores=[0.9])]
        figures = detection_protocol.compute_metrics(found, truth, [EXTENT])
        assert (figures["ap"], figures["voc_ap"]) == (ap, voc_ap)


def test_border_is_added_to_each_side():
    boxes = np.array([[0, 0, 2, 2]]), np.array([0.9]), np.array([[0, 1, 2, 3]])
    plain = np.array([False])

    def assign(difficult, least, border):
        found = detection.assign_detections(
            *boxes, difficult, iou_threshold=least, border=border
        )
        return found.tolist()

    for border, least, place in ((0, 1 / 3, 0), (0, 0.34, -1), (1, 0.5, 0)):
        assert assign(plain, least, border) == [place]
    assert assign(plain, 0.501, 1.0) == [detection.WRONG]
    assert assign(~plain, 0.5, 1.0) == [detection.IGNORED]


def test_recall_at_false_positives_counts_them_over_all_images():
    # Ten images; by score: right, wrong, right, wrong, right; 4 heads in all.
    found = [
        _found(_square(0, 10), scores=[0.9]),
        _found(_square(50, 10), _square(0, 10), scores=[0.8, 0.7]),
        _found(_square(50, 10), _square(0, 10), scores=[0.6, 0.5]),
        *[NOTHING] * 7,
    ]
    truth = [_heads(_square(0, 10))] * 4 + [NO_HEADS] * 6
    matches = _matches(found, truth)
    expected = {0.01: 1 / 4, 0.1: 2 / 4, 0.19: 2 / 4, 0.2: 3 / 4, 1.0: 3 / 4}
    for rate, recall in expected.items():
        assert detection_protocol.recall_at_false_positives(
            matches, rate
        ) == pytest.approx(recall)


def test_sizes_begin_their_range_and_are_of_the_true_head():
    # A found head of 16 px by a box of 15, one of 64 x 16 (32) missed, one of 8 found;
    # a box of 40 on nothing, scored between.
    truth = [
        _heads(_square(0, 16), (40, 30, 56, 94), _square(120, 8)),
        _heads(_square(0, 130)),
    ]
    found = [
        _found(
            _square(0, 15), _square(150, 40), _square(120, 8), scores=[0.9, 0.8, 0.7]
        ),
        NOTHING,
    ]
    sizes = detection_protocol.measure_by_size(
        detection_protocol.match_images(found, truth, [EXTENT, EXTENT])
    )
    assert [sizes[name]["num_true"] for name in detection_protocol.SIZE_NAMES] == [
        1,
        1,
        1,
        0,
        1,
    ]
    recalls = [sizes[name]["recall"] for name in ("<16", "16-32", "32-64", ">=128")]
    assert recalls == [1, 1, 0, 0]
    # The wrong box of 40 px counts for its own size alone.
    assert sizes["<16"]["ap"] == sizes["16-32"]["ap"] == 1
    assert sizes["32-64"]["ap"] == 0
    assert np.isnan(sizes["64-128"]["ap"]) and np.isnan(sizes["64-128"]["recall"])


def test_wrong_boxes_lower_the_average_precision_of_their_size():
    truth = [_heads(_square(0, 20))]
    found = [_found(_square(60, 20), _square(0, 20), scores=[0.9, 0.8])]
    sizes = detection_protocol.measure_by_size(_matches(found, truth))
    assert sizes["16-32"] == {"num_true": 1, "ap": 0.5, "recall": 1.0}


def test_interval_collapses_for_images_that_are_alike():
    matches = _matches([TOY_FOUND] * 5, [TOY_TRUTH] * 5)
    point = detection_protocol.average_precision(matches)
    assert detection_protocol.average_precision_interval(matches) == pytest.approx(
        (point, point)
    )


def _random_split(random, num_images=40):
    found, truth = [], []
    for _ in range(num_images):
        count = random.integers(0, 4)
        lefts = random.permutation(9)[: count + 2] * 20
        boxes = [_square(left, random.integers(8, 14)) for left in lefts]
        truth.append(_heads(*boxes[:count], difficult=[2]))
        shown = boxes[1:]
        found.append(_found(*shown, scores=random.random(len(shown)).tolist()))
    return found, truth


def test_interval_holds_the_point_and_is_repeatable():
    matches = _matches(*_random_split(np.random.default_rng(0)))
    low, high = detection_protocol.average_precision_interval(matches)
    assert low < detection_protocol.average_precision(matches) < high
    assert detection_protocol.average_precision_interval(matches) == (low, high)
    assert detection_protocol.average_precision_interval(matches, seed=1) != (low, high)


def test_weights_are_worth_images_drawn_anew():
    found, truth = _random_split(np.random.default_rng(1), 6)
    matches = _matches(found, truth)
    counts = np.array([2, 0, 1, 3, 0, 1])
    places = np.repeat(np.arange(6), counts)
    again = _matches([found[i] for i in places], [truth[i] for i in places])
    recall, precision = detection.precision_recall_curve(
        matches.correct, len(again.true_sizes), counts[matches.images]
    )
    assert detection.area_under_curve(recall, precision) == pytest.approx(
        detection_protocol.average_precision(again)
    )


@pytest.mark.parametrize("found", [NOTHING, TOY_FOUND])
def test_nothing_to_find_is_not_a_number(found):
    figures = detection_protocol.compute_metrics([found], [NO_HEADS], [EXTENT])
    assert np.isnan(figures["ap"]) and np.isnan(figures["voc_ap"])
    assert np.isnan(figures["ap_interval"]).all()
    assert np.isnan(list(figures["recall_at_fppi"].values())).all()
    assert all(np.isnan(sizes["ap"]) for sizes in figures["by_size"].values())


def test_nothing_found_is_zero():
    figures = detection_protocol.compute_metrics([NOTHING], [TOY_TRUTH], [EXTENT])
    assert figures["ap"] == figures["voc_ap"] == 0
    assert figures["ap_interval"] == (0, 0)
    assert set(figures["recall_at_fppi"].values()) == {0}
