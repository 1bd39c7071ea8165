"""Progress of a training: a bar on a terminal, else lines in a log."""

import datetime
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import tqdm

from dfdetect import console

_log = logging.getLogger(__name__)


class TrainingProgress:
    """Counts and shows steps and time of a training, without its evaluations.

    Args:
        step: Steps done.
        steps: Steps in all.
        batch_size: Images per step.
        shown: Whether this process shows progress.
    """

    def __init__(self, step: int, steps: int, batch_size: int, shown: bool) -> None:
        self._steps = steps
        self._batch_size = batch_size
        self._shown = shown
        self._bar = (
            tqdm.tqdm(
                total=steps,
                initial=step,
                unit="step",
                file=console.stream(),
                dynamic_ncols=True,
            )
            if shown and console.stream().isatty()
            else None
        )
        self._begin(step)

    def advance(self) -> None:
        """Counts a step that is done."""
        if self._bar is not None:
            self._bar.update(1)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of its block as waiting for input."""
        since = time.perf_counter()
        yield
        self._waited += time.perf_counter() - since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of its block from training."""
        since = time.perf_counter()
        yield
        self._since += time.perf_counter() - since

    def announce_first(self, step: int) -> None:
        """Says that a first step begins, and why it takes longer than all others."""
        self.say("building the graph of the training step; step %d takes longest", step)

    def report_first(self, step: int, figures: Mapping[str, float]) -> None:
        """Shows the figures of a first step, and leaves its time out of the speed."""
        took = time.perf_counter() - self._since
        if self._bar is not None:
            self._bar.set_postfix_str(format_figures({"loss": figures["loss"]}))
        elif self._shown:
            text = format_figures(figures)
            _log.info("step %d/%d %s after %.1f s", step, self._steps, text, took)
        self._begin(step)

    def report(self, step: int, figures: Mapping[str, float]) -> dict[str, float]:
        """Shows the figures of a step.

        Returns:
            The speed since the previous report: `images_per_second`, and
            `input_wait_share`, the share of time spent waiting for input.
        """
        took = max(time.perf_counter() - self._since, 1e-9)
        speed = {
            "images_per_second": (step - self._from_step) * self._batch_size / took,
            "input_wait_share": self._waited / took,
        }
        left = took / max(step - self._from_step, 1) * (self._steps - step)
        text = format_figures({**figures, **speed})
        if self._bar is not None:
            brief = {"loss": figures["loss"], "images/s": speed["images_per_second"]}
            self._bar.set_postfix_str(format_figures(brief))
        elif self._shown:
            left_text = datetime.timedelta(seconds=round(left))
            _log.info("step %d/%d %s left %s", step, self._steps, text, left_text)
        self._begin(step)
        return speed

    def say(self, message: str, *values: object) -> None:
        """Writes a line to the log, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(message % values, file=console.stream())
        elif self._shown:
            _log.info(message, *values)

    def close(self) -> None:
        """Closes the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _begin(self, step: int) -> None:
        self._from_step = step
        self._waited = 0.0
        self._since = time.perf_counter()


def format_figures(figures: Mapping[str, float]) -> str:
    """Formats figures as "name value name value", four digits each."""
    return " ".join(f"{name} {value:.4g}" for name, value in figures.items())
