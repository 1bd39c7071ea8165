"""The one training loop: the same on one device, many devices and many machines.

The chief evaluates, writes checkpoints and draws; the other workers wait for it. Data
and random numbers are functions of seed and step, so that a checkpoint is all that a
run needs to go on as if it had never been stopped.
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

from dfdetect.data.batches import Batches
from dfdetect.models import kept_steps
from dfdetect.training import checkpoints, distribute, tensorboard, train_step
from dfdetect.training.evaluation_log import EvaluationLog
from dfdetect.training.progress_bar import Progress, line
from dfdetect.training.settings import Settings
from dfdetect.training.stop_signals import StopSignals

_log = logging.getLogger(__name__)

# What a worker gets when another one dies.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)

# Name of the examples seen, in checkpoints.
_POSITION = "position"


class Interrupted(Exception):
    """The run left after a checkpoint, as a signal asked.

    Attributes:
        signal: Number of the signal; that of SIGTERM where another worker got it.
    """

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"interrupted; step {step} is kept, the same command goes on")
        self.signal = signal_number


class WorkerLost(Exception):
    """Another worker is gone, and all have to start again."""


def train(
    model: keras.Model,
    judged: keras.Model,
    loss: train_step.LossFunction,
    batches: Batches,
    evaluate: Callable[[], Mapping[str, float]] | None,
    keep_best: Callable[[Mapping[str, float]], Mapping[str, Any]],
    settings: Settings,
    strategy: tf.distribute.Strategy | None = None,
    describe: Callable[[Mapping[str, float]], Mapping[str, Any]] | None = None,
) -> dict[str, float]:
    """Trains to `settings.steps`, going on from the newest checkpoint if there is one.

    Args:
        model: Made within the strategy's scope; trained in place.
        judged: Another model with the same weights, made outside of the scope. Before
            each evaluation it gets those of `model`, averaged if so set.
        loss: See `train_step.LossFunction`.
        batches: What to train on.
        evaluate: Returns validation figures of `judged`. What it writes with
            `tf.summary` goes to the run's events. None: there is nothing to evaluate
            on, and the weights of the last step are kept.
        keep_best: Called with the figures, after `evaluate`, whenever they are the best
            so far. Keeps `judged`, and returns what is to be told of it.
        settings: How to train.
        strategy: Where to train; on one device by default.
        describe: Called with the figures of every evaluation. Returns the manifest of
            `judged`, which is kept beside the step's checkpoint.

    Returns:
        The figures of the best evaluation; without `evaluate`, the last step.

    Raises:
        FloatingPointError: The loss or the gradient is no longer finite.
        ValueError: A record cannot be read, the checkpoint is of another run, or there
            is no such metric.
        OSError: A checkpoint cannot be written, such as on a full disk.
        Interrupted: SIGTERM or SIGINT came, and a checkpoint was written.
        WorkerLost: Another worker died.
    """
    strategy = strategy or tf.distribute.get_strategy()
    chief = distribute.is_chief(strategy)
    began = time.monotonic()
    with strategy.scope():
        state = train_step.State(model, settings)
    take_step = train_step.make(strategy, state, loss, settings)
    saved = checkpoints.Checkpoints(
        os.path.join(settings.model_dir, kept_steps.FOLDER), settings.keep
    )
    step, batches = _restore(state, saved, batches, strategy)
    if chief and step >= settings.steps:
        _log.info("the run is done: step %d of %d", step, settings.steps)
    elif chief and step:
        _log.info("goes on from step %d", step)
    evaluations = EvaluationLog(settings.model_dir, settings.best_metric, step)
    board = tensorboard.Board(
        settings.model_dir, settings.hparams, chief, settings.profile_steps
    )
    progress = Progress(step, settings.steps, batches.batch_size, chief)

    def is_judged(step: int) -> bool:
        if evaluate is None:
            return step == settings.steps
        return _due(step, settings.eval_every, settings)

    def judge() -> None:
        judged.set_weights(state.weights_to_judge())
        with board.writing(step):
            found = evaluate() if evaluate is not None else {}
            board.scalars("validation", found)
            progress.say("step %d validation %s", step, line(found))
            figures = {**found, "step": step}
            if describe is not None:
                saved.describe(step, describe(figures))
            if evaluate is None or evaluations.add(figures):
                board.text("manifest", keep_best(figures))
            if settings.histograms:
                board.histograms(state.variables())
        saved.wait()  # No evaluation is on record whose checkpoint is not.
        if evaluate is not None:
            evaluations.write()

    def verified(at: int, scalars: Mapping[str, tf.Tensor]) -> dict[str, float]:
        """The scalars of a step, which may still be running."""
        figures = {name: float(value) for name, value in scalars.items()}
        # In float16 the gradient overflows now and then; such steps are passed over.
        watched = ("loss",) if settings.loss_scaling else ("loss", "gradient_norm")
        for name in watched:
            if not np.isfinite(figures[name]):
                kept = f"step {saved.steps()[-1]}" if saved.steps() else "no checkpoint"
                raise FloatingPointError(
                    f"{name} is {figures[name]} at step {at}; {kept} is kept"
                )
        return figures

    signals = StopSignals()
    # Reading the scalars of a step waits for it. Those of the step before are read
    # while a GPU computes this one.
    unread: collections.deque = collections.deque()
    figures: dict[str, float] = {}
    stop = False

    def read(all_but: int) -> None:
        nonlocal figures, stop
        while len(unread) > all_but:
            figures = verified(*unread.popleft())
            stop = figures.pop("stop") > 0 or stop

    try:
        iterator = iter(
            strategy.distribute_datasets_from_function(
                lambda context: batches.from_step(step, context)
            )
        )
        while True:
            if step and is_judged(step):
                with progress.paused():
                    if chief and not evaluations.has(step):
                        judge()
                    stale = _shared(strategy, evaluations.since_best())
                if settings.patience and stale >= settings.patience:
                    progress.say("stops: no better one in %d evaluations", stale)
                    break
            if step >= settings.steps:
                break
            board.profile(step + 1)
            with progress.waiting():
                batch = _next(iterator, batches, step)
            asked = tf.constant(0.0 if signals.number is None else 1.0)
            scalars = take_step(batch, tf.constant(step, tf.int64), asked)
            step += 1
            progress.advance()
            unread.append((step, scalars))
            log = _due(step, settings.log_every, settings)
            evaluation = is_judged(step)
            save = evaluation or _due(step, settings.checkpoint_every, settings)
            read(0 if log or save else 1)
            if stop:
                read(0)
            if log:
                with board.writing(step):
                    board.scalars("training", figures | progress.report(step, figures))
            if evaluation:
                with board.writing(step):
                    board.batch(strategy, batch)
            saved.check()
            if chief and (save or stop):
                saved.save(step, _arrays(state, batches.position(step)))
            if stop and step < settings.steps:
                raise Interrupted(step, signals.number or signal.SIGTERM)
    except LOST as error:
        if distribute.num_workers(strategy) == 1:
            raise
        last = saved.steps()[-1:] or [0]
        raise WorkerLost(
            f"another worker is lost at step {step + 1}; start all of them again, they "
            f"go on from step {last[0]} ({error.message.splitlines()[0][:200]})"
        ) from error
    finally:
        signals.close()
        progress.close()
        saved.wait()
        board.close()
    _shared(strategy, 0)  # The others leave once the chief has written all.
    best = evaluations.best() or {}
    if evaluate is None:
        best = {"step": step}
    elif chief and not best:
        progress.say("no evaluation gave a %s: no weights are kept", evaluations.metric)
    if chief:
        _log.info(
            "at step %d after %.0f s; the best, in %s: %s",
            *(step, time.monotonic() - began, settings.model_dir, line(best)),
        )
    return best


def _due(step: int, every: int, settings: Settings) -> bool:
    return step % every == 0 or step == settings.steps


def _arrays(state: train_step.State, position: int) -> dict[str, np.ndarray]:
    arrays = {name: variable.numpy() for name, variable in state.variables().items()}
    return {**arrays, _POSITION: np.array(position, np.int64)}


def _shared(strategy: tf.distribute.Strategy, number: int) -> int:
    """The chief's number; every worker waits here for the others."""
    return int(distribute.share(strategy, [np.array(number, np.int64)])[0])


