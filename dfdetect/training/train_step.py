"""One step of training on every replica, and the state that it changes.

Each replica sums losses and gradients over its part of the global batch. The sums are
added up over the replicas and divided by the weight of the global batch; then every
replica applies the same update. A step depends only on the state, the batch, the seed
and its own number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dfdetect.models import weights
from dfdetect.training import distribute, optimizers
from dfdetect.training.settings import Settings

# Takes a model and a part of the batch. Returns sums over the examples of that part,
# "loss" the one to lower, and the weight that divides them once all parts are added up.
LossFunction = Callable[[keras.Model, Any], tuple[dict[str, tf.Tensor], tf.Tensor]]

# More random draws than this in one step would repeat those of the next one.
_DRAWS_PER_STEP = 2**16


class State:
    """The state that a step changes; build it within the strategy's scope.

    Attributes:
        model: The model.
        optimizer: Its optimizer.
        average: Moving average of its weights, or None.
        loss_scale: Scale of losses in float16, or None.
    """

    def __init__(self, model: keras.Model, settings: Settings) -> None:
        self.model = model
        names = {id(v): name for name, v in weights.variables(model).items()}
        self._names = [names[id(v)] for v in model.weights]
        self.optimizer = optimizers.Optimizer(
            {names[id(v)]: v for v in model.trainable_variables},
            settings.optimizer,
            settings.momentum,
            settings.weight_decay,
        )
        self.average = (
            optimizers.MovingAverage(model.weights, settings.ema_decay)
            if settings.ema_decay
            else None
        )
        self.loss_scale = optimizers.LossScale() if settings.loss_scaling else None

    def variables(self) -> dict[str, tf.Variable]:
        """Returns all variables by name, for checkpoints."""
        values = [variable.value for variable in self.model.weights]
        found = {f"model/{n}": v for n, v in zip(self._names, values, strict=True)}
        found |= {f"optimizer/{n}": v for n, v in self.optimizer.slots.items()}
        if self.average is not None:
            values = self.average.averages
            found |= {
                f"average/{n}": v for n, v in zip(self._names, values, strict=True)
            }
        if self.loss_scale is not None:
            found["loss_scale/scale"] = self.loss_scale.scale
            found["loss_scale/good_steps"] = self.loss_scale.good_steps
        return found

    def evaluation_weights(self) -> list[np.ndarray]:
        """Returns the averaged weights, or without an average the model's own."""
        if self.average is None:
            return self.model.get_weights()
        return [average.numpy() for average in self.average.averages]


def freeze_batch_norms(model: keras.Model) -> None:
    """Freezes scale, offset and moving statistics of every batch norm."""
    for layer in find_batch_norms(model):
        layer.trainable = False


def freeze_through(model: keras.Model, last: str) -> None:
    """Freezes the layers from the input through the one named `last`.

    Raises:
        ValueError: There is no such layer.
    """
    layers = weights.flatten_layers(model)
    names = [layer.name for layer in layers]
    if last not in names:
        raise ValueError(f"no layer {last!r} in {names}")
    for layer in layers[: names.index(last) + 1]:
        layer.trainable = False


def name_backbone_end(model: keras.Model, report: weights.LoadReport) -> str:
    """Names the last layer of a classifier's backbone that may be frozen.

    That is `pool`; the layer before it if `pool` is a batch norm whose statistics were
    not loaded, and therefore are to be learned.

    Args:
        model: A classifier.
        report: What was loaded into it.
    """
    names = [layer.name for layer in weights.flatten_layers(model)]
    is_norm = any(layer.name == "pool" for layer in find_batch_norms(model))
    if is_norm and "pool/moving_mean" not in report.loaded:
        return names[names.index("pool") - 1]
    return "pool"


def find_batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Finds all batch norms of a model and its nested models."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in weights.flatten_layers(model) if isinstance(layer, kind)]


