"""Random access to the records of a prepared split: labeled crops, or heads.

Where each record lies, what it shows and what it was made from stand in columns beside
the files, see `record_columns`: any record can be read by itself, in any order, however
many there are.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import (
    coded_texts,
    conditions,
    crop_cache,
    given_heads,
    record_columns,
    record_fields,
    record_reader,
)
from dfdetect.data.batches import NAME, WHOLE, Share
from dfdetect.data.sampling import Catalog, Sampler

_READ_AHEAD = 2  # Batches that are read while others are decoded.


class RecordIndex:
    """The records of a split by their places.

    Where a data set has no labels but boxes of heads, each head stands for itself, as
    a real one of its own origin.

    Attributes:
        catalog: Labels and origins of the records.

    Args:
        builder: A prepared data set with `image`, and `label` or `objects`.
        split: One of its splits.
        least_side: Heads whose longer side is shorter, in pixels, are left out, and
            difficult ones.
        whole_images: Whether each image of heads stands once, with all of its heads or
            none, as a detector learns from it.
        where: Conditions that records meet, see `record_fields.choose_records`.
        source_field: Field that becomes `Catalog.sources`, such as source or method;
            a record in which it is empty has the full name of the data set instead.

    Raises:
        ValueError: It holds neither, a label is not known, or the files are cut short.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        *,
        least_side: int = 0,
        whole_images: bool = False,
        where: Sequence[conditions.Condition] = (),
        source_field: str | None = None,
    ) -> None:
        features = builder.info.features
        if split not in builder.info.splits:
            raise ValueError(
                f"{builder.info.full_name} must have a split {split!r}, got "
                f"{sorted(builder.info.splits)}."
            )
        has_labels = "image" in features and "label" in features and not whole_images
        if not has_labels and not {"image", "objects"} <= {*features}:
            raise ValueError(
                f"{builder.info.full_name} must have images with "
                f"{'' if whole_images else 'a label or '}objects, got "
                f"{sorted(features)}."
            )
        columns = record_columns.open_columns(builder, split)
        # The record of each entry; None where all records are entries.
        self._records: np.ndarray | None = None
        if where:
            chosen = record_fields.choose_records(builder, split, where)
            self._records = np.flatnonzero(chosen).astype(np.uint32)
        # Boxes of each entry, or the columns of their sides, or nothing.
        self._boxes: np.ndarray | list[np.ndarray] | None = None
        if has_labels:
            if given_heads.has_head_box(builder):
                self._boxes = [columns.numbers(f"field/{x}") for x in given_heads.SIDES]
        elif whole_images:
            self._boxes = _choose(_find_largest(columns), self._records)
        else:
            self._records, self._boxes = _find_heads(columns, self._records, least_side)
        self._columns = columns
        self._reader = record_reader.RecordReader(columns.paths)
        self.catalog = self._build_catalog(builder, has_labels, source_field)

    def _build_catalog(
        self,
        builder: tfds.core.DatasetBuilder,
        has_labels: bool,
        source_field: str | None,
    ) -> Catalog:
        columns, chosen = self._columns, self._records
        count = len(columns) if chosen is None else len(chosen)
        truths = np.broadcast_to(np.int8(labels.REAL), count)
        origins = coded_texts.repeat("", count)
        if has_labels:
            truths = _choose(columns.numbers("field/label"), chosen)
            unknown = set(np.unique(truths).tolist()) - {labels.REAL, labels.FAKE}
            if unknown:
                raise ValueError(
                    f"label of {builder.info.full_name} must be 0 or 1, got {unknown}."
                )
            if "origin" in columns:
                origins = _choose(columns.texts("origin"), chosen)
        sources = None
        if source_field is not None:
            found = record_fields.read_coded_origins(builder, columns, source_field)
            sources = _choose(found, chosen)
        return Catalog(truths, origins, sources)

    def kinds(self) -> tuple[str, ...]:
        """See `record_columns.Columns.kinds`."""
        return self._columns.kinds()

    def name(self, place: int) -> str:
        """Returns the TFDS id of a record: file and place in it."""
        record = self._record(place)
        starts = self._columns.numbers("starts")
        number = int(np.searchsorted(starts, record, side="right")) - 1
        path = os.path.basename(self._columns.paths[number])
        return f"{path}__{record - int(starts[number])}"

    def box(self, place: int) -> np.ndarray:
        """The head, float32 `[4]` (see `boxes`); zeros where it fills the image.

        A box is clipped to the image.

        For a whole image it is the largest head; zeros without a head.
        """
        if self._boxes is None:
            return np.zeros(4, np.float32)
        if isinstance(self._boxes, np.ndarray):
            return self._boxes[place]
        record = self._record(place)
        sides = np.array([[side[record] for side in self._boxes]], np.float32)
        clipped = given_heads.clip_boxes(sides)
        return clipped[0] if len(clipped) else np.zeros(4, np.float32)

    def largest_sides(self) -> np.ndarray:
        """Longer sides of all boxes (see `box`), float32 `[N]`; 0 where there is none.

        Relative to height or width of the image.
        """
        if not isinstance(self._boxes, np.ndarray):
            boxes = np.array([self.box(x) for x in range(len(self.catalog.labels))])
            boxes = boxes.reshape(-1, 4)
        else:
            boxes = self._boxes
        return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)

    def read(self, place: int) -> bytes:
        """The bytes of the record, a serialized `tf.train.Example`."""
        return self.read_several([place])[0]

    def read_several(self, places: Sequence[int]) -> list[bytes]:
        """The bytes of several records, read at once.

        Raises:
            ValueError: A record cannot be read or was changed; names its file.
        """
        if not len(places):
            return []
        found = np.array([self._record(place) for place in places], np.int64)
        starts = self._columns.numbers("starts")
        return self._reader.read(
            np.searchsorted(starts, found, side="right") - 1,
            *(
                self._columns.numbers(x)[found]
                for x in ("offset", "length", "checksum")
            ),
        )

    def image(self, place: int) -> bytes:
        """The encoded image of the record."""
        return self.images([place])[0]

    def images(self, places: Sequence[int]) -> list[bytes]:
        """The encoded images of several records, read at once."""
        return [_parse_image(record) for record in self.read_several(places)]

    def _record(self, place: int) -> int:
        return int(place if self._records is None else self._records[place])


