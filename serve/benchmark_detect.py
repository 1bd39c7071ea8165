"""Times `dfdetect detect` as a person runs it: one process from start to end.

    python serve/benchmark_detect.py [--images=FOLDER] [--model=DIR]

Prints a table in Markdown with the machine, its load and the command. Without --images,
the pictures are drawn: 640 x 480 JPEGs of noise with matplotlib's portrait in them once
to three times.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np
from absl import flags

import dfdetect
from dfdetect import files, machine, script

_IMAGES = flags.DEFINE_string("images", None, "Folder of pictures; drawn by default.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 100, "Pictures.", lower_bound=2)
_MODEL = flags.DEFINE_string("model", None, "Exported graph; by default our weights.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Pictures judged at once.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the drawn pictures.")


def draw(folder: pathlib.Path, num_images: int, seed: int) -> None:
    """Draws JPEGs of 640 x 480 with one to three portraits in each."""
    rng = np.random.default_rng(seed)
    portrait = cv2.imread(files.sample())
    for i in range(num_images):
        noise = rng.integers(0, 256, (12, 16, 3), np.uint8)
        canvas = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
        for place in range(rng.integers(1, 4)):
            height = int(rng.integers(120, 240))
            width = height * portrait.shape[1] // portrait.shape[0]
            top = int(rng.integers(0, 480 - height))
            left = 213 * place + int(rng.integers(0, 213 - width + 1))
            canvas[top : top + height, left : left + width] = cv2.resize(
                portrait, (width, height), interpolation=cv2.INTER_AREA
            )
        cv2.imwrite(str(folder / f"{i:05d}.jpg"), canvas)


def measure(command: list[str], paths: list[str]) -> dict[str, float]:
    """Runs the command over `paths`; seconds and MiB by the name of the figure."""
    start = time.monotonic()
    process = subprocess.Popen(
        [*command, *paths], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first, heads, answers = 0.0, 0, 0
    for line in process.stdout:
        first = first or time.monotonic() - start
        heads += len(json.loads(line)["heads"])
        answers += 1
    messages = process.stderr.read()
    code = process.wait()
    total = time.monotonic() - start
    if code or answers != len(paths):
        raise RuntimeError(f"{answers} answers, exit code {code}: {messages}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "pictures": answers,
        "heads": heads,
        "seconds to the first result": first,
        "seconds in all": total,
        "pictures/s in all": answers / total,
        # Lines come in batches; the first batch also pays for start and tracing.
        "pictures/s after the first result": (answers - 1) / (total - first),
        "peak memory, MiB": peak / (1 if sys.platform == "darwin" else 1024),
    }


def main(argv: list[str]) -> None:
    command = [sys.executable, "-m", "dfdetect.cli", "detect"]
    shown = "dfdetect detect"
    for name, value in (("model", _MODEL.value), ("batch_size", _BATCH_SIZE.value)):
        if value is not None:
            command.append(f"--{name}={value}")
            shown += f" --{name}={value}"
    with tempfile.TemporaryDirectory() as drawn:
        if _IMAGES.value is None:
            draw(pathlib.Path(drawn), _NUM_IMAGES.value, _SEED.value)
        sources, _ = files.find([_IMAGES.value or drawn])
        paths = [source.path for source in sources[: _NUM_IMAGES.value]]
        load = os.getloadavg()[0]
        figures = measure(command, paths)
    print(f"dfdetect {dfdetect.__version__}.")
    print(f"Machine: {machine.description()}; load before the start {load:.1f}.")
    origin = "drawn" if _IMAGES.value is None else "given"
    print(f"Command: `{shown} PATH...`, {len(paths)} {origin} pictures.\n")
    print("| figure | value |\n|---|---|")
    for name, value in figures.items():
        text = str(value) if isinstance(value, int) else f"{value:.2f}"
        print(f"| {name} | {text} |")


if __name__ == "__main__":
    script.run(main)
