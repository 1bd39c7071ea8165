"""Measures what a training example costs out of kept frames, and out of clips.

    python datasets/benchmark_examples.py --clips=DIR

DIR is a folder of clips, such as those of FaceForensics++. Prints the machine, its
load, and two tables in Markdown: CPU time and bytes on disk of an example (a crop of
299 px) of each origin; and how many clips a batch mixes if its examples come out of
clips that are decoded one after the other into a shuffle buffer, by a simulation.
"""

import functools
import os
import pathlib
import random
import time
from collections.abc import Callable, Iterable, Iterator

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import av
import numpy as np
import tensorflow as tf
from absl import app, flags

from dfdetect import boxes, script
from dfdetect.cli import environment
from dfdetect.data.builders import frames as clips
from dfdetect.media import decode, resize, video

_CLIPS = flags.DEFINE_string("clips", None, "Folder of MP4 clips.", required=True)
_FRAMES = flags.DEFINE_integer("frames_per_video", 32, "Frames of a clip.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs; the median counts.", 1)

# A head in the middle, a third of the frame high.
_BOX = tf.constant([[1 / 3, 0.4, 2 / 3, 0.6]])
_MARGIN = 1.3
_CROP_SIZE = 299
_SOUGHT = 8  # Frames of a clip that are sought: a seek takes long.

_BATCH = 32
_NUM_BATCHES = 200
_SET_CLIPS = 6_000  # Those of FaceForensics++: the originals and five methods.

Way = tuple[str, float, Callable[[], Iterable[tf.Tensor]]]


def main(argv: list[str]) -> None:
    paths = [str(clip) for clip in sorted(pathlib.Path(_CLIPS.value).rglob("*.mp4"))]
    if not paths:
        raise app.UsageError(f"--clips: no .mp4 in {_CLIPS.value}")
    print(
        f"{environment.describe_machine()}; load {os.getloadavg()[0]:.1f}\n\n"
        f"{len(paths)} clips, {_FRAMES.value} frames of each kept\n\n"
        "| example out of | CPU ms | kB on disk a clip |\n|---|---|---|"
    )
    for name, size, read in _list_ways(paths):
        milliseconds, kilobytes = _measure(read), size / len(paths) / 1e3
        print(f"| {name} | {milliseconds:.1f} | {kilobytes:,.0f} |", flush=True)
    print(f"\n| frames of a clip | crops in the buffer | MiB | clips in {_BATCH} |")
    print("|---|---|---|---|")
    for count, buffer in ((1, 1), (8, 2_000), (32, 2_000), (32, 10_000), (400, 10_000)):
        mebibytes = buffer * 3 * _CROP_SIZE**2 / 2**20
        mixed = _count_mixed(count, buffer)
        print(f"| {count} | {buffer:,} | {mebibytes:,.0f} | {mixed:.1f} |")


def _list_ways(paths: list[str]) -> list[Way]:
    """Lists name, bytes on disk and reader of each origin of examples."""
    kept = {
        name: [
            file
            for path in paths
            for *_, file in clips.encode_frames(path, _FRAMES.value, name).frames
        ]
        for name in ("png", "jpeg")
    }
    heads = [_keep_head(frame) for frame in kept["png"]]
    jpegs, pngs = kept["jpeg"], kept["png"]
    of_clips = sum(os.path.getsize(path) for path in paths)
    count = _FRAMES.value
    ways: list[Way] = [
        ("heads, kept as PNG", _sum_bytes(heads), lambda: map(_resize, heads)),
        ("frames, kept as JPEG", _sum_bytes(jpegs), lambda: map(_cut_file, jpegs)),
        ("frames, kept as PNG", _sum_bytes(pngs), lambda: map(_cut_file, pngs)),
        ("clips, a seek to each frame", of_clips, lambda: _seek(paths)),
    ]
    return ways + [
        (name, of_clips, functools.partial(_read_pass, paths, frames))
        for name, frames in (
            ("clips, 8 frames in one pass", 8),
            (f"clips, {count} frames in one pass", count),
            ("clips, all frames in one pass", -1),
        )
    ]


def _sum_bytes(files: list[bytes]) -> int:
    return sum(map(len, files))


def _measure(read: Callable[[], Iterable[tf.Tensor]]) -> float:
    """Measures CPU milliseconds an example, of all threads; the median of the runs."""
    next(iter(read()))  # Builds the graph.
    measured = []
    for _ in range(_REPEATS.value):
        start = time.process_time()
        count = sum(1 for _ in read())
        measured.append((time.process_time() - start) / count * 1e3)
    return sorted(measured)[len(measured) // 2]


# --- Where examples come from ---


@tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
def _cut(image: tf.Tensor) -> tf.Tensor:
    return resize.crop_heads(image, _BOX, _CROP_SIZE, _MARGIN)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _cut_file(file: tf.Tensor) -> tf.Tensor:
    image = decode.decode_image(file)
    return resize.crop_heads(image, _BOX, _CROP_SIZE, _MARGIN)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _resize(file: tf.Tensor) -> tf.Tensor:
    return resize.resize(decode.decode_image(file), _CROP_SIZE)


def _keep_head(frame: bytes) -> bytes:
    """Cuts the head out of a frame, at its own resolution, as `crop_heads.py` does."""
    image = decode.decode_image(tf.constant(frame)).numpy()
    height, width = image.shape[:2]
    y, x, side = boxes.square_crops(_BOX, height, width, _MARGIN).numpy()[0]
    return clips.encode_image(image[y : y + side, x : x + side], "png")


def _read_pass(paths: list[str], count: int) -> Iterator[tf.Tensor]:
    for path in paths:
        for frame in video.Reader(path, video.Sampling(count)):
            yield _cut(frame.image)


def _seek(paths: list[str]) -> Iterator[tf.Tensor]:
    """Opens a clip for each frame, as where frames are drawn from all clips."""
    for path in paths:
        for place in range(_SOUGHT):
            with av.open(path) as clip:
                stream = clip.streams.video[0]
                stream.thread_type = "NONE"
                wanted = int((place + 0.5) / _SOUGHT * (stream.duration or 0))
                clip.seek(wanted, stream=stream)
                shown = (x for x in clip.decode(stream) if (x.pts or 0) >= wanted)
                yield _cut(next(shown).to_ndarray(format="rgb24"))


# --- How examples mix ---


def _count_mixed(count: int, buffer: int) -> float:
    """Simulates how many different clips a batch has behind a shuffle buffer.

    Args:
        count: Frames of a clip that come one after the other.
        buffer: Crops that the buffer holds.
    """
    drawn = np.random.default_rng(0)
    total = buffer + _NUM_BATCHES * _BATCH
    order = drawn.permutation(_SET_CLIPS)
    stream = iter(order[np.arange(total) // count % _SET_CLIPS])
    held = [next(stream) for _ in range(buffer)]
    random.Random(0).shuffle(held)
    mixed = []
    for _ in range(_NUM_BATCHES):
        batch = set()
        for place in drawn.integers(buffer, size=_BATCH):
            batch.add(held[place])
            held[place] = next(stream)
        mixed.append(len(batch))
    return float(np.mean(mixed))


if __name__ == "__main__":
    script.run_main(main)
