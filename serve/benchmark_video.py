"""Times `dfdetect detect` on clips of one and of ten minutes, and their peak memory.

    python serve/benchmark_video.py [--clip=CLIP] [--minutes=1,10] [--frames=32]

Prints a table in Markdown with the machine, its load and the command. The clips repeat
the frames of CLIP; without it, those of a drawn one of 640 x 480 pixels in which
matplotlib's portrait moves. Each is judged by a process of its own, as the command does
it: a thread reads while the graph runs, so that the shares of the stages overlap.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import cv2
import numpy as np
from absl import flags

import dfdetect
from dfdetect import script
from dfdetect.cli import environment
from dfdetect.export import runtime
from dfdetect.media import source_files, video

_CLIP = flags.DEFINE_string("clip", None, "A clip to repeat; drawn by default.")
_MINUTES = flags.DEFINE_list("minutes", ["1", "10"], "Lengths of the clips.")
_FRAMES = flags.DEFINE_integer("frames", 32, "Judged of each clip, -1 for all.", -1)
_EVERY = flags.DEFINE_float("every", None, "Seconds between judged frames instead.")
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Exported graph, or a folder of its versions; by default our weights.",
)
_ONE = flags.DEFINE_string("one", None, "Measure this clip in this process alone.")

_STAGES = ("read", "wait", "graph", "tracks")
_RATE = 25


def drawn() -> Iterator[np.ndarray]:
    """BGR frames of a portrait that moves to and fro before noise, for two seconds."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    ground = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    sample = cv2.imread(source_files.find_sample())
    assert sample is not None
    portrait = cv2.resize(sample, (205, 240))
    for index in range(2 * _RATE):
        left = round(217 + 150 * np.sin(np.pi * index / _RATE))
        frame = ground.copy()
        frame[120:360, left : left + 205] = portrait
        yield frame


def repeated(minutes: float, target: pathlib.Path) -> None:
    """Writes a clip of so many minutes."""
    writer = cv2.VideoWriter()
    left = round(60 * minutes * _RATE)
    while left:
        if _CLIP.value is None:
            frames = drawn()
        else:
            reader = video.Reader(_CLIP.value, video.Sampling(count=-1))
            frames = (cv2.cvtColor(x.image, cv2.COLOR_RGB2BGR) for x in reader)
        for frame in frames:
            if not writer.isOpened():
                size = (frame.shape[1], frame.shape[0])
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                writer.open(str(target), cv2.CAP_FFMPEG, codec, _RATE, size)
            writer.write(frame)
            left -= 1
            if not left:
                break
    writer.release()


def measure_one(path: str) -> dict[str, float]:
    """Judges a clip; seconds by stage and in all, MiB, and what was found."""
    runtime.set_variables()
    runtime.use_single_malloc_arena()
    from dfdetect.export import graph_cache
    from dfdetect.pipeline import clips

    start = time.monotonic()
    model = graph_cache.load(_MODEL.value, script.say)
    thresholds = model.manifest["classifier"]["thresholds"]
    sampling = video.Sampling(_FRAMES.value, _EVERY.value)
    judge = clips.ClipJudge(model, thresholds, sampling)
    loaded = time.monotonic()
    result, problem = judge(path)
    if problem:
        raise ValueError(f"{path}: {problem}.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        **{stage: judge.seconds[stage] for stage in _STAGES},
        "start": loaded - start,
        "seconds": time.monotonic() - loaded,
        "judged": len(result["frames"]),
        "tracks found": len(result["tracks"]),
        "frames": video.count_frames(path),
        "MiB": peak / (2**20 if sys.platform == "darwin" else 2**10),
    }


def main(argv: list[str]) -> None:
    if _ONE.value:
        print(json.dumps(measure_one(_ONE.value)))
        return
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in map(float, _MINUTES.value):
            clip = pathlib.Path(folder) / "clip.mp4"
            repeated(minutes, clip)
            done = subprocess.run(
                [sys.executable, *sys.argv, f"--one={clip}"],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            rows.append((minutes, json.loads(done.stdout.splitlines()[-1])))
    print(f"dfdetect {dfdetect.__version__}.")
    print(
        f"Machine: {environment.describe_machine()}; load before the start {load:.1f}."
    )
    print(f"Command: `python {' '.join(sys.argv)}`.\n")
    shares = " | ".join(f"{stage}, share" for stage in _STAGES)
    print(
        "| minutes | frames | judged | tracks | seconds | frames/s end to end | "
        f"{shares} | peak memory, MiB |\n|{'---|' * 11}"
    )
    for minutes, found in rows:
        cells = [f"{minutes:g}", found["frames"], found["judged"]]
        cells += [found["tracks found"], f"{found['seconds']:.1f}"]
        cells += [f"{found['frames'] / found['seconds']:.1f}"]
        cells += [f"{found[stage] / found['seconds']:.0%}" for stage in _STAGES]
        cells += [f"{found['MiB']:.0f}"]
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    script.run_main(main)
