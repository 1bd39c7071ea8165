"""Measures the input of a classifier's training beside a plain `tf.data` pipeline.

    python train/benchmark_input.py --data_dir=prepared [--faces=labeled_faces]
    python train/benchmark_input.py --records=5000,50000,500000

The first prints seconds to the first batch, and images a second: of ours with each
augmentation, and of a pipeline of `tf.data` and `tf.image` alone that shuffles, decodes
and resizes, without and with random crops, mirroring and colors. CPU time counts where
a machine has other work to do.

With --records, sets of so many tiny records are drawn, and the start is measured: to
read the columns once, where `datasets/prepare.py` has not done so, and from then on.
"""

import functools
import os
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags
from tensorflow_datasets.core import naming

from dfdetect import script
from dfdetect.data import (
    classifier_input,
    prepared,
    record_columns,
    record_index,
    sampling,
)
from dfdetect.data.builders import base

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets.")
_FACES = flags.DEFINE_string("faces", "labeled_faces", "Data set of head crops.")
_AUGMENTATIONS = flags.DEFINE_multi_enum(
    "augmentations",
    ["none", "light", "forensic"],
    classifier_input.AUGMENTATIONS,
    "Augmentations of ours.",
)
_CROP_SIZE = flags.DEFINE_integer("crop_size", 299, "Side of the crops, px.", 16)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Crops of a batch.", 1)
_BATCHES = flags.DEFINE_integer("batches", 12, "Batches to measure of each.", 1)
_RECORDS = flags.DEFINE_list("records", [], "Numbers of records to measure a start at.")

