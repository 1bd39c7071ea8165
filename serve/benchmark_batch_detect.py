"""Compares `serve/batch_detect.py` in several processes with `dfdetect detect`.

    python serve/benchmark_batch_detect.py --images=IMAGES [--processes=2] [--rounds=3]

Judges the first --few and the first --count of the images with both, in turn, each from
the start of its processes to their end, and prints a table in Markdown with the
machine, its load and the command: medians of the rounds from start to end, and in the
steady state, which is what the further images take. Processor time is that of all
processes; memory is that of the largest. Also says how many result lines differ.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

import dfdetect
from dfdetect import console, script
from dfdetect.cli import environment
from dfdetect.media import source_files

_IMAGES = flags.DEFINE_string("images", None, "Folder of images.", required=True)
_COUNT = flags.DEFINE_integer("count", 400, "Images of a long run.", lower_bound=2)
_FEW = flags.DEFINE_integer("few", 100, "Images of a short run.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 2, "Of batch_detect.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Runs of each.", lower_bound=1)

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_DETECT, _BATCH = "detect", "batch_detect"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run took.

    Attributes:
        seconds: From start to end.
        processor: Seconds of processor of all processes.
        mebibytes: Peak of the largest process.
    """

    seconds: float
    processor: float
    mebibytes: float


def build_command(name: str, folder: pathlib.Path, output: pathlib.Path) -> list[str]:
    """Builds the command line of a program."""
    if name == _DETECT:
        return [sys.executable, "-m", "dfdetect", "detect", str(folder)]
    return [
        sys.executable,
        str(_ROOT / "serve" / "batch_detect.py"),
        f"--input={folder}",
        f"--output={output / 'part'}",
        "--beam_options=direct_running_mode=multi_processing,"
        f"direct_num_workers={_PROCESSES.value}",
    ]


def measure(name: str, folder: pathlib.Path) -> tuple[Run, list[str]]:
    """Runs a program; returns what it took, and its result lines sorted by path.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryDirectory() as work:
        output = pathlib.Path(work)
        with open(output / "lines.jsonl", "wb") as lines:
            start = time.monotonic()
            process = subprocess.Popen(
                build_command(name, folder, output), stdout=lines
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, console.UNREAD):
            raise RuntimeError(f"{name} failed with exit code {process.returncode}.")
        found = [
            line
            for path in output.glob("*.jsonl")
            for line in path.read_text(encoding="utf-8").split("\n")
            if line
        ]
    # In the order of their paths, which differs from that of shards.
    found.sort(key=lambda line: json.loads(line)["path"])
    processor = usage.ru_utime + usage.ru_stime
    return Run(seconds, processor, usage.ru_maxrss / 2**10), found


def link_images(folder: pathlib.Path, paths: list[str], number: int) -> pathlib.Path:
    """Makes a folder of links to the first images."""
    made = folder / str(number)
    made.mkdir()
    for place, path in enumerate(paths[:number]):
        suffix = pathlib.PurePath(path).suffix
        (made / f"{place:06d}{suffix}").symlink_to(os.path.abspath(path))
    return made


def print_table(runs: dict[tuple[str, int], list[Run]]) -> None:
    """Prints a row for each program, and how they compare."""
    few, count = _FEW.value, _COUNT.value
    print(
        f"| program | {count} images, s | images/s | processor s an image | "
        "steady: images/s | processor s an image | peak MiB a process |\n|" + "---|" * 7
    )
    whole, steady = {}, {}
    for name in (_DETECT, _BATCH):
        long, short = runs[name, count], runs[name, few]
        seconds, processor = (
            [
                statistics.median(getattr(run, what) for run in which)
                for which in (long, short)
            ]
            for what in ("seconds", "processor")
        )
        whole[name] = count / seconds[0]
        steady[name] = (count - few) / max(seconds[0] - seconds[1], 1e-9)
        print(
            f"| {name} | {seconds[0]:.1f} | {whole[name]:.1f} | "
            f"{processor[0] / count:.3f} | {steady[name]:.1f} | "
            f"{(processor[0] - processor[1]) / (count - few):.3f} | "
            f"{max(run.mebibytes for run in [*long, *short]):,.0f} |"
        )
    print(
        f"\n{_PROCESSES.value} processes judge {whole[_BATCH] / whole[_DETECT]:.2f} "
        f"times as many images a second as detect from start to end, and "
        f"{steady[_BATCH] / steady[_DETECT]:.2f} times in the steady state."
    )


def main(argv: list[str]) -> None:
    if _FEW.value >= _COUNT.value:
        raise app.UsageError("--few must be less than --count.")
    sources, _ = source_files.find_sources([os.path.expanduser(_IMAGES.value)])
    paths = [source.path for source in sources if not source.is_clip]
    if len(paths) < _COUNT.value:
        raise app.UsageError(f"--images: wanted {_COUNT.value}, got {len(paths)}.")
    runs: dict[tuple[str, int], list[Run]] = {}
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        folders = {n: link_images(work, paths, n) for n in (_FEW.value, _COUNT.value)}
        measure(_DETECT, link_images(work, paths, 1))  # Prepares the graph.
        load = os.getloadavg()[0]
        for number, images in [*folders.items()] * _ROUNDS.value:
            lines = {}
            for name in (_DETECT, _BATCH):
                run, lines[name] = measure(name, images)
                runs.setdefault((name, number), []).append(run)
                script.say(f"{name}, {number} images: {run}")
            pairs = zip(lines[_DETECT], lines[_BATCH], strict=True)
            differing = max(differing, sum(one != other for one, other in pairs))
    print(f"dfdetect {dfdetect.__version__}.")
    print(
        f"Machine: {environment.describe_machine()}; load before the start {load:.1f}, "
        f"at the end {os.getloadavg()[0]:.1f}."
    )
    print(f"Command: `python {' '.join(sys.argv)}`.\n")
    print_table(runs)
    print(f"{differing} of {_COUNT.value} result lines differ.")


if __name__ == "__main__":
    script.run_main(main)
