"""One pass over a prepared data set."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import images
from dfdetect.audit import near_duplicates, no_pixels
from dfdetect.audit.survey import PROVENANCE, Survey


def scan(builder: tfds.core.DatasetBuilder, count: Callable[[str], None]) -> Survey:
    """Looks at every record of every split.

    Args:
        builder: Of a prepared data set with encoded pictures in `image`.
        count: Called for each record, with its split.

    Raises:
        ValueError: It has no pictures, or its files are damaged.
    """
    features = builder.info.features
    missing = [name for name in ("image", "image/filename") if name not in features]
    if missing:
        raise ValueError(f"{builder.info.full_name} has no {', '.join(missing)}.")
    keys = [key for key in PROVENANCE if key in features]
    labelled = "label" in features
    splits, filenames, truths, hashes, comparable, containers = [], [], [], [], [], []
    identities: dict[str, list[list[str]]] = {PROVENANCE[key]: [] for key in keys}
    for split in builder.info.splits:
        for record in _examples(builder, split, keys, labelled):
            splits.append(split)
            filenames.append(record["image/filename"].decode(errors="replace"))
            if labelled:
                truths.append(record["label"])
            for kind, found in identities.items():
                names = {
                    record[key].decode() for key in keys if PROVENANCE[key] == kind
                }
                found.append(sorted(names - {""}))
            hashes.append(near_duplicates.perceptual_hash(record["thumbnail"]))
            comparable.append(near_duplicates.is_comparable(record["thumbnail"]))
            containers.append(no_pixels.features(record["image"]))
            count(split)
    return Survey(
        np.array(splits),
        filenames,
        np.array(truths) if labelled else None,
        identities,
        np.array(hashes, np.uint8).reshape(-1, near_duplicates.NUM_BYTES),
        np.array(comparable, bool),
        np.array(containers, np.float32).reshape(-1, len(no_pixels.FEATURES)),
    )


def _examples(
    builder: tfds.core.DatasetBuilder, split: str, keys: list[str], labelled: bool
) -> Iterator[dict[str, Any]]:
    wanted = ["image", "image/filename", *keys, *(["label"] if labelled else [])]

    def shrink(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = images.decode_image(example["image"])
        thumbnail = images.resize(image, near_duplicates.THUMBNAIL)
        thumbnail = tf.cast(tf.clip_by_value(tf.round(thumbnail), 0, 255), tf.uint8)
        return {**{key: example[key] for key in wanted}, "thumbnail": thumbnail}

    examples = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    try:
        yield from examples.map(shrink, tf.data.AUTOTUNE).as_numpy_iterator()
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"{builder.info.full_name}: the files of {split} are damaged: {error}"
        ) from error