_ROUNDS = 3
_IN_A_SHARD = 100_000  # Records.
_METHODS = ("youtube", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def main(argv: list[str]) -> None:
    if not _RECORDS.value and not _DATA_DIR.value:
        raise app.UsageError("--data_dir or --records must have a value.")
    tf.constant(1.0) + 1.0  # Starts TensorFlow.
    if _RECORDS.value:
        _print_starts([int(number) for number in _RECORDS.value])
    if _DATA_DIR.value:
        _print_speeds(prepared.open_builder(_DATA_DIR.value, _FACES.value))


def _print_speeds(builder: tfds.core.DatasetBuilder) -> None:
    kinds: dict[str, Callable[[], tf.data.Dataset]] = {
        "plain": lambda: _build_plain(builder, augmented=False),
        "plain, augmented": lambda: _build_plain(builder, augmented=True),
    }
    for name in _AUGMENTATIONS.value:
        kinds[name] = functools.partial(_build_ours, builder, name)
    record_columns.write_columns(builder)  # As `prepare` does.
    streams = {}
    print("| input | first batch, s | CPU s |\n|---|---|---|")
    for name, build in kinds.items():
        since, cpu_since = time.perf_counter(), time.process_time()
        streams[name] = build()
        next(iter(streams[name]))
        took, cost = time.perf_counter() - since, time.process_time() - cpu_since
        print(f"| {name} | {took:.2f} | {cost:.2f} |", flush=True)
    seconds, cpu_seconds = dict.fromkeys(streams, 0.0), dict.fromkeys(streams, 0.0)
    for _ in range(_ROUNDS):  # In turns: the machine may be busy at times.
        for name, stream in streams.items():
            # Each by itself, as what is prefetched would count for the next one.
            iterator = iter(stream)
            for _ in range(4):
                next(iterator)
            since, cpu_since = time.perf_counter(), time.process_time()
            for _ in range(_BATCHES.value):
                next(iterator)
            seconds[name] += time.perf_counter() - since
            cpu_seconds[name] += time.process_time() - cpu_since
            del iterator
    images = _ROUNDS * _BATCHES.value * _BATCH_SIZE.value
    print("\n| input | images/s | CPU ms an image | plain, augmented, over it |")
    print("|---|---|---|---|")
    for name, took in seconds.items():
        cost = 1000 * cpu_seconds[name] / images
        share = cpu_seconds["plain, augmented"] / cpu_seconds[name]
        print(f"| {name} | {images / took:.0f} | {cost:.2f} | {share:.2f} |")


def _build_ours(builder: tfds.core.DatasetBuilder, name: str) -> tf.data.Dataset:
    return classifier_input.build_training_batches(
        [builder],
        "train",
        image_size=_CROP_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        seed=0,
        augmentation=name,
    ).from_step(0)


def _build_plain(builder: tfds.core.DatasetBuilder, augmented: bool) -> tf.data.Dataset:
    """Builds what a user would write without this package."""
    size = _CROP_SIZE.value

    def prepare(example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(example["image"], 3, expand_animations=False)
        if augmented:
            start, extent, _ = tf.image.sample_distorted_bounding_box(
                tf.shape(image),
                tf.zeros([1, 0, 4]),
                aspect_ratio_range=(8 / 9, 9 / 8),
                area_range=(0.7, 1.0),
                use_image_if_no_bounding_boxes=True,
            )
            image = tf.slice(image, start, extent)
        image.set_shape([None, None, 3])
        image = tf.image.resize(image, [size, size], antialias=True)
        if augmented:
            image = tf.image.random_flip_left_right(image)
            image = tf.image.random_brightness(image, 51.0)
            image = tf.image.random_contrast(image, 0.8, 1.2)
            image = tf.clip_by_value(image, 0.0, 255.0)
            image = tf.image.random_saturation(image, 0.8, 1.2)
        return image, example["label"]

    examples = builder.as_dataset(
        split="train",
        shuffle_files=True,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    shuffled = examples.shuffle(4000).repeat().map(prepare, tf.data.AUTOTUNE)
    return shuffled.batch(_BATCH_SIZE.value).prefetch(2)


# --- Start ---


def _print_starts(numbers: list[int]) -> None:
    print("| records | columns once, s | bytes a record | start, s | MiB more |")
    print("|---|---|---|---|---|")
    for number in numbers:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            builder = _draw_records(folder, number)
            since = time.perf_counter()
            record_columns.write_columns(builder)
            once = time.perf_counter() - since
            size = sum(p.stat().st_size for p in folder.rglob("columns-*"))
            # In a process of its own, as memory is not given back.
            child = os.fork()
            if not child:
                _print_one_start(builder, number, once, size)
                os._exit(0)
            os.waitpid(child, 0)


def _print_one_start(
    builder: tfds.core.DatasetBuilder, number: int, once: float, size: int
) -> None:
    record_columns.forget()
    before, since = _measure_memory(), time.perf_counter()
    index = record_index.RecordIndex(builder, "train")
    sampler = sampling.Sampler([index.catalog], 32, seed=0, mode="balanced")
    draws = sampler.batch(0)
    index.read_several(draws.records.tolist())
    took, more = time.perf_counter() - since, _measure_memory() - before
    print(
        f"| {number:,} | {once:.1f} | {size / number:.0f} | {took:.2f} | {more} |",
        flush=True,
    )


def _measure_memory() -> int:
    """Peak memory of this process in MiB, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


class _TinyFrames(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]
):
    """Frames of 8 px with the fields of FaceForensics++."""

    VERSION = tfds.core.Version("1.0.0")
    name = "tiny_frames"

    def _info(self) -> tfds.core.DatasetInfo:
        features = base.build_labeled_features(
            method=tfds.features.Text(),
            target_id=tfds.features.Text(),
            frame=tfds.features.Scalar(tf.int64),
            time=tfds.features.Scalar(tf.float32),
        )
        return tfds.core.DatasetInfo(
            builder=self, features=features, metadata=tfds.core.MetadataDict()
        )

    def _split_generators(self, dl_manager: object) -> dict:
        return {}

    def _generate_examples(self) -> Iterator:
        yield from ()


def _draw_records(folder: pathlib.Path, number: int) -> tfds.core.DatasetBuilder:
    """Draws a prepared set; without TFDS's writer, which sorts."""
    builder = _TinyFrames(data_dir=folder)
    os.makedirs(builder.data_path)
    template = naming.ShardedFileTemplate(
        data_dir=builder.data_path,
        dataset_name=builder.name,
        split="train",
        filetype_suffix="tfrecord",
    )
    firsts = range(0, number, _IN_A_SHARD)
    image = tf.io.encode_jpeg(np.zeros([8, 8, 3], np.uint8)).numpy()
    lengths = []
    for shard, first in enumerate(firsts):
        lengths.append(min(_IN_A_SHARD, number - first))
        path = template.sharded_filepath(shard_index=shard, num_shards=len(firsts))
        with tf.io.TFRecordWriter(os.fspath(path)) as writer:
            for place in range(first, first + lengths[-1]):
                writer.write(_draw_record(builder.info.features, image, place))
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=lengths, num_bytes=0, filename_template=template
    )
    builder.info.set_splits(tfds.core.splits.SplitDict([split]))
    return builder


def _draw_record(
    features: tfds.features.FeaturesDict, image: bytes, place: int
) -> bytes:
    clip, frame = divmod(place, 32)
    pair, method = divmod(clip, len(_METHODS))
    return features.serialize_example(
        features.encode_example(
            {
                "image": image,
                "image/filename": f"{_METHODS[method]}/{pair}/{frame}.jpg",
                "label": int(method > 0),
                "group": str(pair),
                "method": _METHODS[method],
                "target_id": str(pair),
                "frame": frame,
                "time": frame / 25,
            }
        )
    )


if __name__ == "__main__":
    script.run_main(main)
