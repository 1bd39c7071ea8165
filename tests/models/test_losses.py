"""Losses against worked-out values."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import losses, matching


@pytest.mark.parametrize(
    "logit, positive, negative",
    [
        (-4.59512, 1.13406640, 7.54e-06),
        (-2.0, 0.43954829, 0.00391786),
        (0.0, 0.06126613, 0.18379840),
    ],
)
def test_focal(logit, positive, negative):
    logits = np.array([logit, logit], np.float32)
    found = losses.focal(logits, np.array([1, 0]))
    np.testing.assert_allclose(found, [positive, negative], rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(found[0], positive, rtol=1e-6)


def test_focal_of_extreme_logits_has_finite_values_and_gradients():
    logits = tf.constant([-300.0, -300.0, 300.0, 300.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.focal(logits, tf.constant([1.0, 0.0, 1.0, 0.0]))
    np.testing.assert_allclose(loss, [75.0, 0.0, 0.0, 225.0], atol=1e-5)
    gradient = tape.gradient(loss, logits)
    np.testing.assert_allclose(gradient, [-0.25, 0.0, 0.0, 0.75], atol=1e-5)


def test_focal_computes_in_float32():
    logits = tf.constant([-2.0], tf.bfloat16)
    loss = losses.focal(logits, tf.ones(1, tf.bfloat16))
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, [0.43954829], rtol=1e-5)


def test_huber_box():
    errors = np.array([0.05, -0.1, 0.5, -1.0], np.float32)
    found = losses.huber_box(errors + 2.0, np.full(4, 2.0, np.float32))
    np.testing.assert_allclose(found, [0.015625, 0.0625, 0.5625, 1.1875], rtol=1e-5)


def _batch():
    """Two images of three anchors; the second anchor of the first is positive."""
    class_logits = np.full((2, 3, 1), -2.0, np.float32)
    box_offsets = np.zeros((2, 3, 4), np.float32)
    class_targets = np.full((2, 3), matching.BACKGROUND, np.int32)
    box_targets = np.zeros((2, 3, 4), np.float32)
    class_targets[0, 1] = 0
    box_targets[0, 1] = [0.05, 0.1, -0.5, 1.0]
    return class_logits, box_offsets, class_targets, box_targets


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function])
def test_detection_loss_is_divided_by_one_more_than_the_positives(wrap):
    total, class_loss, box_loss = wrap(losses.detection_loss)(*_batch())
    expected = (0.43954829 + 5 * 0.00391786) / 2
    np.testing.assert_allclose(class_loss, expected, rtol=1e-5)
    expected = (0.015625 + 0.0625 + 0.5625 + 1.1875) / 2
    np.testing.assert_allclose(box_loss, expected, rtol=1e-5)
    np.testing.assert_allclose(total, class_loss + box_loss, rtol=1e-6)


def test_each_class_counts():
    class_logits, box_offsets, class_targets, box_targets = _batch()
    class_logits = np.repeat(class_logits, 2, axis=-1)
    class_targets[0, 1] = 1
    _, class_loss, _ = losses.detection_loss(
        class_logits, box_offsets, class_targets, box_targets
    )
    expected = (0.43954829 + 11 * 0.00391786) / 2
    np.testing.assert_allclose(class_loss, expected, rtol=1e-5)


def test_boxes_of_background_do_not_count():
    class_logits, box_offsets, class_targets, box_targets = _batch()
    _, _, before = losses.detection_loss(
        class_logits, box_offsets, class_targets, box_targets
    )
    box_offsets[1] = 7.0
    _, _, after = losses.detection_loss(
        class_logits, box_offsets, class_targets, box_targets
    )
    np.testing.assert_allclose(after, before)


def test_ignored_anchors_do_not_count():
    class_logits, box_offsets, class_targets, box_targets = _batch()
    class_targets[1] = matching.IGNORED
    class_logits[1] = 9.0
    total, class_loss, _ = losses.detection_loss(
        class_logits, box_offsets, class_targets, box_targets
    )
    expected = (0.43954829 + 2 * 0.00391786) / 2
    np.testing.assert_allclose(class_loss, expected, rtol=1e-5)
    assert np.isfinite(total)


def test_without_positives_the_loss_is_that_of_the_background():
    class_logits, box_offsets, class_targets, box_targets = _batch()
    class_targets[:] = matching.BACKGROUND
    total, _, box_loss = losses.detection_loss(
        class_logits, box_offsets, class_targets, box_targets
    )
    np.testing.assert_allclose(total, 6 * 0.00391786, rtol=1e-5)
    assert box_loss == 0.0


def test_sums_of_parts_add_up_to_the_loss_of_the_batch():
    batch = _batch()
    parts = [losses.detection_loss_sums(*(x[i : i + 1] for x in batch)) for i in (0, 1)]
    class_sum, box_sum, num_positives = np.sum(parts, axis=0)
    assert num_positives == 1
    _, class_loss, box_loss = losses.detection_loss(*batch)
    np.testing.assert_allclose(class_sum / 2, class_loss, rtol=1e-6)
    np.testing.assert_allclose(box_sum / 2, box_loss, rtol=1e-6)
