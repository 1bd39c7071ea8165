"""The work behind `dfdetect bench`: measures and prints the tables."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator

import dfdetect
from dfdetect.cli import environment
from dfdetect.cli.bench import processes, tables
from dfdetect.media import samples

_MAIN_BATCH = 8
_BATCHES_TO_WARM = 4


def run_benchmark(arguments: argparse.Namespace) -> None:
    """Measures what is requested and prints each table as soon as it is known.

    Raises:
        RuntimeError: A process that is measured failed.
    """
    load = os.getloadavg()[0]
    print(f"dfdetect {dfdetect.__version__}.")
    print(
        f"Machine: {environment.describe_machine()}; load before the start {load:.1f}."
    )
    print(f"Command: `dfdetect {' '.join(arguments.command_line)}`.")
    print(
        f"Drawn JPEGs of {arguments.width[0]} px; "
        f"medians of {arguments.rounds} rounds.\n",
        flush=True,
    )
    for threads in arguments.threads:
        if len(arguments.threads) > 1 or threads:
            print(f"TensorFlow with {threads or 'its own choice of'} threads:\n")
        _print_lines(
            tables.format_graph(_measure_in_process(arguments, threads), _MAIN_BATCH)
        )
    if arguments.start:
        _print_lines(_measure_processes(arguments))


def _measure_in_process(arguments: argparse.Namespace, threads: int) -> tables.Rows:
    """Measures the rows of `worker` with the given number of threads."""
    settings = {
        "threads": threads,
        "main_batch": _MAIN_BATCH,
        **{
            name: getattr(arguments, name)
            for name in ("detector", "classifier", "image_size", "rounds")
        },
        "precisions": arguments.precision,
        "batch_sizes": arguments.batch_size,
        "heads": arguments.heads,
        "widths": arguments.width,
        "compare": arguments.compare,
    }
    command = [sys.executable, "-m", "dfdetect.cli.bench.worker", json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the measuring process ended with {done.returncode}.")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer


def _measure_processes(arguments: argparse.Namespace) -> Iterator[str]:
    """Measures start and memory with the default weights; returns the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        count = _BATCHES_TO_WARM * max(arguments.batch_size)
        drawn = samples.draw_portraits(count, 1, arguments.width[0])
        for place, content in enumerate(drawn):
            (folder / f"{place:05d}.jpg").write_bytes(content)
        start = processes.time_cold_start(str(folder / "00000.jpg"), arguments.start)
        runs = {
            size: processes.measure_detect(name, size) for size in arguments.batch_size
        }
    return tables.format_processes(start, runs)


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)
