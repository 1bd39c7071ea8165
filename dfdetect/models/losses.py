"""The detector's losses, normalized as google/automl does."""

from typing import Any

from keras import ops

from dfdetect.models import matching

_FOCAL_ALPHA = 0.25  # EfficientDet, section 5.1.
_FOCAL_GAMMA = 1.5  # EfficientDet, section 5.1.
_HUBER_DELTA = 0.1  # google/automl, hparams_config.py.
_BOX_WEIGHT = 50.0  # google/automl, hparams_config.py.


def focal(
    logits: Any,
    labels: Any,
    alpha: float = _FOCAL_ALPHA,
    gamma: float = _FOCAL_GAMMA,
) -> Any:
    """Focal loss: cross-entropy that fades where the model is already right.

    Args:
        logits: Any shape.
        labels: The same shape, 1 for the class and 0 for the rest.
        alpha: Weight of the positives; the negatives weigh `1 - alpha`.
        gamma: How fast easy examples fade.

    Returns:
        The loss of each element in float32, not normalized.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "float32")
    signed = (2.0 * labels - 1.0) * logits
    # Both factors come from softplus: neither log(0) nor the power of 0 can occur.
    cross_entropy = ops.softplus(-signed)
    modulation = ops.exp(-gamma * ops.softplus(signed))
    weights = labels * alpha + (1.0 - labels) * (1.0 - alpha)
    return weights * modulation * cross_entropy


def huber_box(box_offsets: Any, box_targets: Any, delta: float = _HUBER_DELTA) -> Any:
    """Huber loss of offsets: weighted by 50 and averaged over the 4 coordinates.

    Args:
        box_offsets: `[..., 4]`, as the model gives them.
        box_targets: `[..., 4]`, as `matching.match_anchors` gives them.
        delta: Error where the loss turns from quadratic to linear.

    Returns:
        `[..., 4]` float32: the share of each coordinate, not normalized by positives.
    """
    error = ops.cast(box_offsets, "float32") - ops.cast(box_targets, "float32")
    error = ops.abs(error)
    quadratic = ops.minimum(error, delta)
    linear = error - quadratic
    return _BOX_WEIGHT / 4.0 * (0.5 * quadratic * quadratic + delta * linear)


def detection_loss(
    class_logits: Any, box_offsets: Any, class_targets: Any, box_targets: Any
) -> tuple[Any, Any, Any]:
    """Loss of a batch, each part divided by one more than its positive anchors.

    Args:
        class_logits: `[batch, num_anchors, num_classes]`.
        box_offsets: `[batch, num_anchors, 4]`.
        class_targets: `[batch, num_anchors]` class ids, `matching.BACKGROUND` or
            `matching.IGNORED`.
        box_targets: `[batch, num_anchors, 4]`.

    Returns:
        The scalars `(total, class_loss, box_loss)` in float32; the total is the sum.

    Source: google/automl efficientdet, `det_model_fn.py`.
    """
    class_sum, box_sum, num_positives = detection_loss_sums(
        class_logits, box_offsets, class_targets, box_targets
    )
    class_loss = class_sum / (num_positives + 1.0)
    box_loss = box_sum / (num_positives + 1.0)
    return class_loss + box_loss, class_loss, box_loss


def detection_loss_sums(
    class_logits: Any, box_offsets: Any, class_targets: Any, box_targets: Any
) -> tuple[Any, Any, Any]:
    """Sums of the losses of all anchors, for a batch that is cut into parts.

    Args:
        class_logits: See `detection_loss`.
        box_offsets: See `detection_loss`.
        class_targets: See `detection_loss`.
        box_targets: See `detection_loss`.

    Returns:
        The scalars `(class_sum, box_sum, num_positives)` in float32; the last is the
        number of positive anchors.
    """
    class_targets = ops.cast(class_targets, "int32")
    positive = ops.cast(class_targets >= 0, "float32")
    counted = ops.cast(class_targets != matching.IGNORED, "float32")
    class_ids = ops.arange(ops.shape(class_logits)[-1], dtype="int32")
    labels = class_targets[..., None] == class_ids
    class_sum = ops.sum(focal(class_logits, labels) * counted[..., None])
    box_sum = ops.sum(huber_box(box_offsets, box_targets) * positive[..., None])
    return class_sum, box_sum, ops.sum(positive)
