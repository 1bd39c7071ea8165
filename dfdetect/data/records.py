"""The records of a prepared data set of labeled images, one by one and in order.

Each has `image` (the bytes of a file), `image/filename`, `label` (see `labels`) and
`group`; whichever further scalars its builder keeps come along.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.media import source_files

REQUIRED = ("image", "image/filename", "label", "group")

_IN_ONE_FOLDER = 1000  # Images; folders of a million files are slow to list.
_LONGEST_NAME = 150  # Bytes; file systems take 255, and an ending is to follow.

# What TensorFlow raises on a TFRecord file that is cut short, changed or missing.
DAMAGE = (tf.errors.DataLossError, tf.errors.NotFoundError)

Scalar = str | int | float


@dataclasses.dataclass(frozen=True)
class Record:
    """One labeled image.

    Attributes:
        split: "train", "validation" or "test".
        index: Its place in the split, from 0.
        image_bytes: The file; empty when only the rest was asked for.
        filename: `image/filename`.
        label: See `labels`.
        group: Name of what it belongs to, such as a video.
        fields: Its further scalars, those of `list_further_fields`.
    """

    split: str
    index: int
    image_bytes: bytes
    filename: str
    label: int
    group: str
    fields: dict[str, Scalar]


def check_labeled(builder: tfds.core.DatasetBuilder) -> None:
    """Checks that a data set is one of labeled images.

    Raises:
        ValueError: A field is missing, or its labels mean something else.
    """
    features = builder.info.features
    missing = [name for name in REQUIRED if name not in features]
    if missing:
        raise ValueError(
            f"{builder.info.name} holds no labeled images: it has no "
            f"{', '.join(missing)}."
        )
    names = getattr(features["label"], "names", None)
    if names is not None and list(names) != list(labels.NAMES):
        raise ValueError(
            f"label of {builder.info.name} must be {list(labels.NAMES)}, got {names}."
        )


def list_further_fields(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Lists the scalars beyond `REQUIRED`, sorted: numbers, flags, classes, texts.

    Strings that are not `Text`, such as an encoded mask, are not among them.
    """
    return sorted(
        name
        for name, feature in builder.info.features.items()
        if name not in REQUIRED
        and isinstance(feature, tfds.features.Tensor)
        and feature.shape == ()
        and (
            isinstance(feature, tfds.features.Text)
            or np.issubdtype(feature.np_dtype, np.number)
            or np.issubdtype(feature.np_dtype, np.bool_)
        )
    )


def check_files(builder: tfds.core.DatasetBuilder, split: str) -> None:
    """Compares every byte of a split with its checksum.

    Raises:
        ValueError: A file is missing, cut short or changed; its path and the place of
            the record.
    """
    for path, length in list_shards(builder, split):
        count = 0
        try:
            for batch in tf.data.TFRecordDataset(path).batch(64):
                count += len(batch)
        except DAMAGE as error:
            raise ValueError(
                describe_damage(builder, path, str(error.message))
            ) from error
        if length is not None and count != length:
            raise ValueError(
                describe_damage(builder, path, f"it holds {count} of {length} records")
            )


@contextlib.contextmanager
def naming_damage(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[None]:
    """Names the damaged file where reading a split fails within a block.

    Raises:
        ValueError: A file is missing, cut short or changed.
    """
    try:
        yield
    except DAMAGE as error:
        check_files(builder, split)
        raise ValueError(
            f"The files of {split} of {builder.info.full_name} are damaged; prepare it "
            "again."
        ) from error


def list_shards(
    builder: tfds.core.DatasetBuilder, split: str
) -> list[tuple[str, int | None]]:
    """Lists the files of a split, each with its number of records, if known."""
    info = builder.info.splits[split]
    paths = [os.fspath(path) for path in info.filepaths]
    lengths = getattr(info, "shard_lengths", None) or [None] * len(paths)
    return list(zip(paths, lengths, strict=True))


def describe_damage(builder: tfds.core.DatasetBuilder, path: str, reason: str) -> str:
    """Words the error about a damaged file of a data set."""
    return (
        f"{path} of {builder.info.full_name} is damaged ({reason.splitlines()[0]}); "
        "prepare the data set again."
    )


def read_records(
    builder: tfds.core.DatasetBuilder,
    split: str,
    start: int = 0,
    with_images: bool = True,
) -> Iterator[Record]:
    """Reads the records of a split, always in the same order.

    Args:
        builder: A prepared data set that passes `check_labeled`.
        split: One of its splits.
        start: The first record wanted.
        with_images: Whether the bytes of the images are wanted.

    Raises:
        ValueError: The files of the data set are damaged, or a label is not known.
    """
    if start >= builder.info.splits[split].num_examples:
        return  # TFDS refuses empty slices.
    further = list_further_fields(builder)
    wanted = [name for name in REQUIRED if with_images or name != "image"] + further
    examples = builder.as_dataset(
        split=f"{split}[{start}:]",
        decoders=tfds.decode.PartialDecoding(
            dict.fromkeys(wanted, True),
            decoders={"image": tfds.decode.SkipDecoding()} if with_images else None,
        ),
        # One file after the other, so that a slice goes on where the rest ended.
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    features = builder.info.features
    with naming_damage(builder, split):
        for index, example in enumerate(examples.as_numpy_iterator(), start):
            filename, label = _text(example["image/filename"]), int(example["label"])
            if label not in (labels.REAL, labels.FAKE):
                raise ValueError(f"label of {filename!r} must be 0 or 1, got {label}.")
            yield Record(
                split,
                index,
                example.get("image", b""),
                filename,
                label,
                _text(example["group"]),
                {name: to_scalar(features[name], example[name]) for name in further},
            )


def build_path_stem(record: Record) -> str:
    """Where a file made from a record goes: a relative path that lacks its ending.

    No two records of a data set share one, whatever they are called, and none leaves
    its folder. The name of the record is kept as far as any file system and any list
    of lines can take it, without its ending: its end where it is long, with `_` for
    slashes and for what cannot be printed.
    """
    name = record.filename
    for suffix in source_files.IMAGE_SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    name = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)
    name = name.encode()[-_LONGEST_NAME:].decode(errors="ignore")
    folder = record.index // _IN_ONE_FOLDER
    return f"{record.split}/{folder:04d}/{record.index:07d}_{name}"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def to_scalar(feature: tfds.features.FeatureConnector, value: Any) -> Scalar:
    """Converts a field to a Python value; a class to its name, "" if unknown."""
    if isinstance(feature, tfds.features.ClassLabel):
        # -1 is a class that is not known.
        return feature.int2str(int(value)) if value >= 0 else ""
    if isinstance(value, bytes):
        return _text(value)
    return to_shortest_float(value) if isinstance(value, np.floating) else int(value)


def to_shortest_float(value: np.floating) -> float:
    """Converts to the float with the fewest digits that reads back the same."""
    return float(str(value))
