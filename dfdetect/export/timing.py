"""Times calls in turns."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from dfdetect import console

_Key = TypeVar("_Key", bound=Hashable)
_LEAST_GAIN = 0.05  # Less is within the noise of a machine.


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds that a call took: the median and the least of all rounds."""

    median: float
    best: float


def time_in_turns(
    cases: Mapping[_Key, Callable[[], object]],
    rounds: int,
    *,
    say: Callable[[str], None],
    warm_up: int = 2,
) -> dict[_Key, Timing]:
    """Calls each case once a round, so that other load on the machine affects all.

    Args:
        cases: Calls by name; each returns when its result is computed.
        rounds: Number of timed rounds.
        say: Prints a line.
        warm_up: Number of untimed rounds before them, which trace and fill caches.
    """
    took: dict[_Key, list[float]] = {key: [] for key in cases}
    with console.Progress(warm_up + rounds, say, noun="round") as shown:
        for turn in range(warm_up + rounds):
            for key, call in cases.items():
                start = time.perf_counter()
                call()
                if turn >= warm_up:
                    took[key].append(time.perf_counter() - start)
            shown.count("warm-up" if turn < warm_up else "timed")
    return {
        key: Timing(statistics.median(seconds), min(seconds))
        for key, seconds in took.items()
    }


def is_clearly_faster(seconds: float, other_seconds: float) -> bool:
    """Returns whether one call beats another by a twentieth of its time at least."""
    return seconds < (1 - _LEAST_GAIN) * other_seconds
