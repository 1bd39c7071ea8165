"""Opens, names, describes and reads prepared data sets.

Reads folders that `datasets/prepare.py` wrote; they describe themselves, so no builder
code is needed. `classifier_input` and `detector_input` make batches of them.
"""

import os
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds


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


def read_encoded(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    """Reads the records of a split in order, with encoded images and `NAME`.

    The order is that of the files, one after the other, as in `record_index`.
    """
    return builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(
            try_autocache=False, add_tfds_id=True, interleave_cycle_length=1
        ),
    )
