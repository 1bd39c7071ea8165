"""Measures the start of a training on many records.

    python train/benchmark_starts.py [--records=5000,50000,500000] [--sampling=pairs]

Draws sets of `--records` tiny records with the fields of FaceForensics++. Their
columns are made once, as `datasets/prepare.py` does; then each start reads the records
of a first batch. Prints a table of the time and memory of both.
"""

import multiprocessing
import os
import pathlib
import resource
import tempfile
import time
from collections.abc import Iterator

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags
from tensorflow_datasets.core import naming

from dfdetect import script
from dfdetect.data import record_columns, record_index, sampling
from dfdetect.data.builders import base

_RECORDS = flags.DEFINE_list(
    "records", ["5000", "50000", "500000"], "Numbers of records to draw."
)
_SAMPLING = flags.DEFINE_list(
    "sampling", ["balanced", "pairs"], f"Modes, of {', '.join(sampling.MODES)}."
)

_BATCH_SIZE = 32
_IN_A_SHARD = 100_000  # Records.
_METHODS = ("youtube", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


@flags.validator(_RECORDS, "must be whole numbers above 0")
def _are_numbers(texts: list[str]) -> bool:
    return all(text.isdecimal() and int(text) for text in texts)


@flags.validator(_SAMPLING, f"must be of {', '.join(sampling.MODES)}")
def _are_modes(names: list[str]) -> bool:
    return {*names} <= {*sampling.MODES}


def main(argv: list[str]) -> None:
    tf.constant(1.0) + 1.0  # Starts TensorFlow.
    print("| records | columns, s | bytes a record | sampling | start, s | MiB more |")
    print("|---|---|---|---|---|---|", flush=True)
    for number in map(int, _RECORDS.value):
        with tempfile.TemporaryDirectory() as folder:
            _print_starts(pathlib.Path(folder), number)


def _print_starts(folder: pathlib.Path, number: int) -> None:
    builder = _draw_records(folder, number)
    since = time.perf_counter()
    record_columns.write_columns(builder)
    once = time.perf_counter() - since
    size = sum(path.stat().st_size for path in folder.rglob("columns-*")) / number
    for mode in _SAMPLING.value:
        row = f"| {number:,} | {once:.1f} | {size:.0f} | {mode} |"
        # In a process of its own, as memory is not given back.
        process = multiprocessing.get_context("fork").Process(
            target=_print_start, args=(row, builder, mode)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"The start exited with {process.exitcode}.")


def _print_start(row: str, builder: tfds.core.DatasetBuilder, mode: str) -> None:
    """Prints seconds to the records of a first batch, and MiB more than before."""
    record_columns.forget()
    before, since = _measure_memory(), time.perf_counter()
    index = record_index.RecordIndex(builder, "train")
    sampler = sampling.Sampler([index.catalog], _BATCH_SIZE, seed=0, mode=mode)
    draws = sampler.batch(0)
    index.read_several(draws.records.tolist())
    took, more = time.perf_counter() - since, _measure_memory() - before
    print(f"{row} {took:.2f} | {more} |", flush=True)


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
