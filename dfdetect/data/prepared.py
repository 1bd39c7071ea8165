"""Prepared data sets and picture files: the only road by which pictures reach a model.

Reads folders that `datasets/prepare.py` wrote; they describe themselves, so no builder
code is needed. `classifier_input` and `detector_input` make batches of them.
"""

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import augment
from dfdetect.data.batches import NAME, Batches, Shuffled
from dfdetect.media import decode, resize


def open_builder(data_dir: str, name: str) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set.

    Raises:
        FileNotFoundError: There is none of this name.
    """
    missing = (
        f"{name} is not prepared in {data_dir}; run "
        f"python datasets/prepare.py --dataset={name} --data_dir={data_dir}"
    )
    # TFDS takes "~" and relative paths, but looks elsewhere when the folder lacks.
    if not tf.io.gfile.isdir(os.path.join(data_dir, name)):
        raise FileNotFoundError(missing)
    try:
        return tfds.builder(name, data_dir=data_dir)
    # All there is may be what a killed build has left.
    except tfds.core.DatasetNotFoundError as error:
        raise FileNotFoundError(missing) from error


def full_name(builder: tfds.core.DatasetBuilder) -> str:
    """Name of a data set as `open_builder` takes it, with its config if it has one."""
    return "/".join(filter(None, (builder.info.name, builder.info.config_name)))


def describe(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """What a manifest keeps of a data set: what tells it from others, split sizes."""
    return {
        "name": builder.info.name,
        "config": builder.info.config_name or "",
        "version": str(builder.info.version),
        "fingerprint": dict(builder.info.metadata or {}).get("fingerprint"),
        "splits": {
            split: info.num_examples for split, info in builder.info.splits.items()
        },
    }


def encoded(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    """The records of a split in order, their pictures not decoded, named by `NAME`."""
    return builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False, add_tfds_id=True),
    )


def unlabelled_training(
    paths: Sequence[str], image_sizes: Sequence[int], batch_size: int, seed: int
) -> Batches:
    """Shuffled batches of random windows of pictures, at several sizes at once.

    Returns:
        Batches with one `[B, S, S, 3]` float32 in [0, 255] for each of `image_sizes`,
        all showing the same window.
    """

    def prepare(seed: tf.Tensor, example: dict) -> tuple[tf.Tensor, ...]:
        seeds = tf.random.split(seed, 3)
        image = decode.decode_image(tf.io.read_file(example[NAME]))
        image = augment.random_crop(image, max(image_sizes), seeds[0], min_area=0.3)
        image = augment.colour(augment.flip(image, seeds[1]), seeds[2])
        return tuple(resize.resize(image, size) for size in image_sizes)

    files = tf.data.Dataset.from_tensor_slices({NAME: list(paths)})
    return Batches(Shuffled(files, seed), prepare, batch_size, seed)