def build_train_step(
    strategy: tf.distribute.Strategy,
    state: State,
    loss: LossFunction,
    settings: Settings,
) -> Callable[[Any, tf.Tensor, tf.Tensor], Mapping[str, tf.Tensor]]:
    """Builds the function that takes a step.

    Returns:
        A function of a distributed batch, the number of the step (int64 scalar, 0 the
        first) and whether this worker was asked to stop (float32 scalar, 0 or 1). It
        returns float32 scalars, the same for all replicas: the loss function's sums
        over the global batch, divided by its weight; `gradient_norm` before clipping;
        `learning_rate`; `stop`, the number of replicas that were asked to stop; and in
        float16 `loss_scale`.
    """
    model, trained = state.model, state.model.trainable_variables

    def add_gradients(
        part: Any, gradients: Sequence[tf.Tensor] | None
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        with tf.GradientTape() as tape:
            sums, weight = loss(model, part)
            target = sums["loss"]
            if state.loss_scale is not None:
                target = target * state.loss_scale.scale
        more = tape.gradient(
            target, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        if gradients is not None:
            more = [a + b for a, b in zip(gradients, more, strict=True)]
        return more, {**sums, "weight": weight}

    def replica_step(batch: Any, step: tf.Tensor, stop: tf.Tensor) -> dict[str, Any]:
        _seed_random_layers(model, settings.seed, step)
        gradients: list[tf.Tensor] | None = None
        # Strategies sum tensors of the replicas only, not one that all share.
        totals: dict[str, tf.Tensor] = {"stop": tf.identity(stop)}
        for part in _split_batch(batch, settings.accumulate):
            # One part after the other: activations of all would fill the memory.
            with tf.control_dependencies(gradients):
                gradients, sums = add_gradients(part, gradients)
            for name, value in sums.items():
                value = tf.cast(value, tf.float32)
                totals[name] = totals[name] + value if name in totals else value
        gradients, totals = distribute.all_reduce((gradients, totals))
        weight, stop = totals.pop("weight"), totals.pop("stop")
        figures = {name: total / weight for name, total in totals.items()}

        if state.loss_scale is not None:
            weight = weight * state.loss_scale.scale
            figures["loss_scale"] = tf.identity(state.loss_scale.scale)
        gradients = [gradient / weight for gradient in gradients]
        norm, rate = _apply_gradients(state, gradients, step, settings)
        return {**figures, "gradient_norm": norm, "learning_rate": rate, "stop": stop}

    @tf.function
    def train_step(
        batch: Any, step: tf.Tensor, stop: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        figures = strategy.run(replica_step, args=(batch, step, stop))
        return {
            name: strategy.experimental_local_results(value)[0]
            for name, value in figures.items()
        }

    return train_step


def _apply_gradients(
    state: State, gradients: list[tf.Tensor], step: tf.Tensor, settings: Settings
) -> tuple[tf.Tensor, tf.Tensor]:
    """Updates the weights; returns the norm before clipping and the learning rate."""
    norm = tf.linalg.global_norm(gradients)
    if settings.clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, settings.clip_norm, norm)
    rate = settings.learning_rate_at(step)

    def update() -> None:
        state.optimizer.apply(gradients, rate, step)
        if state.average is not None:
            state.average.update(step)

    if state.loss_scale is None:
        update()
    else:
        finite = tf.math.is_finite(norm)
        tf.cond(finite, update, lambda: None)
        state.loss_scale.update(finite)
    return norm, rate


def _split_batch(batch: Any, count: int) -> list[Any]:
    """Splits a batch into parts of equal size."""
    size = tf.nest.flatten(batch)[0].shape[0]
    if count > 1 and (size is None or size % count):
        raise ValueError(f"accumulate must divide {size} examples, got {count}.")
    if count == 1:
        return [batch]
    part = size // count
    return [
        tf.nest.map_structure(lambda t, i=i: t[i * part : (i + 1) * part], batch)
        for i in range(count)
    ]


def _seed_random_layers(model: keras.Model, seed: int, step: tf.Tensor) -> None:
    """Makes random draws, as of dropout, depend on seed, step and replica only."""
    context = tf.distribute.get_replica_context()
    replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
    draws = (step * context.num_replicas_in_sync + replica) * _DRAWS_PER_STEP
    states = [v for v in model.non_trainable_variables if "seed_generator" in v.path]
    for index, variable in enumerate(states):
        first = tf.constant(seed * len(states) + index, tf.int64)
        variable.assign(tf.stack([first, draws]))
