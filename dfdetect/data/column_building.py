"""Reads the files of a prepared split once, and notes in columns what its records say.

Images are not decoded. All checksums of the files are compared in passing.
"""

import concurrent.futures
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import coded_texts, records
from dfdetect.media import exif, headers

# A TFRecord is its length (8 bytes), a checksum of that (4), the data, another one (4).
BEFORE, AFTER = 12, 4

# Texts that are of each record alone; they would take more than all other columns.
_UNIQUE = ("image/filename",)
_ALWAYS = ("label", "group")  # Kept besides `records.list_further_fields`.

_ORIGINS = ("target_id", "group")  # What a fake was made from; the first that is named.

_LONGEST_SIGNATURE = max(map(len, headers.SIGNATURES.values()))

_AT_ONCE = 64  # Records; frames of 300 kB are 20 MB then.
_FILES_AT_ONCE = 4

Arrays = dict[str, np.ndarray]
# A column of a file: numbers, or distinct texts and codes into them.
_Part = np.ndarray | coded_texts.CodedTexts


def build(builder: tfds.core.DatasetBuilder, split: str) -> dict[str, _Part]:
    """Builds the columns of a split from its files.

    Returns:
        `starts`, `[S + 1]`: the first record of each file, and the number of all.
        `offset`, `length`, `checksum`, `[N]`: the place of the serialized record in its
        file, and its CRC-32. `kind`, `[N]`: that of its image, the place among
        `headers.SIGNATURES` from 1 on, 0 for others. `field/NAME`, `[N]`: each scalar
        field that is kept.
        `origin`, `[N]` texts: what a fake was made from. Where there are boxes of
        heads: `head_starts` `[N + 1]`, `head_boxes` `[M, 4]`, `head_difficult` `[M]`,
        and `extent` `[N, 2]`, height and width of the upright image.

    Raises:
        ValueError: A file is damaged.
    """
    shards = records.list_shards(builder, split)
    parser = _Parser(builder)

    def read(shard: tuple[str, int | None]) -> dict[str, _Part]:
        return _read_file(builder, parser, *shard)

    with concurrent.futures.ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        parts = list(pool.map(read, shards))
    counts = [len(part["offset"]) for part in parts]
    columns = {name: _join([part[name] for part in parts]) for name in parts[0]}
    columns["starts"] = np.cumsum([0, *counts], dtype=np.int64)
    if "head_counts" in columns:
        head_counts = columns.pop("head_counts")
        assert isinstance(head_counts, np.ndarray)
        starts = np.zeros(len(head_counts) + 1, np.int64)
        np.cumsum(head_counts, out=starts[1:])
        columns["head_starts"] = starts
    return columns


