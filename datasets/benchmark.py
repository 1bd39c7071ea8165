"""Measures the dataset builders: decoding of clips, and memory against the data's size.

    python datasets/benchmark.py --faceforensics=DIR [--deepfake_challenge=DIR] \
        [--hollywood_heads=DIR] [--labeled_faces=DIR]

Each DIR is a folder as the builder of that name takes it. Prints the machine, its load,
and tables in Markdown. Decoding is compared in one run: one pass over a clip, as the
builder does it, against a seek to each frame. Memory is the peak of `prepare.py` over
the folder as it is, and over one with every file four times.
"""

import csv
import os
import pathlib
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import absl.logging
import cv2
from absl import app, flags

from dfdetect import script
from dfdetect.cli import environment
from dfdetect.data.builders import frames as clips
from dfdetect.media import video

_FOLDER = pathlib.Path(__file__).resolve().parent
_COPIES = 4

_FRAMES = flags.DEFINE_integer("frames_per_video", 32, "Frames of a clip.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs; the median counts.", 1)
_SOURCES = {
    name: flags.DEFINE_string(name, None, f"Source folder of {name}.")
    for name in (
        "faceforensics",
        "deepfake_challenge",
        "hollywood_heads",
        "labeled_faces",
    )
}


def by_pass(path: str, indices: list[int]) -> int:
    """Counts frames read in one pass."""
    return sum(1 for _ in video.read_frames(path, indices))


def by_building(path: str, indices: list[int]) -> int:
    """Counts frames read in one pass and encoded as PNG, as the builder does it."""
    frames = clips.encode_frames(path, _FRAMES.value, "png").frames
    return sum(1 for _ in frames)


def by_seeking(path: str, indices: list[int]) -> int:
    """Counts frames read with a seek to each."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = 0
    for index in indices:
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        count += capture.read()[0]
    capture.release()
    return count


def decoding(folder: str) -> None:
    """Prints frames a second of the ways to read the clips of a folder."""
    wanted = {
        str(clip): video.bin_centers(video.count_frames(clip), _FRAMES.value)
        for clip in sorted(pathlib.Path(folder).rglob("*.mp4"))
    }
    rates = {}
    for name, read in (
        ("one pass", by_pass),
        ("one pass, and PNG", by_building),
        ("seeking", by_seeking),
    ):
        measured = []
        for _ in range(_REPEATS.value):
            start = time.monotonic()
            count = sum(read(clip, indices) for clip, indices in wanted.items())
            measured.append(count / (time.monotonic() - start))
        rates[name] = sorted(measured)[len(measured) // 2]
    print(f"\n{len(wanted)} clips, {_FRAMES.value} frames each, one thread.\n")
    print("| way to read | frames/s | ratio |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / rates['seeking']:.1f} |")


# --- Memory ---


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def multiply_faceforensics(source: pathlib.Path, target: pathlib.Path) -> None:
    """Links clips under the names of other pairs of the official split."""
    lines = (_FOLDER / "faceforensics" / "official_split.txt").read_text().splitlines()
    pairs = [p for line in lines if line[0].isdecimal() for p in line.split()]
    folders: dict[pathlib.Path, int] = {}
    for clip in sorted(source.rglob("*.mp4")):
        folder = clip.parent.relative_to(source)
        for _ in range(_COPIES):
            pair = pairs[folders.setdefault(folder, 0)]
            folders[folder] += 1
            stem = pair.split("_")[0] if len(clip.stem) == 3 else pair
            _link(clip, target / folder / f"{stem}.mp4")


def multiply_deepfake_challenge(source: pathlib.Path, target: pathlib.Path) -> None:
    for image in source.glob("[01]-*/*"):
        for copy in range(_COPIES):
            _link(image, target / image.parent.name / f"{copy}_{image.name}")


def multiply_hollywood_heads(source: pathlib.Path, target: pathlib.Path) -> None:
    for path in source.glob("Splits/*.txt"):
        stems = path.read_text().split()
        copies = [
            (f"copy{copy}_{stem}", stem) for stem in stems for copy in range(_COPIES)
        ]
        (target / "Splits").mkdir(parents=True, exist_ok=True)
        (target / "Splits" / path.name).write_text("\n".join(c for c, _ in copies))
        for name, stem in copies:
            for folder, ending in (("JPEGImages", ".jpeg"), ("Annotations", ".xml")):
                part = source / folder / f"{stem}{ending}"
                _link(part, target / folder / f"{name}{ending}")


def multiply_labeled_faces(source: pathlib.Path, target: pathlib.Path) -> None:
    target.mkdir(parents=True)
    with (
        open(source / "labels.csv", newline="", encoding="utf-8") as before,
        open(target / "labels.csv", "w", newline="", encoding="utf-8") as after,
    ):
        rows = csv.DictReader(before)
        writer = csv.DictWriter(after, rows.fieldnames or ())
        writer.writeheader()
        for row in rows:
            for copy in range(_COPIES):
                path = f"{copy}/{row['path']}"
                group = f"{copy}/{row['group']}" if row["group"] else ""
                writer.writerow({**row, "path": path, "group": group})
                _link(source / row["path"], target / path)


def peak(dataset: str, source: pathlib.Path, data_dir: pathlib.Path) -> float:
    """Measures the peak memory of `prepare.py` in MiB."""
    # A process of its own, whose only child it is: the peak is that of all children.
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL,\n"
        "    stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        sys.executable,
        str(_FOLDER / "prepare.py"),
        f"--dataset={dataset}",
        f"--manual_dir={source}",
        f"--data_dir={data_dir}",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def memory(sources: dict[str, pathlib.Path]) -> None:
    """Prints the peak memory of each builder over its source, once and four times."""
    multiply = {
        "faceforensics": multiply_faceforensics,
        "deepfake_challenge": multiply_deepfake_challenge,
        "hollywood_heads": multiply_hollywood_heads,
        "labeled_faces": multiply_labeled_faces,
    }
    print("\n| builder | records | MiB, 1x | MiB, 4x | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        once, often = (pathlib.Path(folder) / name for name in ("once", "often"))
        for name, source in sources.items():
            many = pathlib.Path(folder) / "sources" / name
            multiply[name](source, many)
            dataset = f"{name}/c23" if name == "faceforensics" else name
            _print_peaks(dataset, (source, once), (many, often))
        if {"faceforensics", "deepfake_challenge"} & set(sources):
            _print_peaks("cvcs/full", (once, once), (often, often))


def _print_peaks(
    dataset: str,
    once: tuple[pathlib.Path, pathlib.Path],
    often: tuple[pathlib.Path, pathlib.Path],
) -> None:
    small, large = peak(dataset, *once), peak(dataset, *often)
    ratio = f"{large / small:.2f}"
    records = " and ".join(f"{_num_records(dataset, d):,}" for _, d in (once, often))
    print(
        f"| {dataset} | {records} | {small:.0f} | {large:.0f} | {ratio} |", flush=True
    )


def _num_records(dataset: str, data_dir: pathlib.Path) -> int:
    import tensorflow_datasets as tfds

    splits = tfds.builder(dataset, data_dir=data_dir).info.splits
    return sum(split.num_examples for split in splits.values())


def main(argv: list[str]) -> None:
    given = {
        name: pathlib.Path(flag.value) for name, flag in _SOURCES.items() if flag.value
    }
    if not given:
        raise app.UsageError("name a source folder at least")
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS talks of itself.
    print(
        f"{environment.describe_machine()}, OpenCV {cv2.__version__}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    if "faceforensics" in given:
        decoding(str(given["faceforensics"]))
    memory(given)


if __name__ == "__main__":
    script.run_main(main)
