"""From summed gradients to new weights: learning rate, update rules, averaged weights.

Keras's optimizers clip the gradient of each replica before they sum it, which makes the
same run another one on more devices. Here every replica does the same with the same
sum, so that no replica waits for another again.
"""

import math
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

RULES = ("sgd", "adam", "adamw")
SCHEDULES = ("cosine", "step", "constant")

# Batch-norm scales and offsets and biases are not decayed (He et al., Bag of Tricks
# for Image Classification, CVPR 2019, section 3.1).
_NOT_DECAYED = ("bias", "gamma", "beta", "fusion_weights")
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7  # As Keras.

_FIRST_LOSS_SCALE = 2.0**15
_STEPS_TO_GROW = 2000  # Micikevicius et al., Mixed Precision Training, section 3.2.


def learning_rate(
    step: tf.Tensor,
    peak: float,
    schedule: str,
    steps: int,
    warmup_steps: int = 0,
    decay_factor: float = 0.1,
    decay_every: int = 1,
) -> tf.Tensor:
    """A linear rise to the peak, then one of `SCHEDULES`.

    Args:
        step: Scalar, 0 at first.
        peak: The highest rate.
        schedule: "cosine" falls to zero at `steps`; "step" multiplies by
            `decay_factor` every `decay_every` steps, the warm-up counted; "constant"
            stays.
        steps: Steps in all.
        warmup_steps: Steps of the rise; the first takes `peak / warmup_steps`.
        decay_factor: Of "step".
        decay_every: Of "step".

    Returns:
        Scalar float32.
    """
    step = tf.cast(step, tf.float32)
    if schedule == "cosine":
        share = (step - warmup_steps) / max(steps - warmup_steps, 1)
        shape = 0.5 * (1.0 + tf.cos(math.pi * tf.clip_by_value(share, 0.0, 1.0)))
    elif schedule == "step":
        shape = tf.pow(decay_factor, tf.floor(step / decay_every))
    else:
        shape = tf.ones([])
    rise = (step + 1.0) / max(warmup_steps, 1)
    return peak * tf.where(step < warmup_steps, rise, shape)


class Optimizer(tf.Module):
    """SGD with momentum, Adam or AdamW, after Keras's formulas.

    Make it within the strategy's scope, and call `apply` in every replica with the same
    gradients. `slots` are its variables, by what they are and the weight's name.

    Args:
        variables: Keras variables to train, by name.
        rule: One of `RULES`.
        momentum: Of "sgd".
        weight_decay: Share of a kernel taken off in a step, times the learning rate;
            not of biases, batch norms and fusion weights.
    """

    def __init__(
        self,
        variables: Mapping[str, keras.Variable],
        rule: str,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__("optimizer")
        self._weights = dict(variables)
        self._rule = rule
        self._momentum = momentum
        self._weight_decay = weight_decay
        kinds = ("momentum",) if rule == "sgd" else ("mean", "square")
        self.slots = {
            f"{kind}/{name}": tf.Variable(
                tf.zeros(weight.shape), trainable=False, name=kind
            )
            for kind in kinds
            for name, weight in self._weights.items()
        }

    def apply(
        self, gradients: Sequence[tf.Tensor], rate: tf.Tensor, step: tf.Tensor
    ) -> None:
        """Changes the weights.

        Args:
            gradients: One for each weight, in order, equal in every replica.
            rate: Learning rate, scalar.
            step: Scalar, 0 at first.
        """
        count = tf.cast(step, tf.float32) + 1.0
        corrected = rate * tf.sqrt(1.0 - _BETA2**count) / (1.0 - _BETA1**count)
        for (name, weight), gradient in zip(
            self._weights.items(), gradients, strict=True
        ):
            # Each variable is read once and written once: TensorFlow does not always
            # keep the order of two changes, and their rounding depends on it.
            value = tf.convert_to_tensor(weight.value)
            if self._weight_decay and not name.endswith(_NOT_DECAYED):
                value -= value * self._weight_decay * rate
            if self._rule == "sgd":
                momentum = self._momentum * self.slots[f"momentum/{name}"]
                momentum -= rate * gradient
                self.slots[f"momentum/{name}"].assign(momentum)
                weight.assign(value + momentum)
            else:
                mean = tf.convert_to_tensor(self.slots[f"mean/{name}"])
                mean += (gradient - mean) * (1.0 - _BETA1)
                self.slots[f"mean/{name}"].assign(mean)
                square = tf.convert_to_tensor(self.slots[f"square/{name}"])
                square += (tf.square(gradient) - square) * (1.0 - _BETA2)
                self.slots[f"square/{name}"].assign(square)
                change = mean * corrected / (tf.sqrt(square) + _EPSILON)
                weight.assign(value - change)


class LossScale(tf.Module):
    """Keeps gradients within float16: halves where they overflow, else slowly doubles.

    Source: Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.2.
    """

    def __init__(self) -> None:
        super().__init__("loss_scale")
        self.scale = tf.Variable(_FIRST_LOSS_SCALE, trainable=False)
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)

    def update(self, finite: tf.Tensor) -> None:
        """Takes note whether the gradients of a step were finite."""
        good = tf.where(finite, self.good_steps + 1, 0)
        grown = tf.where(good >= _STEPS_TO_GROW, self.scale * 2.0, self.scale)
        self.scale.assign(tf.where(finite, grown, tf.maximum(self.scale / 2.0, 1.0)))
        self.good_steps.assign(good % _STEPS_TO_GROW)


class MovingAverage(tf.Module):
    """Exponential moving average of a model's weights, batch-norm statistics included.

    Args:
        variables: Keras variables.
        decay: Weight of the past; lower in the first steps, as it starts from there.

    Source: google/automl efficientdet, `det_model_fn.py`.
    """

    def __init__(self, variables: Sequence[keras.Variable], decay: float) -> None:
        super().__init__("moving_average")
        self._variables = list(variables)
        self._decay = decay
        self.averages = [
            tf.Variable(variable.value, trainable=False) for variable in variables
        ]

    def update(self, step: tf.Tensor) -> None:
        """Takes the weights after a step into the average; `step` is 0 at first."""
        step = tf.cast(step, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign_add((1.0 - decay) * (variable.value - average))
