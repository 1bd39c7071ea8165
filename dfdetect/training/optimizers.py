"""From summed gradients to new weights: learning rate, update rules, averaged weights.

`keras.optimizers` clip the gradient of each replica before they sum it, so that a run
on more devices would be another run. Here every replica applies the same update to the
same sum, without further communication.
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
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7  # As in Keras.

_FIRST_LOSS_SCALE = 2.0**15
_STEPS_TO_GROW = 2000  # Micikevicius et al., Mixed Precision Training, section 3.2.


def learning_rate(
    step: tf.Tensor,
    peak: float,
    schedule: str,
    *,
    steps: int,
    warmup_steps: int = 0,
    decay_factor: float = 0.1,
    decay_every: int = 1,
) -> tf.Tensor:
    """Computes the learning rate: a linear rise to the peak, then one of `SCHEDULES`.

    Args:
        step: Scalar, 0 for the first.
        peak: Highest learning rate.
        schedule: "cosine" falls to zero at `steps`; "step" multiplies by
            `decay_factor` every `decay_every` steps, the warm-up included; "constant"
            keeps the peak.
        steps: Number of steps in all.
        warmup_steps: Steps of the rise; the rate of the first is `peak / warmup_steps`.
        decay_factor: Factor of "step".
        decay_every: Steps between decays of "step".

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
    """SGD with momentum, Adam or AdamW by the formulas of `keras.optimizers`.

    Build it within the strategy's scope, and call `apply` in every replica with the
    same gradients. `slots` are its variables by kind and name of the weight.

    Args:
        variables: Keras variables to train, by name.
        rule: One of `RULES`.
        momentum: Momentum of "sgd".
        weight_decay: Share of a kernel that a step subtracts, times the learning rate;
            biases, batch norms and fusion weights do not decay.
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
        """Updates the weights.

        Args:
            gradients: Gradients of the weights in order, equal in every replica.
            rate: Learning rate, scalar.
            step: Scalar, 0 for the first.
        """
        count = tf.cast(step, tf.float32) + 1.0
        corrected = rate * tf.sqrt(1.0 - _BETA2**count) / (1.0 - _BETA1**count)
        for (name, weight), gradient in zip(
            self._weights.items(), gradients, strict=True
        ):
            # Each variable is read once and written once: TensorFlow does not always
            # keep the order of two updates, and their rounding depends on it.
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
    """A loss scale for float16: halves where gradients overflow, else slowly doubles.

    Source: Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.2.
    """

    def __init__(self) -> None:
        super().__init__("loss_scale")
        self.scale = tf.Variable(_FIRST_LOSS_SCALE, trainable=False)
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)

    def update(self, finite: tf.Tensor) -> None:
        """Updates the scale by whether the gradients of a step were finite."""
        good = tf.where(finite, self.good_steps + 1, 0)
        grown = tf.where(good >= _STEPS_TO_GROW, self.scale * 2.0, self.scale)
        self.scale.assign(tf.where(finite, grown, tf.maximum(self.scale / 2.0, 1.0)))
        self.good_steps.assign(good % _STEPS_TO_GROW)


class MovingAverage(tf.Module):
    """An exponential moving average of a model's weights, with batch-norm statistics.

    Args:
        variables: Keras variables.
        decay: Weight of the past; lower in the first steps.

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
        """Adds the weights after a step to the average; `step` is 0 for the first."""
        step = tf.cast(step, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign_add((1.0 - decay) * (variable.value - average))
