"""The training loop: the same on one device, on many devices and on many machines.

All workers evaluate, each its share if the script divides the records; the chief writes
checkpoints and TensorBoard events. Data and random numbers depend only on seed and
step, so that a run that resumes from a checkpoint ends with the weights of a run that
was never stopped.
"""

import collections
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dfdetect import files
from dfdetect.data.batches import Batches
from dfdetect.models import kept_steps
from dfdetect.training import (
    checkpoints,
    distribute,
    run_record,
    run_state,
    tensorboard,
    train_step,
)
from dfdetect.training.evaluation_log import EvaluationLog
from dfdetect.training.progress_bar import TrainingProgress, format_figures
from dfdetect.training.settings import Settings
from dfdetect.training.stop_signals import StopSignals

_log = logging.getLogger(__name__)

# Errors that a worker gets when another one dies.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class Interrupted(Exception):
    """The run ended after a checkpoint, as a signal asked.

    Attributes:
        signal: Number of the signal; that of SIGTERM where another worker got it.
    """

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(
            f"interrupted; step {step} is kept, the same command continues from it"
        )
        self.signal = signal_number


class WorkerLost(Exception):
    """Another worker is gone, and all have to start again."""


class Run:
    """Trains a model to `settings.steps`, from the newest checkpoint if there is one.

    The constructor restores that checkpoint; `train` does the rest.

    Args:
        model: Built within the strategy's scope; trained in place.
        evaluation_model: Another model with the same weights, built outside of the
            scope. Before each evaluation it gets the weights of `model`, averaged if
            the settings say so.
        loss: See `train_step.LossFunction`.
        batches: Training batches.
        evaluate: Returns the validation figures of `evaluation_model`. All workers call
            it and may share the work; the figures of the chief count, and whatever it
            writes with `tf.summary` goes to the run's events. None without validation
            data: the weights of the last step are kept.
        keep_best: Called with the figures, after `evaluate`, whenever they are the best
            so far. Saves `evaluation_model`, and returns its manifest for TensorBoard.
        settings: How to train.
        strategy: Where to train; on one device by default.
        record: Flags and data of the run, to be written before the first step.
        describe: Called with the figures of every evaluation. Returns the manifest of
            `evaluation_model`, which is kept beside the step's checkpoint.
        evaluate_start: Whether to evaluate the model before the first step, too: its
            weights are those of a trained one, and are kept if no step is better. The
            chief's counts.

    Raises:
        ValueError: The checkpoint is of another run, or the models have weights of
            other shapes.
    """

    def __init__(
        self,
        model: keras.Model,
        evaluation_model: keras.Model,
        *,
        loss: train_step.LossFunction,
        batches: Batches,
        evaluate: Callable[[], Mapping[str, float]] | None,
        keep_best: Callable[[Mapping[str, float]], Mapping[str, Any]],
        settings: Settings,
        strategy: tf.distribute.Strategy | None = None,
        record: run_record.RunRecord | None = None,
        describe: Callable[[Mapping[str, float]], Mapping[str, Any]] | None = None,
        evaluate_start: bool = False,
    ) -> None:
        self._began = time.monotonic()
        _check_shapes(model, evaluation_model)
        self._strategy = strategy or tf.distribute.get_strategy()
        self._chief = distribute.is_chief(self._strategy)
        self._evaluation_model = evaluation_model
        self._evaluate, self._keep_best, self._describe = evaluate, keep_best, describe
        self._record = record
        self._settings = settings
        with self._strategy.scope():
            self._state = train_step.State(model, settings)
        self._train_step = train_step.build_train_step(
            self._strategy, self._state, loss, settings
        )
        model_dir = settings.model_dir
        self._checkpoints = checkpoints.Checkpoints(
            os.path.join(model_dir, kept_steps.FOLDER), settings.keep
        )
        self._step, self._batches = run_state.restore(
            self._state, self._checkpoints, batches, self._strategy
        )
        # The chief's weights count, so that its word does.
        self._evaluate_start = distribute.share_number(
            self._strategy, int(evaluate_start)
        )
        self._evaluations = EvaluationLog(model_dir, settings.best_metric, self._step)
        self._first = self._step + 1  # The first step that this process takes.
        self._events = tensorboard.EventWriter(
            model_dir, settings.hparams, self._chief, settings.profile_steps
        )
        self._progress = TrainingProgress(
            self._step, settings.steps, batches.batch_size, self._chief
        )
        # Scalars of the latest steps. Reading those of a step waits for it: those of
        # the step before are read while a GPU computes this one.
        self._unread: collections.deque = collections.deque()
        self._figures: dict[str, float] = {}  # Of the latest step that was read.
        self._stop = (
            False  # Whether a worker was asked to stop in a step that was read.
        )

    def train(self) -> dict[str, float]:
        """Trains, evaluates and keeps the best weights.

        Returns:
            The figures of the best evaluation; without `evaluate`, the last step.

        Raises:
            FloatingPointError: The loss or the gradient is not finite.
            ValueError: A record cannot be read, or the metric is unknown.
            OSError: A checkpoint or the record cannot be written, as on a full disk.
            Interrupted: SIGTERM or SIGINT came, and a checkpoint was written.
            WorkerLost: Another worker died.
        """
        if self._chief and self._step >= self._settings.steps:
            _log.info(
                "the run is done: step %d of %d", self._step, self._settings.steps
            )
        elif self._chief and self._step:
            _log.info("continues from step %d", self._step)
        self._begin()
        signals = StopSignals()
        try:
            self._run_loop(signals)
        except LOST as error:
            if distribute.num_workers(self._strategy) == 1:
                raise
            last = self._checkpoints.steps()[-1:] or [0]
            raise WorkerLost(
                f"another worker is lost at step {self._step + 1}; start all of them "
                f"again, they continue from step {last[0]} "
                f"({distribute.describe_loss(error.message)})"
            ) from error
        finally:
            signals.close()
            self._progress.close()
            self._checkpoints.wait()
            self._events.close()
        # The others leave after the chief's writes.
        distribute.share_number(self._strategy, 0)
        return self._report_best()

    def _begin(self) -> None:
        """Removes what killed runs left; writes the record, as all checks passed."""
        if not self._chief:
            return
        model_dir = self._settings.model_dir
        for folder in (model_dir, os.path.join(model_dir, kept_steps.FOLDER)):
            files.remove_leftovers(folder)
        if self._record is not None:
            self._record.write()

    def _run_loop(self, signals: StopSignals) -> None:
        first = self._step
        iterator = iter(
            self._strategy.distribute_datasets_from_function(
                lambda context: self._batches.from_step(first, context)
            )
        )
        while not self._is_done():
            self._events.update_profiler(self._step + 1)
            with self._progress.waiting():
                batch = _next_batch(iterator, self._batches, self._step)
            asked = tf.constant(0.0 if signals.number is None else 1.0)
            if self._step == first:
                self._progress.announce_first(first + 1)
            scalars = self._train_step(batch, tf.constant(self._step, tf.int64), asked)
            self._step += 1
            self._progress.advance()
            self._unread.append((self._step, scalars))
            self._record_step(batch)
            if self._stop and self._step < self._settings.steps:
                raise Interrupted(self._step, signals.number or signal.SIGTERM)

    def _is_done(self) -> bool:
        """Evaluates a step that is due; returns whether the run ends at it."""
        if self._step > self._settings.steps:
            # It had more steps once, whose weights are not those asked for.
            return True
        if self._is_evaluated():
            with self._progress.paused():
                is_due = self._chief and not self._evaluations.has(self._step)
                if distribute.share_number(self._strategy, int(is_due)):
                    self._evaluate_step()
                stale = distribute.share_number(
                    self._strategy, self._evaluations.count_since_best()
                )
            if self._settings.patience and stale >= self._settings.patience:
                self._progress.say("stops: %d evaluations without a better one", stale)
                return True
        return self._step >= self._settings.steps

    def _is_evaluated(self) -> bool:
        if self._evaluate is None:
            return self._step == self._settings.steps
        if not self._step:
            return bool(self._evaluate_start)
        return self._is_due(self._settings.eval_every)

    def _is_due(self, every: int) -> bool:
        return self._step % every == 0 or self._step == self._settings.steps

    def _evaluate_step(self) -> None:
        """Evaluates the step on all workers; the chief records the figures."""
        step = self._step
        weights = distribute.share(self._strategy, self._state.evaluation_weights())
        self._evaluation_model.set_weights(weights)
        with self._events.at_step(step):
            measured = self._evaluate() if self._evaluate is not None else {}
            if not self._chief:
                return
            self._events.write_scalars("validation", measured)
            self._progress.say("step %d validation %s", step, format_figures(measured))
            figures = {**measured, "step": step}
            if self._describe is not None and step:  # The start has no checkpoint.
                self._checkpoints.describe(step, self._describe(figures))
            if self._evaluate is None or self._evaluations.add(figures):
                self._events.write_text("manifest", self._keep_best(figures))
            if self._settings.histograms:
                self._events.write_histograms(self._state.variables())
        # An evaluation is on record only after its checkpoint is written.
        self._checkpoints.wait()
        if self._evaluate is not None:
            self._evaluations.write()

    def _record_step(self, batch: Any) -> None:
        """Logs the step that was just taken, and saves its checkpoint, if due."""
        settings, step = self._settings, self._step
        log, evaluated = self._is_due(settings.log_every), self._is_evaluated()
        save = evaluated or self._is_due(settings.checkpoint_every)
        self._read_figures(unread=0 if log or save or step == self._first else 1)
        if self._stop:
            self._read_figures(unread=0)
        speed = {}
        if step == self._first:
            self._progress.report_first(step, self._figures)
        elif log:
            speed = self._progress.report(step, self._figures)
        if log:
            with self._events.at_step(step):
                self._events.write_scalars("training", self._figures | speed)
        if evaluated:
            with self._events.at_step(step):
                self._events.write_batch(self._strategy, batch)
        self._checkpoints.check()
        if self._chief and (save or self._stop):
            position = self._batches.position(step)
            self._checkpoints.save(step, run_state.to_arrays(self._state, position))

    def _read_figures(self, unread: int) -> None:
        """Reads and checks the figures of all steps but the newest `unread` ones."""
        while len(self._unread) > unread:
            step, scalars = self._unread.popleft()
            self._figures = {name: float(value) for name, value in scalars.items()}
            self._check_finite(step)
            self._stop = self._figures.pop("stop") > 0 or self._stop

    def _check_finite(self, step: int) -> None:
        # In float16 the gradient overflows now and then; such steps are skipped.
        watched = ["loss"] if self._settings.loss_scaling else ["loss", "gradient_norm"]
        for name in watched:
            if not np.isfinite(self._figures[name]):
                steps = self._checkpoints.steps()
                kept = f"step {steps[-1]}" if steps else "no checkpoint"
                raise FloatingPointError(
                    f"{name} is {self._figures[name]} at step {step}; {kept} is kept"
                )

    def _report_best(self) -> dict[str, float]:
        best = self._evaluations.best() or {}
        if self._evaluate is None:
            best = {"step": self._step}
        elif self._chief and not best:
            metric = self._evaluations.metric
            self._progress.say("no evaluation has a %s: no weights are kept", metric)
        if self._chief:
            if best.get("step") == 0:
                _log.info("no step is better than the weights it started from")
            _log.info(
                "at step %d after %.0f s; the best, in %s: %s",
                self._step,
                time.monotonic() - self._began,
                self._settings.model_dir,
                format_figures(best),
            )
        return best


def _check_shapes(model: keras.Model, evaluation_model: keras.Model) -> None:
    """Checks that the weights of one model can be those of the other."""
    for one, other in zip(model.weights, evaluation_model.weights, strict=True):
        if one.shape != other.shape:
            raise ValueError(
                f"{model.name} must have weights of the same shapes in training and in "
                f"evaluation, got {list(one.shape)} and {list(other.shape)} for "
                f"{one.path}: they depend on the size of the images, so train it at "
                "the size at which it is evaluated."
            )


def _next_batch(iterator: Iterator, batches: Batches, step: int) -> Any:
    try:
        return next(iterator)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise ValueError(
            f"at step {step + 1} a record cannot be read: {batches.unreadable(step)}"
        ) from error
