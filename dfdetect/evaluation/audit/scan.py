"""Surveys a prepared data set in one pass."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import prepared, records
from dfdetect.data.split_leaks import PROVENANCE
from dfdetect.evaluation.audit import metadata_baseline, near_duplicates
from dfdetect.evaluation.audit.survey import Survey
from dfdetect.media import decode, resize


def scan_dataset(
    builder: tfds.core.DatasetBuilder,
    count: Callable[[str], None],
    splits: Sequence[str] | None = None,
    with_hashes: bool = True,
) -> Survey:
    """Surveys every record, in the order of `prepared.read_encoded`.

    Args:
        builder: A prepared data set with encoded images in `image`.
        count: Called for each record, with its split.
        splits: Splits to survey; all by default.
        with_hashes: Whether near duplicates are wanted. Without, no image is decoded.

    Raises:
        ValueError: It has no images, or its files are damaged.
    """
    features = builder.info.features
    missing = [name for name in ("image", "image/filename") if name not in features]
    if missing:
        raise ValueError(f"{builder.info.full_name} has no {', '.join(missing)}.")
    keys = [key for key in PROVENANCE if key in features]
    labeled = "label" in features
    further = records.list_further_fields(builder)
    wanted = ["image", "image/filename", *(["label"] if labeled else [])]
    wanted += [name for name in (*keys, *further) if name not in wanted]
    places, filenames, truths, hashes, comparable, containers = [], [], [], [], [], []
    fields: dict[str, list[records.Scalar]] = {name: [] for name in further}
    identities: dict[str, list[list[str]]] = {PROVENANCE[key]: [] for key in keys}
    for split in builder.info.splits if splits is None else splits:
        for record in _examples(builder, split, wanted, with_hashes):
            places.append(split)
            filenames.append(record["image/filename"].decode(errors="replace"))
            if labeled:
                truths.append(record["label"])
            for kind, found in identities.items():
                names = {
                    record[key].decode() for key in keys if PROVENANCE[key] == kind
                }
                found.append(sorted(names - {""}))
            for name, values in fields.items():
                values.append(records.to_scalar(features[name], record[name]))
            if with_hashes:
                hashes.append(near_duplicates.compute_hash(record["thumbnail"]))
                comparable.append(near_duplicates.is_comparable(record["thumbnail"]))
            containers.append(metadata_baseline.read_features(record["image"]))
            count(split)
    return Survey(
        np.array(places),
        filenames,
        np.array(truths) if labeled else None,
        identities,
        np.array(hashes, np.uint8).reshape(-1, near_duplicates.NUM_BYTES),
        np.array(comparable, bool),
        np.array(containers, np.float32).reshape(-1, len(metadata_baseline.FEATURES)),
        {name: np.array(values) for name, values in fields.items()},
    )


def _examples(
    builder: tfds.core.DatasetBuilder, split: str, wanted: list[str], with_hashes: bool
) -> Iterator[dict[str, Any]]:
    def shrink(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        kept = {key: example[key] for key in wanted}
        if not with_hashes:
            return kept
        image = decode.decode_image(example["image"])
        thumbnail = resize.resize(image, near_duplicates.THUMBNAIL)
        thumbnail = tf.cast(tf.clip_by_value(tf.round(thumbnail), 0, 255), tf.uint8)
        return {**kept, "thumbnail": thumbnail}

    examples = prepared.read_encoded(builder, split)
    try:
        yield from examples.map(shrink, tf.data.AUTOTUNE).as_numpy_iterator()
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"{builder.info.full_name}: the files of {split} are damaged: {error}"
        ) from error
