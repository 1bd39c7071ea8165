"""Matching against counts that were worked out elsewhere."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect import boxes
from dfdetect.models import anchors, grid_matching, matching

_ANCHORS = anchors.Anchors(512)
_GRID = _ANCHORS.boxes
_LARGE = np.array([100, 100, 200, 180], np.float32) / 512
_TINY = np.array([10, 10, 20, 20], np.float32) / 512


def _match(heads, classes, **kwargs):
    heads = np.array(heads, np.float32).reshape(-1, 4)
    classes = np.array(classes, np.int32)
    results = matching.match_anchors(heads, classes, _GRID, **kwargs)
    results = [np.array(result) for result in results]
    on_grid = grid_matching.GridMatcher(_ANCHORS)(heads, classes, **kwargs)
    _check_same(on_grid, results)
    return results


def _check_same(found, expected):
    """Targets of all anchors are equal, and offsets up to rounding."""
    for one, other in zip(found, expected, strict=True):
        assert one.numpy().dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    "box, num_positives, num_near, best",
    [(_LARGE, 36, 67, 0.7587), (_TINY, 0, 0, 0.09766)],
)
def test_overlaps_at_512(box, num_positives, num_near, best):
    overlaps = np.array(boxes.iou(box[None], _GRID))[0]
    assert (overlaps >= 0.5).sum() == num_positives
    assert ((overlaps >= 0.4) & (overlaps < 0.5)).sum() == num_near
    assert np.isclose(overlaps.max(), best, atol=1e-4)


def test_a_large_head_takes_every_anchor_above_one_half():
    class_targets, box_targets, positive = _match([_LARGE], [0])
    assert class_targets.dtype == np.int32
    assert positive.sum() == 36
    np.testing.assert_array_equal(class_targets, np.where(positive, 0, -1))
    assert not box_targets[~positive].any()
    decoded = anchors.decode(box_targets[positive], _GRID[positive])
    np.testing.assert_allclose(decoded, np.tile(_LARGE, (36, 1)), atol=1e-6)


def test_a_tiny_head_is_forced_onto_one_anchor():
    class_targets, box_targets, positive = _match([_TINY], [0])
    assert positive.sum() == 1
    decoded = anchors.decode(box_targets[positive], _GRID[positive])
    np.testing.assert_allclose(decoded, [_TINY], atol=1e-6)


def test_the_first_anchor_wins_a_tie():
    # Many anchors of the same area contain all of this box.
    box = np.array([254, 254, 258, 258], np.float32) / 512
    overlaps = np.array(boxes.iou(box[None], _GRID))[0]
    tied = np.flatnonzero(overlaps == overlaps.max())
    assert len(tied) > 1
    _, _, positive = _match([box], [0])
    np.testing.assert_array_equal(np.flatnonzero(positive), [tied[0]])


def test_the_first_head_wins_a_forced_anchor():
    class_targets, _, positive = _match([_TINY, _TINY], [3, 4])
    np.testing.assert_array_equal(class_targets[positive], [3])


def test_each_anchor_learns_the_head_that_it_overlaps_most():
    near = _LARGE + np.array([0, 20, 0, 20], np.float32) / 512
    class_targets, _, positive = _match([_LARGE, near], [0, 1])
    overlaps = np.array(boxes.iou(np.stack([_LARGE, near]), _GRID))
    np.testing.assert_array_equal(
        class_targets[positive], overlaps.argmax(axis=0)[positive]
    )
    assert {0, 1} <= set(class_targets)


@pytest.mark.parametrize(
    "heads, classes",
    [
        ([], []),
        (np.zeros((3, 4)), [-1, -1, -1]),
        ([_LARGE, _TINY], [-1, -1]),
        ([[2, 2, 2.1, 2.1]], [0]),  # Touches no anchor.
        ([[0.5, 0.5, 0.5, 0.5]], [0]),  # Has no area.
    ],
)
def test_without_heads_all_is_background(heads, classes):
    class_targets, box_targets, positive = _match(heads, classes)
    assert (class_targets == matching.BACKGROUND).all()
    assert not positive.any()
    assert not box_targets.any()


def test_padding_changes_nothing():
    alone = _match([_LARGE], [0])
    padded = _match([_LARGE, np.zeros(4), np.zeros(4)], [0, -1, -1])
    for a, b in zip(alone, padded, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ignored_heads_are_neither_positive_nor_background():
    class_targets, box_targets, positive = _match(
        [_LARGE, _TINY], [0, 0], gt_ignored=[True, False]
    )
    assert positive.sum() == 1  # The tiny one.
    assert (class_targets == matching.IGNORED).sum() == 36
    assert not box_targets[~positive].any()
    class_targets, _, positive = _match([_TINY], [0], gt_ignored=[True])
    assert (class_targets == matching.BACKGROUND).all()


def test_in_tf_data_and_vectorized_map_as_eagerly():
    heads = np.stack([[_LARGE, _TINY], [_TINY, np.zeros(4)]]).astype(np.float32)
    classes = np.array([[0, 0], [0, -1]], np.int32)
    singles = [_match(h, c) for h, c in zip(heads, classes, strict=True)]
    expected = [np.stack(parts) for parts in zip(*singles, strict=True)]

    dataset = tf.data.Dataset.from_tensor_slices((heads, classes))
    dataset = dataset.map(lambda h, c: matching.match_anchors(h, c, _GRID)).batch(2)
    at_once = tf.vectorized_map(
        lambda image: matching.match_anchors(*image, _GRID), (heads, classes)
    )
    for batch in (next(iter(dataset)), at_once):
        for result, wanted in zip(batch, expected, strict=True):
            np.testing.assert_allclose(result, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "size, scale", [(128, 2.0), (320, 3.0), (448, 3.0), (384, 4.0)]
)
def test_windows_of_the_grids_lose_nothing(size, scale):
    grid = anchors.Anchors(size, scale)
    random = np.random.default_rng(size)
    match = tf.function(
        grid_matching.GridMatcher(grid),
        input_signature=[
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.bool),
        ],
    )
    for trial in range(20):
        count = int(random.integers(0, 30))
        # From a hundredth of the side to more than all, also beyond the edges.
        sides = np.exp(random.uniform(np.log(0.01), np.log(1.6), (count, 1)))
        sides = sides * np.exp(random.normal(0, 0.3, (count, 2)))
        centers = random.uniform(-0.1, 1.1, (count, 2))
        heads = np.concatenate([centers - sides / 2, centers + sides / 2], 1)
        if trial % 2:  # Whole pixels: many ties.
            heads = np.clip(np.round(heads * size) / size, 0, 1)
        if count > 2:
            heads[1] = heads[0]
        heads = heads.astype(np.float32)
        classes = random.integers(-1, 3, count).astype(np.int32)
        ignored = random.random(count) < 0.2
        expected = matching.match_anchors(heads, classes, grid.boxes, ignored)
        _check_same(match(heads, classes, ignored), [np.array(e) for e in expected])


def test_on_a_grid_in_tf_data_as_eagerly():
    matcher = grid_matching.GridMatcher(_ANCHORS)
    heads, classes = np.stack([_LARGE, _TINY]), np.array([0, 0], np.int64)
    dataset = tf.data.Dataset.from_tensors((heads, classes)).map(matcher)
    mapped = dataset.get_single_element()
    assert [part.shape.rank for part in mapped] == [1, 2, 1]
    for part, expected in zip(mapped, _match(heads, classes), strict=True):
        assert part.shape[0] == len(_GRID)
        np.testing.assert_allclose(part, expected, atol=1e-6)
