"""Rehearses the whole way from clips to figures on a drawn FaceForensics++.

    python train/rehearse.py --work_dir=DIR [--clips=50] [--beam]

Draws so many tiny clips in the layout of FaceForensics++ (a pair of the official split
gives two reals and eight fakes). Runs `datasets/prepare.py` in threads and, with
--beam, on Apache Beam, then `train/audit.py`, the start of a training and its
evaluation, as a user would. Prints a table of the time and the peak memory of each; the
figures of the model mean nothing.
"""

import os
import pathlib
import subprocess
import sys
import time

if __name__ == "__main__":
    from dfdetect import console

    # Before libraries are imported: their notes would bury the messages.
    console.capture()

import cv2
import numpy as np
from absl import app, flags

from dfdetect import script

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
_CLIPS_OF_PAIR = 2 + 2 * len(_METHODS)
_SHARE = 0.15  # Of the pairs, in validation and in test.

_WORK_DIR = flags.DEFINE_string("work_dir", None, "Empty folder.", required=True)
_CLIPS = flags.DEFINE_integer("clips", 50, "Clips to draw.", 30, 10_000)
_FRAMES = flags.DEFINE_integer("frames_per_video", 32, "Frames of a clip to keep.", 1)
_SIDE = flags.DEFINE_integer("side", 64, "Side of the frames, px.", 16)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of the training.", 1)
_BEAM = flags.DEFINE_bool("beam", False, "Also prepare on Beam, in two processes.")


def main(argv: list[str]) -> None:
    work_dir = pathlib.Path(_WORK_DIR.value).expanduser().resolve()
    if work_dir.exists() and any(work_dir.iterdir()):
        raise app.UsageError(f"--work_dir: {work_dir} must be empty.")
    clips = work_dir / "clips"
    count = _draw_all(clips)
    print(f"{count} clips of {_SIDE.value} px, {_FRAMES.value} frames of each\n")
    print(
        "| step | seconds | CPU seconds | MiB at most |\n|---|---|---|---|", flush=True
    )
    for name, arguments in _list_steps(work_dir, clips):
        seconds, cpu_seconds, memory = _run(arguments)
        print(f"| {name} | {seconds:.0f} | {cpu_seconds:.0f} | {memory} |", flush=True)
    size = sum(p.stat().st_size for p in (work_dir / "data").rglob("*") if p.is_file())
    print(f"\n{size / 2**20:.0f} MiB prepared")


def _list_steps(
    work_dir: pathlib.Path, clips: pathlib.Path
) -> list[tuple[str, list[str]]]:
    data, run = f"--data_dir={work_dir / 'data'}", f"--model_dir={work_dir / 'run'}"
    prepare = [
        "datasets/prepare.py",
        "--dataset=faceforensics/c23",
        f"--manual_dir={clips}",
        f"--frames_per_video={_FRAMES.value}",
    ]
    train = [
        *("train/classifier.py", data, run, "--dataset=faceforensics/c23"),
        *("--model=mesonet4", f"--image_size={_SIDE.value}", "--batch_size=32"),
        *("--sampling=pairs", f"--steps={_STEPS.value}", "--eval_every=1000000"),
    ]
    judge = ["train/evaluate.py", "--task=classify", data, run]
    audit = ["train/audit.py", data, "--dataset=faceforensics/c23"]
    on_beam = [
        *(*prepare, f"--data_dir={work_dir / 'on_beam'}", "--beam_runner=DirectRunner"),
        "--beam_options=direct_running_mode=multi_processing,direct_num_workers=2",
    ]
    return [
        ("prepare, threads", [*prepare, data]),
        *([("prepare, Beam", on_beam)] if _BEAM.value else []),
        ("audit", audit),
        (f"train {_STEPS.value} steps and validate", train),
        ("evaluate", [*judge, "--dataset=faceforensics/c23", "--resamples=200"]),
    ]


def _run(arguments: list[str]) -> tuple[float, float, int]:
    """Runs a script: seconds, CPU seconds, and peak MiB of its largest process."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    # The audit exits with 3 where it found leaks.
    if process.returncode not in (0, 3):
        raise RuntimeError(f"{arguments[0]} exited with {process.returncode}.")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return time.monotonic() - start, cpu_seconds, usage.ru_maxrss // 2**10


def _draw_all(folder: pathlib.Path) -> int:
    """Draws the clips of pairs of each split; returns their number."""
    pairs = _list_pairs()
    random = np.random.default_rng(0)
    total = _CLIPS.value // _CLIPS_OF_PAIR
    held_out = max(1, round(total * _SHARE))
    wanted = {"validation": held_out, "test": held_out, "train": total - 2 * held_out}
    count = 0
    for split, number in wanted.items():
        for pair in pairs[split][:number]:
            one, other = pair.split("_")
            color = random.integers(80, 220, 3)
            for name in (one, other):
                path = folder / "original_sequences/youtube/c23/videos" / f"{name}.mp4"
                _draw(path, color, random, is_fake=False)
            for method in _METHODS:
                for name in (pair, f"{other}_{one}"):
                    videos = folder / "manipulated_sequences" / method / "c23/videos"
                    _draw(videos / f"{name}.mp4", color, random, is_fake=True)
            count += _CLIPS_OF_PAIR
    return count


def _list_pairs() -> dict[str, list[str]]:
    """The pairs of each split of FaceForensics++."""
    text = (_ROOT / "datasets/faceforensics/official_split.txt").read_text()
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            split = line.strip("[]")
        elif not line.startswith("#"):
            found.setdefault(split, []).extend(line.split())
    return found


def _draw(
    path: pathlib.Path, color: np.ndarray, random: np.random.Generator, is_fake: bool
) -> None:
    """Draws a clip of a moving head on noise; a fake one is blurred."""
    side = _SIDE.value
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), codec, 25, (side, side))
    ground = random.integers(0, 255, (side, side, 3)).astype(np.uint8)
    for frame in range(_FRAMES.value + 8):
        image: np.ndarray = ground.copy()
        middle = (side // 2 + frame % 8 - 4, side // 2)
        cv2.ellipse(
            image, middle, (side // 4, side // 3), 0, 0, 360, color.tolist(), -1
        )
        if is_fake:
            image = cv2.GaussianBlur(image, (5, 5), 0)
        writer.write(image)
    writer.release()


if __name__ == "__main__":
    script.run_main(main)
