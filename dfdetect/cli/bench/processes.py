"""Costs of whole processes: start and peak memory."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

_DETECT = (sys.executable, "-m", "dfdetect", "detect")
_IMPORT = (sys.executable, "-c", "import tensorflow; print(0)")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Time, memory and output of a process.

    Attributes:
        first_line: Seconds until its first line was printed.
        seconds: Seconds until it ended.
        peak: Peak memory in MiB.
        lines: Lines that it printed.
    """

    first_line: float
    seconds: float
    peak: float
    lines: list[str]


def run_process(command: Sequence[str]) -> Cost:
    """Runs a command to its end.

    Raises:
        RuntimeError: It failed, or printed nothing.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=messages, text=True
        )
        assert process.stdout is not None
        first, lines = 0.0, []
        for line in process.stdout:
            first = first or time.monotonic() - start
            lines.append(line)
        # Usage of that process alone; `resource` gives the peak of all children. Linux
        # counts what this process had when it forked, which should be little.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        messages.seek(0)
        said = messages.read().strip().splitlines()
    if process.returncode or not lines:
        raise RuntimeError(
            f"{' '.join(command[:4])} failed with exit code {process.returncode}: "
            f"{said[-1] if said else 'it said nothing'}"
        )
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(first, seconds, usage.ru_maxrss / per_mib, lines)


def time_cold_start(image: str, rounds: int) -> dict[str, float]:
    """Times `import tensorflow`, and `dfdetect detect` until its first verdict.

    An untimed round fills the file cache and the cache of the default weights' graph.

    Args:
        image: File to judge.
        rounds: Number of timed rounds, each of both in turn.

    Returns:
        Median seconds of both, and as `ratio` the median of the rounds' ratios.
    """
    commands = {"import tensorflow": _IMPORT, "dfdetect detect": (*_DETECT, image)}
    took: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(1 + rounds):
        for name, command in commands.items():
            cost = run_process(command)
            if turn:
                took[name].append(cost.first_line)
    ratios = [one / base for base, one in zip(*took.values(), strict=True)]
    return {
        **{name: statistics.median(seconds) for name, seconds in took.items()},
        "ratio": statistics.median(ratios),
    }


def measure_detect(folder: str, batch_size: int) -> dict[str, float]:
    """Measures `dfdetect detect` on a folder: images, heads, seconds and MiB."""
    cost = run_process((*_DETECT, folder, f"--batch_size={batch_size}"))
    answers = [json.loads(line) for line in cost.lines]
    return {
        "images": len(answers),
        "heads": sum(len(answer["heads"]) for answer in answers),
        "first": cost.first_line,
        "seconds": cost.seconds,
        "peak": cost.peak,
    }
