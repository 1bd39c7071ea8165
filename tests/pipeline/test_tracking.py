import numpy as np
import pytest

from dfdetect.pipeline import tracking

A, B = np.eye(2)


def box(left, top=0.4, side=0.2):
    return [top, left, top + side, left + side]


def test_first_heads_are_numbered_from_1_and_none_is_fine():
    tracker = tracking.Tracker()
    assert tracker.update(0.0, 0, np.zeros((0, 4))) == []
    assert tracker.update(0.1, 0, [box(0.0), box(0.5)]) == [1, 2]
    assert tracker.update(0.2, 0, [box(0.5), box(0.0)]) == [2, 1]
    assert tracker.update(0.3, 0, []) == []


@pytest.mark.parametrize("with_embeddings", [False, True])
def test_heads_that_pass_each_other_keep_their_tracks(with_embeddings):
    tracker = tracking.Tracker()
    for i in range(21):
        left = 0.8 * i / 20
        heads = np.array([box(left), box(0.8 - left, top=0.45)])
        embeddings = np.stack([A, B]) if with_embeddings else None
        assert tracker.update(i / 25, 0, heads, embeddings) == [1, 2]


def test_far_apart_in_time_looks_decide():
    tracker = tracking.Tracker()
    assert tracker.update(0.0, 0, [box(0.0), box(0.6)], np.stack([A, B])) == [1, 2]
    # They have changed places.
    assert tracker.update(9.0, 0, [box(0.0), box(0.6)], np.stack([B, A])) == [2, 1]
    # A stranger stands where one of them was.
    stranger = np.array([[-1.0, 0.0]])
    assert tracker.update(18.0, 0, [box(0.6)], stranger) == [3]


def test_a_gap_is_bridged_until_it_is_too_long():
    def last(moments):
        tracker = tracking.Tracker()
        tracker.update(0.0, 0, [box(0.4)], A[None])
        for moment in moments[:-1]:
            tracker.update(moment, 0, [])
        return tracker.update(moments[-1], 0, [box(0.42)], A[None])

    assert last([0.5, 1.0, 1.5, 2.0, 2.5, 2.9]) == [1], "short"
    assert last([20.0, 40.0, 60.0]) == [1], "of few frames"
    assert last([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == [2]


def test_a_cut_breaks_tracks():
    tracker = tracking.Tracker()
    assert tracker.update(0.0, 0, [box(0.4)], A[None]) == [1]
    assert tracker.update(0.1, 1, [box(0.4)], A[None]) == [2]
    assert tracker.update(0.2, 1, [box(0.4)], A[None]) == [2]


def test_nothing_leaps_across_the_image_at_once():
    tracker = tracking.Tracker()
    assert tracker.update(0.0, 0, [box(0.0, side=0.1)], A[None]) == [1]
    assert tracker.update(0.04, 0, [box(0.8, side=0.1)], A[None]) == [2]


def test_numbers_of_boxes_and_embeddings_must_agree():
    with pytest.raises(ValueError, match="2 boxes need as many embeddings, got 1"):
        tracking.Tracker().update(0.0, 0, [box(0.0), box(0.5)], A[None])
