"""Opens, names, describes and reads prepared data sets.

Reads folders that `datasets/prepare.py` wrote; they describe themselves, so no builder
code is needed. `classifier_input` and `detector_input` make batches of them.
"""

import os
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data.batches import WHOLE, Share


def open_builder(data_dir: str, name: str) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set.

    Raises:
        FileNotFoundError: No data set of this name is prepared.
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


def name_dataset(builder: tfds.core.DatasetBuilder) -> str:
    """Returns the name of a data set as `open_builder` takes it, with its config."""
    return "/".join(filter(None, (builder.info.name, builder.info.config_name)))


def describe_dataset(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """Describes a data set for a manifest: name, version, fingerprint, split sizes."""
    return {
        "name": builder.info.name,
        "config": builder.info.config_name or "",
        "version": str(builder.info.version),
        "fingerprint": dict(builder.info.metadata or {}).get("fingerprint"),
        "splits": {
            split: info.num_examples for split, info in builder.info.splits.items()
        },
    }


def read_encoded(
    builder: tfds.core.DatasetBuilder,
    split: str,
    first: int = 0,
    last: int | None = None,
) -> tf.data.Dataset:
    """Reads the records of a split in order, with encoded images and `NAME`.

    The order is that of the files, one after the other, as in `record_index`.

    Args:
        builder: A prepared data set.
        split: One of its splits.
        first: The first record to read.
        last: The record before which to stop, above `first`; by default the end.
    """
    if first or last is not None:
        split = f"{split}[{first}:{'' if last is None else last}]"
    return builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(
            try_autocache=False, add_tfds_id=True, interleave_cycle_length=1
        ),
    )


def read_chosen(
    builder: tfds.core.DatasetBuilder,
    split: str,
    wanted: np.ndarray | None = None,
    *,
    share: Share = WHOLE,
    batch_size: int = 1,
) -> tf.data.Dataset:
    """Reads the chosen records of a split in order, or a worker's share of them.

    Args:
        builder: A prepared data set.
        split: One of its splits.
        wanted: `[N]` bool, the records to read; all by default.
        share: Which of the workers this is. Each gets batches that follow one another,
            the first worker the first ones, and reads no more than these.
        batch_size: Chosen records of a batch, which is not divided.
    """
    if share.count == 1:
        return _choose(read_encoded(builder, split), wanted)
    total = builder.info.splits[split].num_examples
    places = np.arange(total) if wanted is None else np.flatnonzero(wanted)
    num_batches = -(-len(places) // batch_size)
    first, last = (
        -(-num_batches * place // share.count) * batch_size
        for place in (share.place, share.place + 1)
    )
    mine = places[first:last]
    if not len(mine):
        return read_encoded(builder, split).take(0)  # TFDS refuses empty slices.
    start, stop = int(mine[0]), int(mine[-1]) + 1
    return _choose(
        read_encoded(builder, split, start, stop),
        None if wanted is None else wanted[start:stop],
    )


def _choose(examples: tf.data.Dataset, wanted: np.ndarray | None) -> tf.data.Dataset:
    """Keeps the examples where `wanted` `[N]` is true, in order; None keeps all."""
    if wanted is None:
        return examples
    chosen = tf.data.Dataset.from_tensor_slices(wanted)
    kept = tf.data.Dataset.zip(examples, chosen).filter(lambda _, keep: keep)
    return kept.map(lambda example, _: example)
