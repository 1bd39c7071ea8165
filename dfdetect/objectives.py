"""What the trainings lower, as sums over a part of a batch and the weight of the part.

See `train_step.LossFunction`: the sums of all parts are divided by the weights of all,
so that it does not matter how a batch is cut up.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from dfdetect import labels, losses

Sums = tuple[dict[str, tf.Tensor], tf.Tensor]


def classification(
    model: keras.Model,
    batch: tuple[tf.Tensor, tf.Tensor],
    class_weights: Sequence[float] = (1.0, 1.0),
) -> Sums:
    """Cross-entropy of head crops.

    Args:
        model: A classifier.
        batch: As `data.classifier_training` gives it.
        class_weights: How much a crop of each label counts.

    Returns:
        The sums `loss` and `accuracy`, and the weight of the crops.
    """
    images, truths = batch
    logits = tf.cast(model(images, training=True)[:, 0], tf.float32)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(
        tf.cast(truths, tf.float32), logits
    )
    right = tf.cast(tf.equal(logits > 0, truths == labels.FAKE), tf.float32)
    counts = tf.gather(tf.constant(class_weights, tf.float32), truths)
    sums = {
        "loss": tf.reduce_sum(counts * cross_entropy),
        "accuracy": tf.reduce_sum(counts * right),
    }
    return sums, tf.reduce_sum(counts)


def detection(
    model: keras.Model, batch: tuple[tf.Tensor, ...], batch_size: int
) -> Sums:
    """Focal and box loss of all anchors.

    Args:
        model: An `EfficientDet`.
        batch: As `data.detector_training` gives it.
        batch_size: Pictures of the whole batch.

    Returns:
        The sums `loss`, `class_loss` and `box_loss`, and the number of positive anchors
        with this part's share of 1, which is added to that of the whole batch.
    """
    pictures, class_targets, box_targets = batch
    class_logits, box_offsets = model(pictures, training=True)
    # It divides by one more than it is told: these are sums.
    total, class_loss, box_loss = losses.detection_loss(
        class_logits, box_offsets, class_targets, box_targets, num_positives=0
    )
    positives = tf.reduce_sum(tf.cast(class_targets >= 0, tf.float32))
    share = tf.cast(tf.shape(pictures)[0], tf.float32) / batch_size
    sums = {"loss": total, "class_loss": class_loss, "box_loss": box_loss}
    return sums, positives + share
