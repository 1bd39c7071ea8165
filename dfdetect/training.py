"""The one training loop: the same on one device, many devices and many machines.

The chief evaluates, writes checkpoints and draws; the other workers wait for it. Data
and random numbers are functions of seed and step, so that a checkpoint is all that a
run needs to go on as if it had never been stopped.
"""

import collections
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dfdetect import checkpoints, distribute, files, summaries, train_step
from dfdetect.batches import Batches
from dfdetect.settings import Settings
from dfdetect.training_progress import Progress, line

_log = logging.getLogger(__name__)

# What a worker gets when another one dies.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


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


class Evaluations:
    """The validation figures of a run, in `evaluations.jsonl` of its folder.

    Args:
        model_dir: The folder.
        metric: Which figure says what is best; with a minus sign if less is better.
        step: Lines of later steps are dropped.
    """

    def __init__(self, model_dir: str, metric: str, step: int) -> None:
        self._path = os.path.join(model_dir, "evaluations.jsonl")
        self._name = metric.removeprefix("-")
        self._sign = -1.0 if metric.startswith("-") else 1.0
        self._lines: list[dict[str, float]] = []
        if os.path.exists(self._path):
            with open(self._path, encoding="utf-8") as file:
                self._lines = [json.loads(text) for text in file]
        self._lines = [figures for figures in self._lines if figures["step"] <= step]

    def best(self) -> dict[str, float] | None:
        """The figures of the best evaluation, the first of equals."""
        sound = [line for line in self._lines if not np.isnan(line[self._name])]
        return max(sound, key=lambda x: self._sign * x[self._name], default=None)

    def has(self, step: int) -> bool:
        """Whether the step has been evaluated."""
        return any(figures["step"] == step for figures in self._lines)

    def since_best(self) -> int:
        """Evaluations after the best one."""
        best = self.best()
        return len(self._lines) - (1 + self._lines.index(best) if best else 0)

    def add(self, figures: Mapping[str, float]) -> bool:
        """Takes the figures of a step; returns whether they are the best.

        Raises:
            ValueError: The metric is not among them.
        """
        if self._name not in figures:
            raise ValueError(
                f"best_metric must be one of {sorted(figures)}, got {self._name!r}."
            )
        self._lines.append(dict(figures))
        return self.best() is self._lines[-1]

    def write(self) -> None:
        """Writes the file."""
        text = "".join(json.dumps(figures) + "\n" for figures in self._lines)
        files.write(self._path, text.encode())


def train(
    model: keras.Model,
    judged: keras.Model,
    loss: train_step.LossFunction,
    batches: Batches,
    evaluate: Callable[[], Mapping[str, float]],
    keep_best: Callable[[Mapping[str, float]], Mapping[str, Any]],
    settings: Settings,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, float]:
    """Trains to `settings.steps`, going on from the newest checkpoint if there is one.

    Args:
        model: Made within the strategy's scope; trained in place.
        judged: Another model with the same weights, made outside of the scope. Before
            each evaluation it gets those of `model`, averaged if so set.
        loss: See `train_step.LossFunction`.
        batches: What to train on.
        evaluate: Returns validation figures of `judged`. What it writes with
            `tf.summary` goes to the run's events.
        keep_best: Called with the figures, after `evaluate`, whenever they are the best
            so far. Keeps `judged`, and returns what is to be told of it.
        settings: How to train.
        strategy: Where to train; on one device by default.

    Returns:
        The figures of the best evaluation.

    Raises:
        FloatingPointError: The loss or the gradient is no longer finite.
        ValueError: A record cannot be read, the checkpoint is of another run, or there
            is no such metric.
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
        os.path.join(settings.model_dir, "checkpoints"), settings.keep
    )
    step = _restore(state, saved, strategy)
    if step and chief:
        _log.info("goes on from step %d", step)
    evaluations = Evaluations(settings.model_dir, settings.best_metric, step)
    board = summaries.Board(
        settings.model_dir, settings.hparams, chief, settings.profile_steps
    )
    progress = Progress(step, settings.steps, batches.batch_size, chief)

    def judge() -> None:
        judged.set_weights(state.weights_to_judge())
        with board.writing(step):
            found = evaluate()
            board.scalars("validation", found)
            progress.say("step %d validation %s", step, line(found))
            figures = {**found, "step": step}
            if evaluations.add(figures):
                board.text("manifest", keep_best(figures))
            if settings.histograms:
                board.histograms(state.variables())
        saved.wait()  # No evaluation is on record whose checkpoint is not.
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

    signals = _Signals()
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
            if step and _due(step, settings.eval_every, settings):
                with progress.paused():
                    if chief and not evaluations.has(step):
                        judge()
                    stale = _shared(strategy, evaluations.since_best())
                if settings.patience and stale >= settings.patience:
                    progress.say("stops: no better one in %d evaluations", stale)
                    break
            if step == settings.steps:
                break
            board.profile(step + 1)
            with progress.waiting():
                batch = _next(iterator, batches, step)
            scalars = take_step(batch, tf.constant(step, tf.int64), signals.asked())
            step += 1
            progress.advance()
            unread.append((step, scalars))
            log = _due(step, settings.log_every, settings)
            evaluation = _due(step, settings.eval_every, settings)
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
            if chief and (save or stop):
                saved.save(step, _arrays(state))
            if stop and step < settings.steps:
                raise Interrupted(step, signals.number or signal.SIGTERM)
    except _LOST as error:
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
    if chief:
        _log.info(
            "at step %d after %.0f s; the best, in %s: %s",
            *(step, time.monotonic() - began, settings.model_dir, line(best)),
        )
    return best


class _Signals:
    """Notes SIGTERM and SIGINT; a second one ends the process at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)

    def asked(self) -> tf.Tensor:
        """1 once a signal came, 0 before."""
        return tf.constant(0.0 if self.number is None else 1.0)

    def close(self) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.number = number
        self.close()


def _due(step: int, every: int, settings: Settings) -> bool:
    return step % every == 0 or step == settings.steps


def _arrays(state: train_step.State) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in state.variables().items()}


def _shared(strategy: tf.distribute.Strategy, number: int) -> int:
    """The chief's number; every worker waits here for the others."""
    return int(distribute.share(strategy, [np.array(number, np.int64)])[0])


def _restore(
    state: train_step.State,
    saved: checkpoints.Checkpoints,
    strategy: tf.distribute.Strategy,
) -> int:
    """Brings the chief's newest checkpoint, or its start, into all replicas.

    Returns:
        The step of the checkpoint, 0 without one.
    """
    variables = state.variables()
    arrays: dict[str, np.ndarray] = {}
    if distribute.is_chief(strategy):
        arrays = saved.restore({n: tuple(v.shape) for n, v in variables.items()})
    step = _shared(strategy, saved.steps()[-1] if arrays else 0)
    arrays = arrays or _arrays(state)
    shared = distribute.share(strategy, [arrays[name] for name in variables])
    with strategy.scope():
        for variable, value in zip(variables.values(), shared, strict=True):
            variable.assign(value)
    return step


def _next(iterator: Iterator, batches: Batches, step: int) -> Any:
    try:
        return next(iterator)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise ValueError(
            f"at step {step + 1} a record cannot be read: {batches.unreadable(step)}"
        ) from error
