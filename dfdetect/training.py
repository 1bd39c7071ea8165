"""The training loop: steps, checkpoints, resume, TensorBoard, a validation metric."""

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
import tqdm

_log = logging.getLogger(__name__)

# Batch-norm scales and offsets and biases are not decayed (He et al., Bag of Tricks
# for Image Classification, CVPR 2019, section 3.1).
_NOT_DECAYED = ("bias", "gamma", "beta", "fusion")

LossFunction = Callable[[keras.Model, Any], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        model_dir: Where checkpoints, TensorBoard events and the best weights go.
        steps: Optimiser steps in all.
        learning_rate: Peak, reached after the warm-up; then a cosine down to zero.
        warmup_steps: Steps of linear rise.
        weight_decay: Of AdamW, decoupled; kernels only.
        clip_norm: Greatest global norm of the gradient.
        eval_every: Steps between evaluations, each of which keeps a checkpoint.
        log_every: Steps between log lines.
    """

    model_dir: str
    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    eval_every: int
    log_every: int

    def __post_init__(self):
        for name in ("steps", "learning_rate", "eval_every", "log_every", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                f"warmup_steps must be in [0, {self.steps}), got {self.warmup_steps}."
            )


class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear rise to the peak, then half a cosine down to zero."""

    def __init__(self, peak: float, warmup_steps: int, steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.steps = steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rise = (step + 1.0) / max(self.warmup_steps, 1)
        share = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        fall = 0.5 * (1.0 + keras.ops.cos(3.14159265 * keras.ops.clip(share, 0, 1)))
        return self.peak * keras.ops.where(step < self.warmup_steps, rise, fall)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "steps": self.steps,
        }


def train(
    model: keras.Model,
    loss: LossFunction,
    batches: Callable[[int], tf.data.Dataset],
    evaluate: Callable[[], Mapping[str, float]],
    keep_best: Callable[[Mapping[str, float]], None],
    metric: str,
    settings: Settings,
) -> float:
    """Trains to `settings.steps`, going on from the newest checkpoint if there is one.

    Args:
        model: Trained in place; holds the last weights afterwards, not the best.
        loss: Takes the model and a batch; returns scalars, "loss" the one to lower.
        batches: Takes the first step; returns an endless data set of batches.
        evaluate: Returns validation figures of the model as it stands.
        keep_best: Called with the figures whenever `metric` is the best so far.
        metric: Which of the figures says what is best; greater is better.

    Returns:
        The best value of `metric`.

    Raises:
        FloatingPointError: The loss is no longer finite.
        KeyboardInterrupt: After a checkpoint, when the run was interrupted.
    """
    optimizer = _optimizer(model, settings)
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    best = tf.Variable(float("-inf"), dtype=tf.float64, trainable=False)
    checkpoints = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model, optimizer=optimizer, step=step, best=best),
        os.path.join(settings.model_dir, "checkpoints"),
        max_to_keep=2,
    )
    if checkpoints.restore_or_initialize():
        _log.info("goes on from step %d", int(step))
    train_step = _train_step(model, loss, optimizer)
    writer = tf.summary.create_file_writer(settings.model_dir)
    iterator = iter(batches(int(step)))
    progress = _Progress(int(step), settings)
    try:
        while int(step) < settings.steps:
            scalars = train_step(next(iterator))
            step.assign_add(1)
            progress.report(int(step), scalars, writer)
            if int(step) % settings.eval_every == 0 or int(step) == settings.steps:
                figures = evaluate()
                _write_scalars(writer, figures, int(step), "validation")
                _log.info("step %d validation %s", int(step), _line(figures))
                if figures[metric] > float(best):
                    best.assign(figures[metric])
                    keep_best({**figures, "step": int(step)})
                checkpoints.save(int(step))
                progress.restart(int(step))
    except KeyboardInterrupt:
        checkpoints.save(int(step))
        _log.info("interrupted; step %d is kept", int(step))
        raise
    finally:
        writer.flush()
    return float(best)


def _optimizer(model: keras.Model, settings: Settings) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.AdamW(
        WarmupCosine(settings.learning_rate, settings.warmup_steps, settings.steps),
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
    )
    optimizer.exclude_from_weight_decay(var_names=list(_NOT_DECAYED))
    optimizer.build(model.trainable_variables)
    return optimizer


def _train_step(
    model: keras.Model, loss: LossFunction, optimizer: keras.optimizers.Optimizer
) -> Callable[[Any], dict[str, tf.Tensor]]:
    @tf.function
    def train_step(batch):
        with tf.GradientTape() as tape:
            scalars = loss(model, batch)
        gradients = tape.gradient(scalars["loss"], model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return scalars | {
            "gradient_norm": tf.linalg.global_norm(gradients),
            "learning_rate": optimizer.learning_rate,
        }

    return train_step


class _Progress:
    """Scalars to TensorBoard and, every `log_every` steps, to a person."""

    def __init__(self, step: int, settings: Settings):
        self._settings = settings
        self._bar = (
            tqdm.tqdm(total=settings.steps, initial=step, unit="step")
            if sys.stderr.isatty()
            else None
        )
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts the clock anew, so that evaluations do not count as training."""
        self._since = time.monotonic()
        self._from_step = step

    def report(
        self,
        step: int,
        scalars: Mapping[str, tf.Tensor],
        writer: tf.summary.SummaryWriter,
    ) -> None:
        if self._bar is not None:
            self._bar.update(1)
        if step % self._settings.log_every and step != self._settings.steps:
            return
        figures = {name: float(value) for name, value in scalars.items()}
        if not abs(figures["loss"]) < float("inf"):
            raise FloatingPointError(f"The loss is {figures['loss']} at step {step}.")
        took = time.monotonic() - self._since
        figures["steps_per_second"] = (step - self._from_step) / max(took, 1e-9)
        _write_scalars(writer, figures, step, "training")
        if self._bar is not None:
            self._bar.set_postfix_str(_line(figures))
        else:
            _log.info("step %d/%d %s", step, self._settings.steps, _line(figures))
        self.restart(step)


def _write_scalars(
    writer: tf.summary.SummaryWriter,
    figures: Mapping[str, float],
    step: int,
    group: str,
) -> None:
    with writer.as_default(step=step):
        for name, value in figures.items():
            tf.summary.scalar(f"{group}/{name}", value)


def _line(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in figures.items())
