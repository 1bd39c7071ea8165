"""Losses of the trainings, as sums over a part of a batch and the weight of the part.

See `train_step.LossFunction`: the sums of all parts are divided by the sum of their
weights, so that the loss does not depend on how a batch is divided.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from dfdetect import labels
from dfdetect.models import losses
from dfdetect.training import distillation

Sums = tuple[dict[str, tf.Tensor], tf.Tensor]


def classification(
    model: keras.Model,
    batch: tuple[tf.Tensor, tf.Tensor],
    class_weights: Sequence[float] = (1.0, 1.0),
    label_smoothing: float = 0.0,
) -> Sums:
    """Computes the cross-entropy of head crops.

    Args:
        model: A classifier.
        batch: Images and labels of `classifier_input.build_training_batches`.
        class_weights: Weight of a crop of each label.
        label_smoothing: Share of a label that is divided among both: .1 makes a fake
            .95 (Szegedy et al., Rethinking the Inception Architecture, 2016, section
            7).

    Returns:
        The sums `loss` and `accuracy`, and the sum of the crops' weights.
    """
    images, truths = batch
    logits = model(images, training=True)
    return _cross_entropy(logits, truths, class_weights, label_smoothing)


def distilled_classification(
    model: keras.Model,
    batch: tuple[tf.Tensor, tf.Tensor],
    *,
    teacher_weight: float,
    class_weights: Sequence[float] = (1.0, 1.0),
    label_smoothing: float = 0.0,
) -> Sums:
    """Computes the cross-entropy, and the errors of the student's feature maps.

    Args:
        model: See `distillation.build_with_teacher`.
        batch: See `classification`.
        teacher_weight: Weight of the mean error of the maps; that of a constant is 1.
        class_weights: See `classification`.
        label_smoothing: See `classification`.

    Returns:
        The results of `classification`, with `teacher`, the sum of the errors.
    """
    images, truths = batch
    outputs = model(images, training=True)
    sums, weight = _cross_entropy(
        outputs["logits"], truths, class_weights, label_smoothing
    )
    errors = distillation.map_errors(outputs["guesses"], outputs["targets"])
    counts = tf.gather(tf.constant(class_weights, tf.float32), truths)
    sums["teacher"] = tf.reduce_sum(counts * tf.add_n(errors) / len(errors))
    sums["loss"] += teacher_weight * sums["teacher"]
    return sums, weight


def _cross_entropy(
    logits: tf.Tensor,
    truths: tf.Tensor,
    class_weights: Sequence[float],
    label_smoothing: float,
) -> Sums:
    logits = tf.cast(logits[:, 0], tf.float32)
    targets = tf.cast(truths, tf.float32) * (1 - label_smoothing) + label_smoothing / 2
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    right = tf.cast(tf.equal(logits > 0, truths == labels.FAKE), tf.float32)
    counts = tf.gather(tf.constant(class_weights, tf.float32), truths)
    sums = {
        "loss": tf.reduce_sum(counts * cross_entropy),
        "accuracy": tf.reduce_sum(counts * right),
    }
    return sums, tf.reduce_sum(counts)


def detection(
    model: keras.Model,
    batch: tuple[tf.Tensor, ...],
    batch_size: int,
    training: bool = True,
) -> Sums:
    """Computes the focal and box loss of all anchors.

    Args:
        model: An `EfficientDet`.
        batch: Images and targets of `detector_input.build_training_batches`.
        batch_size: Images of the whole batch.
        training: Whether the model runs in training mode.

    Returns:
        The sums `loss`, `class_loss` and `box_loss`, and the weight: the number of
        positive anchors plus this part's share of the 1 that a whole batch adds.
    """
    images, class_targets, box_targets = batch
    class_logits, box_offsets = model(images, training=training)
    class_loss, box_loss, positives = losses.detection_loss_sums(
        class_logits, box_offsets, class_targets, box_targets
    )
    share = tf.cast(tf.shape(images)[0], tf.float32) / batch_size
    sums = {
        "loss": class_loss + box_loss,
        "class_loss": class_loss,
        "box_loss": box_loss,
    }
    return sums, positives + share
