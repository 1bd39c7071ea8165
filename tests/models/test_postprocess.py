"""Post-processing against tf.image.non_max_suppression and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import anchors, postprocess

_GRID = anchors.Anchors(128).boxes
_SQUARES = np.array(  # Anchors that are easy to reason about; B overlaps A by .6.
    [[0, 0, 0.4, 0.4], [0, 0.1, 0.4, 0.5], [0.5, 0.5, 0.9, 0.9]], np.float32
)


def _random_outputs(num_images, num_classes=1, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-4, 2, (num_images, len(_GRID), num_classes))
    offsets = rng.normal(0, 0.5, (num_images, len(_GRID), 4))
    return logits.astype(np.float32), offsets.astype(np.float32)


def _with_scores(*scores):
    """Outputs that give the anchors `_SQUARES` themselves these scores."""
    scores = np.array(scores, np.float32)
    logits = np.log(scores / (1 - scores)).reshape(1, 3, -1)
    return logits, np.zeros((1, 3, 4), np.float32), _SQUARES


@pytest.mark.parametrize("score_threshold", [0.1, 0.4])
@pytest.mark.parametrize("max_candidates", [5000, 200])
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function])
def test_equals_tensorflow(wrap, max_candidates, score_threshold):
    """550 to 626 of 3,069 anchors score above .1, and a hundred above .4."""
    logits, offsets = _random_outputs(3)

    def detect(logits, offsets):
        return postprocess.select_detections(
            logits,
            offsets,
            _GRID,
            20,
            iou_threshold=0.4,
            score_threshold=score_threshold,
            max_candidates=max_candidates,
        )

    found, scores, num = wrap(detect)(logits, offsets)
    assert found.shape == (3, 20, 4)
    assert num.dtype == tf.int32
    decoded = np.array(anchors.decode(offsets, _GRID))
    all_scores = 1 / (1 + np.exp(-logits[..., 0]))
    for i in range(3):
        best = np.argsort(-all_scores[i], kind="stable")[:max_candidates]
        kept = tf.image.non_max_suppression(
            decoded[i][best], all_scores[i][best], 20, 0.4, score_threshold
        ).numpy()
        kept = best[kept]
        assert num[i] == len(kept)
        expected = np.clip(decoded[i][kept], 0, 1)
        np.testing.assert_allclose(found[i][: num[i]], expected, atol=1e-6)
        np.testing.assert_allclose(scores[i][: num[i]], all_scores[i][kept], rtol=1e-5)
        assert not np.any(found[i][num[i] :])
        assert not np.any(scores[i][num[i] :])


def test_soft_suppression_equals_tensorflow():
    logits, offsets = _random_outputs(2, seed=1)
    found, scores, num = tf.function(postprocess.select_detections)(
        logits, offsets, _GRID, 50, score_threshold=0.1, soft_nms_sigma=0.5
    )
    decoded = np.array(anchors.decode(offsets, _GRID))
    all_scores = 1 / (1 + np.exp(-logits[..., 0]))
    for i in range(2):
        # TensorFlow's sigma is half of the paper's.
        kept, kept_scores = tf.image.non_max_suppression_with_scores(
            decoded[i], all_scores[i], 50, 1.0, 0.1, soft_nms_sigma=0.25
        )
        assert num[i] == len(kept)
        np.testing.assert_allclose(scores[i][: num[i]], kept_scores, atol=1e-5)
        expected = np.clip(decoded[i][kept.numpy()], 0, 1)
        np.testing.assert_allclose(found[i][: num[i]], expected, atol=1e-6)


def test_soft_suppression_by_hand():
    _, scores, num = postprocess.select_detections(
        *_with_scores(0.6, 0.9, 0.3), 4, soft_nms_sigma=0.5
    )
    assert num == 3
    np.testing.assert_allclose(
        scores, [[0.9, 0.3, 0.6 * np.exp(-(0.6**2) / 0.5), 0]], atol=1e-6
    )


def test_the_better_of_two_overlapping_boxes_survives():
    found, scores, num = postprocess.select_detections(*_with_scores(0.6, 0.9, 0.3), 4)
    assert num == 2
    np.testing.assert_allclose(found[0, :2], _SQUARES[[1, 2]], atol=1e-6)
    np.testing.assert_allclose(scores, [[0.9, 0.3, 0, 0]], atol=1e-6)


def test_both_survive_a_looser_threshold():
    _, scores, num = postprocess.select_detections(
        *_with_scores(0.6, 0.9, 0.3), 4, iou_threshold=0.61
    )
    assert num == 3
    np.testing.assert_allclose(scores, [[0.9, 0.6, 0.3, 0]], atol=1e-6)


# A face within a head: an IoU of .25, all of the smaller box; and half of a small box.
_NESTED = np.array(
    [[0, 0, 0.8, 0.8], [0.2, 0.2, 0.6, 0.6], [0.7, 0, 0.9, 0.1]], np.float32
)


@pytest.mark.parametrize("soft_nms_sigma", [0.0, 0.5])
@pytest.mark.parametrize(
    ("best", "threshold", "expected"),
    [
        (0, 1.0, [0, 1, 2]),
        (0, 0.9, [0, 2]),
        (0, 0.4, [0]),
        # The better one stays, whether it is the inner or the outer one.
        (1, 0.9, [1, 2]),
    ],
)
def test_a_box_within_a_better_one_goes(best, threshold, expected, soft_nms_sigma):
    scores = np.array([0.5, 0.5, 0.4], np.float32)
    scores[best] = 0.9
    logits = np.log(scores / (1 - scores)).reshape(1, 3, 1)
    found, _, num = postprocess.select_detections(
        logits,
        np.zeros((1, 3, 4), np.float32),
        _NESTED,
        4,
        soft_nms_sigma=soft_nms_sigma,
        containment_threshold=threshold,
    )
    kept = sorted(map(tuple, np.array(found[0, : int(num[0])]).round(2).tolist()))
    assert kept == sorted(map(tuple, _NESTED[expected].round(2).tolist()))


def test_the_first_anchor_wins_a_tie():
    found, _, num = postprocess.select_detections(*_with_scores(0.5, 0.5, 0.01), 4)
    assert num == 1
    np.testing.assert_allclose(found[0, 0], _SQUARES[0], atol=1e-6)


def test_classes_do_not_suppress_each_other():
    outputs = _with_scores([0.6, 0.01], [0.01, 0.9], [0.02, 0.3])
    found, scores, classes, num = postprocess.select_class_detections(*outputs, 4)
    assert num == 3
    np.testing.assert_array_equal(classes, [[1, 0, 1, 0]])
    np.testing.assert_allclose(scores, [[0.9, 0.6, 0.3, 0]], atol=1e-6)
    np.testing.assert_allclose(found[0, :3], _SQUARES[[1, 0, 2]], atol=1e-6)


def test_several_classes_equal_tensorflow_class_by_class():
    logits, offsets = _random_outputs(1, num_classes=3)
    detect = tf.function(postprocess.select_class_detections)
    _, scores, classes, num = detect(
        logits, offsets, _GRID, 300, iou_threshold=0.5, score_threshold=0.5
    )
    num = int(num[0])
    assert 0 < num < 300
    decoded = np.array(anchors.decode(offsets[0], _GRID))
    all_scores = 1 / (1 + np.exp(-logits[0]))
    for class_id in range(3):
        kept = tf.image.non_max_suppression(
            decoded, all_scores[:, class_id], 300, 0.5, 0.5
        )
        found = scores[0][:num][classes[0][:num] == class_id]
        expected = all_scores[kept.numpy(), class_id]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_above_the_threshold():
    found, scores, num = postprocess.select_detections(
        *_with_scores(0.04, 0.03, 0.02), 4
    )
    assert num == 0
    assert not np.any(found)
    assert not np.any(scores)


def test_an_empty_batch():
    found, scores, num = tf.function(postprocess.select_detections)(
        tf.zeros((0, len(_GRID), 1)), tf.zeros((0, len(_GRID), 4)), _GRID
    )
    assert found.shape == (0, 100, 4)
    assert scores.shape == (0, 100)
    assert num.shape == (0,)


def test_a_batch_equals_its_images():
    logits, offsets = _random_outputs(2)
    logits[1] -= 3  # Far fewer candidates than in the other image.
    together = postprocess.select_detections(logits, offsets, _GRID, 30)
    for i in range(2):
        alone = postprocess.select_detections(logits[[i]], offsets[[i]], _GRID, 30)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b[0], atol=1e-6)


def test_in_a_saved_model_with_a_free_batch(tmp_path):
    module = tf.Module()
    module.detect = tf.function(
        lambda logits, offsets: postprocess.select_detections(
            logits, offsets, _GRID, 10
        ),
        input_signature=[
            tf.TensorSpec((None, len(_GRID), 1)),
            tf.TensorSpec((None, len(_GRID), 4)),
        ],
    )
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    for num_images in (1, 3):
        outputs = _random_outputs(num_images)
        expected = postprocess.select_detections(*outputs, _GRID, 10)
        for a, b in zip(loaded.detect(*outputs), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