def _restore(
    state: train_step.State,
    saved: checkpoints.Checkpoints,
    batches: Batches,
    strategy: tf.distribute.Strategy,
) -> tuple[int, Batches]:
    """Brings the chief's newest checkpoint, or its start, into all replicas.

    Returns:
        The step of the checkpoint, 0 without one, and the batches that go on where
        those of the checkpoint ended, even if they were of another size.
    """
    variables = state.variables()
    step = 0
    arrays: dict[str, np.ndarray] = {}
    if distribute.is_chief(strategy):
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        step, arrays = saved.restore(shapes, optional=(_POSITION,))
    # Checkpoints of before do not tell.
    position = int(arrays.pop(_POSITION, batches.position(step)))
    step, position = (_shared(strategy, number) for number in (step, position))
    arrays = arrays or {name: v.numpy() for name, v in variables.items()}
    shared = distribute.share(strategy, [arrays[name] for name in variables])
    with strategy.scope():
        for variable, value in zip(variables.values(), shared, strict=True):
            variable.assign(value)
    return step, batches.placed(step, position)


def _next(iterator: Iterator, batches: Batches, step: int) -> Any:
    try:
        return next(iterator)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise ValueError(
            f"at step {step + 1} a record cannot be read: {batches.unreadable(step)}"
        ) from error