def list_fields(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Lists the scalar fields that have columns."""
    always = [name for name in _ALWAYS if name in builder.info.features]
    further = records.list_further_fields(builder)
    return [name for name in (*always, *further) if name not in _UNIQUE]


def list_origins(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Lists the fields that say what a fake was made from; the first counts."""
    return [name for name in _ORIGINS if name in builder.info.features]


class _Parser:
    """Parses batches of serialized records in the graph: all but the image's pixels.

    Args:
        builder: The data set.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder) -> None:
        features = builder.info.features
        self.fields = list_fields(builder)
        self.texts = [
            name for name in self.fields if features[name].np_dtype in (object, str)
        ]
        self.origins = list_origins(builder)
        self.has_image = "image" in features
        self.has_heads = "objects" in features and self.has_image
        self._spec: dict[str, Any] = {
            name: tf.io.FixedLenFeature([], _stored_dtype(features[name]))
            for name in self.fields
        }
        if self.has_image:
            self._spec["image"] = tf.io.FixedLenFeature([], tf.string)
        if self.has_heads:
            self._spec["objects/bbox"] = tf.io.RaggedFeature(tf.float32)
            if "is_difficult" in features["objects"].feature:
                self._spec["objects/is_difficult"] = tf.io.RaggedFeature(tf.int64)

    def __call__(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parses `[B]` records into columns `[B]`, and those of their heads."""
        parsed = tf.io.parse_example(serialized, self._spec) if self._spec else {}
        found = {f"field/{name}": parsed[name] for name in self.fields}
        found["length"] = tf.strings.length(serialized)
        found["checksum"] = tf.numpy_function(_checksums, [serialized], tf.uint32)
        if self.has_image:
            starts = tf.strings.substr(parsed["image"], 0, _LONGEST_SIGNATURE)
            found["kind"] = tf.numpy_function(_identify, [starts], tf.uint8)
        if self.has_heads:
            boxes = parsed["objects/bbox"]
            found["head_counts"] = tf.cast(boxes.row_lengths() // 4, tf.int32)
            found["head_boxes"] = tf.reshape(boxes.flat_values, [-1, 4])
            found["extent"] = exif.upright_extent(headers.read_batch(parsed["image"]))
            difficult = parsed.get("objects/is_difficult")
            if difficult is not None:
                found["head_difficult"] = tf.cast(difficult.flat_values, tf.uint8)
        return found


def _stored_dtype(feature: tfds.features.FeatureConnector) -> tf.DType:
    """The type of a scalar in a `tf.train.Example`, which knows three."""
    if feature.np_dtype in (object, str):
        return tf.string
    return tf.float32 if np.issubdtype(feature.np_dtype, np.floating) else tf.int64


def _checksums(serialized: np.ndarray) -> np.ndarray:
    return np.array([zlib.crc32(record) for record in serialized], np.uint32)


def _identify(starts: np.ndarray) -> np.ndarray:
    """Places of the kinds of files among `headers.SIGNATURES` from 1 on; 0 for none."""
    patterns = headers.SIGNATURES.values()
    kinds = [
        next((i for i, x in enumerate(patterns, 1) if re.match(x, start, re.S)), 0)
        for start in starts
    ]
    return np.array(kinds, np.uint8)


def _read_file(
    builder: tfds.core.DatasetBuilder, parser: _Parser, path: str, length: int | None
) -> dict[str, _Part]:
    """Reads the columns of one file."""
    batches = tf.data.TFRecordDataset(path).batch(_AT_ONCE)
    parse = tf.autograph.experimental.do_not_convert(parser)
    batches = batches.map(parse, min(8, os.cpu_count() or 1)).prefetch(1)
    try:
        arrays, texts = _collect(batches.as_numpy_iterator(), parser)
    except (*records.DAMAGE, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            records.describe_damage(builder, path, str(error.message))
        ) from error
    count = len(arrays["length"])
    if length is not None and count != length:
        raise ValueError(
            records.describe_damage(builder, path, f"{count} of {length} records")
        )
    ends = np.cumsum(arrays["length"] + np.uint64(BEFORE + AFTER), dtype=np.uint64)
    arrays["offset"] = ends - arrays["length"] - np.uint64(AFTER)
    arrays["length"] = arrays["length"].astype(np.uint32)
    columns: dict[str, _Part] = {**arrays, **texts}
    if parser.origins:
        columns["origin"] = _find_origins([texts[f"field/{x}"] for x in parser.origins])
    return columns


def _collect(
    batches: Iterator[Mapping[str, np.ndarray]], parser: _Parser
) -> tuple[Arrays, dict[str, coded_texts.CodedTexts]]:
    """Collects the columns of batches: numbers as arrays, texts coded."""
    kept: dict[str, list[np.ndarray]] = {}
    known: dict[str, dict[bytes, int]] = {f"field/{x}": {} for x in parser.texts}
    for batch in batches:
        for name, values in batch.items():
            codes = known.get(name)
            if codes is not None:
                coded = [codes.setdefault(value, len(codes)) for value in values]
                values = np.array(coded, np.uint32)
            kept.setdefault(name, []).append(_shrink(values))
    arrays = {name: np.concatenate(parts) for name, parts in kept.items()}
    arrays.setdefault("length", np.zeros(0, np.uint64))
    arrays["length"] = arrays["length"].astype(np.uint64)
    texts = {
        name: coded_texts.CodedTexts(
            arrays.pop(name, np.zeros(0, np.uint8)),
            [text.decode("utf-8", "backslashreplace") for text in codes],
        )
        for name, codes in known.items()
    }
    return arrays, texts


def _find_origins(texts: Sequence[coded_texts.CodedTexts]) -> coded_texts.CodedTexts:
    """The first of some texts of each record that is not empty."""
    together = coded_texts.join(texts)
    empty = together.names.index("") if "" in together.names else -1
    rows = together.codes.reshape(len(texts), -1)
    found = rows[-1]
    for row in rows[-2::-1]:
        found = np.where(row == empty, found, row)
    return coded_texts.CodedTexts(found, together.names)


def _shrink(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest signed type that holds them."""
    if values.dtype != np.int64 or not values.size:
        return values
    low, high = values.min(), values.max()
    for dtype in (np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values


def _join(parts: Sequence[_Part]) -> _Part:
    first = parts[0]
    if isinstance(first, coded_texts.CodedTexts):
        return coded_texts.join(p for p in parts if isinstance(p, type(first)))
    return np.concatenate([p for p in parts if isinstance(p, np.ndarray)])