def _parse_image(record: bytes) -> bytes:
    example = tf.train.Example.FromString(record)
    return example.features.feature["image"].bytes_list.value[0]


def _choose(column: Any, records: np.ndarray | None) -> Any:
    return column if records is None else column[records]


def _find_largest(columns: record_columns.Columns) -> np.ndarray:
    """The largest head of each image, `[N, 4]`; zeros without a head."""
    starts, boxes = columns.numbers("head_starts"), columns.numbers("head_boxes")
    largest = np.zeros((len(columns), 4), np.float32)
    having = np.flatnonzero(np.diff(starts))
    if not len(having):
        return largest
    wide = np.asarray(boxes, np.float64)
    areas = np.nan_to_num((wide[:, 2:] - wide[:, :2]).prod(1), nan=np.inf)
    most = np.repeat(
        np.maximum.reduceat(areas, starts[having]), np.diff(starts)[having]
    )
    heads = np.flatnonzero(areas == most)
    images = np.searchsorted(starts, heads, side="right") - 1
    images, firsts = np.unique(images, return_index=True)
    largest[images] = boxes[heads[firsts]]
    return largest


def _find_heads(
    columns: record_columns.Columns, records: np.ndarray | None, least_side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the heads that count: the record of each, `[M]`, and its box, `[M, 4]`."""
    boxes = np.asarray(columns.numbers("head_boxes"), np.float64)
    counts = np.diff(columns.numbers("head_starts"))
    record_of = np.repeat(np.arange(len(columns), dtype=np.uint32), counts)
    extents = columns.numbers("extent")[record_of]
    kept = ((boxes[:, 2:] - boxes[:, :2]) * extents).max(1) >= least_side
    if "head_difficult" in columns:
        kept &= columns.numbers("head_difficult") == 0
    if records is not None:
        chosen = np.zeros(len(columns), bool)
        chosen[records] = True
        kept &= chosen[record_of]
    return record_of[kept], boxes[kept].astype(np.float32)


class SampledRecords:
    """Labeled records in the order of a `Sampler`; a `batches.Source`.

    Its examples are dicts of the scalars `image`, encoded, `label` int64, `blended`
    bool (see `sampling.Draws`) and `batches.NAME`; `box` float32 `[4]` (see
    `RecordIndex.box`); `key` int64 `[2]`, under which the cache keeps the crop; and
    `packed_crop`, the crop from the cache (see `decode.pack`), empty where the cache
    does not have it. Of `image` and `packed_crop` one is always empty.

    Args:
        indexes: One for each data set.
        sampler: Says which records come when.
        batch_size: That of the sampler.
        cache: Cache of decoded crops.
    """

    def __init__(
        self,
        indexes: Sequence[RecordIndex],
        sampler: Sampler,
        batch_size: int,
        cache: crop_cache.CropCache | None = None,
    ) -> None:
        self._indexes, self._sampler = indexes, sampler
        self._batch_size, self._cache = batch_size, cache

    @property
    def size(self) -> int:
        """Number of records of all data sets."""
        return sum(len(index.catalog.labels) for index in self._indexes)

    def from_index(self, index: int, share: Share = WHOLE) -> tf.data.Dataset:
        """The records from a place in the order on, which begins a batch."""
        names = ("image", "packed_crop", "label", "blended", "box", "key", NAME)
        dtypes = [
            tf.string,
            tf.string,
            tf.int64,
            tf.bool,
            tf.float32,
            tf.int64,
            tf.string,
        ]
        widths = {"box": [4], "key": [2]}
        read = functools.partial(self._read, share=share)

        def load(first: tf.Tensor) -> tuple[dict[str, tf.Tensor]]:
            # A batch at once: to call Python costs more than to read a record.
            parts = tf.numpy_function(read, [first], dtypes)
            count = self._batch_size // share.count
            batch = {
                name: tf.ensure_shape(part, [count, *widths.get(name, [])])
                for name, part in zip(names, parts, strict=True)
            }
            return (batch,)

        firsts = tf.data.Dataset.range(index, tf.int64.max, self._batch_size)
        return firsts.map(load, _READ_AHEAD).unbatch()

    def _read(self, first: np.ndarray, share: Share) -> tuple[np.ndarray, ...]:
        """The examples of a share of a batch: each of their parts."""
        draws = share.of_draws(self._sampler.batch_at(int(first)))
        keys = np.stack([draws.datasets, draws.records], axis=1)
        places = [tuple(key) for key in keys.tolist()]
        crops = [self._cache.get(key) if self._cache else None for key in places]
        contents = [b""] * len(places)
        missing = [slot for slot, crop in enumerate(crops) if not crop]
        images = read_images(self._indexes, [places[slot] for slot in missing])
        for slot, image in zip(missing, images, strict=True):
            contents[slot] = image
        return (
            np.array(contents, object),
            np.array([crop or b"" for crop in crops], object),
            np.array([self._indexes[n].catalog.labels[x] for n, x in places], np.int64),
            draws.blended,
            np.stack([self._indexes[n].box(x) for n, x in places]),
            keys,
            np.array([self._indexes[n].name(x).encode() for n, x in places], object),
        )


def read_records(
    indexes: Sequence[RecordIndex], drawn: Sequence[tuple[int, int]]
) -> list[bytes]:
    """Reads serialized records, given data set and place each; of each set at once."""
    found = [b""] * len(drawn)
    for number, index in enumerate(indexes):
        slots = [slot for slot, (other, _) in enumerate(drawn) if other == number]
        contents = index.read_several([drawn[slot][1] for slot in slots])
        for slot, content in zip(slots, contents, strict=True):
            found[slot] = content
    return found


def read_images(
    indexes: Sequence[RecordIndex], drawn: Sequence[tuple[int, int]]
) -> list[bytes]:
    """Reads encoded images, see `read_records`."""
    return [_parse_image(record) for record in read_records(indexes, drawn)]


def leave_out_empty(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    indexes: Sequence[RecordIndex],
    weights: Sequence[float] | None,
) -> tuple[list[RecordIndex], list[float] | None]:
    """Leaves out data sets without a record to train on, and prints a line for each.

    Args:
        builders: Prepared data sets.
        split: The split that the indexes are of.
        indexes: One for each data set.
        weights: Likewise, or None.

    Returns:
        Indexes and weights of the others, at least one.

    Raises:
        ValueError: No record is left, or there are more or less weights than data sets.
    """
    names = [builder.info.full_name for builder in builders]
    if weights is not None and len(weights) != len(names):
        raise ValueError(f"weights must be {len(names)} numbers, got {weights}.")
    left = [place for place, index in enumerate(indexes) if len(index.catalog.labels)]
    if not left:
        raise ValueError(
            f"no record to train on is left in {split} of {', '.join(names)}."
        )
    for place in sorted({*range(len(names))} - {*left}):
        print(f"No record to train on is left in {split} of {names[place]}.")
    return (
        [indexes[place] for place in left],
        None if weights is None else [weights[place] for place in left],
    )
