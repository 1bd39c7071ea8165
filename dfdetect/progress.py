"""How far a long command is, for the person who waits for it."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable

import tqdm

from dfdetect import console

_SECONDS_BETWEEN_LINES = 30  # where there is no terminal for a bar


class Progress:
    """A bar on a terminal, elsewhere a line now and then, and a summary at the end.

    Args:
        total: Items in all.
        say: Prints a line.
        noun: What one item is.
        done: Items that an earlier run has finished.
        note: What else the summary says, or "".
    """

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        noun: str = "file",
        done: int = 0,
        note: str = "",
    ) -> None:
        self._total = total
        self._say = say
        self._noun = noun
        self._note = f"; {note}" if note else ""
        self._before = self._done = done
        self._outcomes: Counter[str] = Counter()
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            initial=done,
            unit=noun,
            file=console.stream(),
            disable=total < 2 or not console.stream().isatty(),
            leave=False,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self._bar.close()
        if kind is None:
            number = self._done - self._before
            outcomes = ", ".join(f"{n} {name}" for name, n in self._outcomes.items())
            noun = self._noun if number == 1 else f"{self._noun}s"
            self._say(
                f"{number} {noun}: {outcomes or 'none left'}{self._note}; "
                f"{self._speed()}"
            )

    def paused(self) -> contextlib.AbstractContextManager:
        """While it lasts, others may write to the terminal."""
        return tqdm.tqdm.external_write_mode(console.stream())

    def count(self, outcome: str, number: int = 1) -> None:
        """One item more, or several, and what became of them."""
        self._done += number
        self._outcomes[outcome] += number
        self._bar.update(number)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._say(f"{self._done} of {self._total} {self._noun}s; {self._speed()}")

    def _speed(self) -> str:
        seconds = time.monotonic() - self._start
        speed = (self._done - self._before) / max(seconds, 1e-3)
        return f"{seconds:.1f} s, {speed:.1f} {self._noun}s/s"
