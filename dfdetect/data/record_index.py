"""Random access to the records of a prepared split: labeled crops, or heads.

TFDS reads its TFRecord files from front to back. One pass notes where each record
begins, what it shows and what it was made from; from then on any record can be read
by itself, in any order, however large the files are.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import conditions, crop_cache, given_heads, record_fields, records
from dfdetect.data.batches import NAME
from dfdetect.data.sampling import Catalog, Sampler
from dfdetect.media import exif, headers

# A TFRecord is its length (8 bytes), a checksum of that (4), the data, another one (4).
_BEFORE, _AFTER = 12, 4

# What a fake was made from; the first that a record names counts.
_ORIGINS = ("target_id", "group")

Features = Mapping[str, tf.train.Feature]
_Entry = tuple[int, str, tuple[float, ...]]  # Label, origin and box.


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
        ValueError: It holds neither, a label is not known, or the files are damaged.
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
        shards = records.list_shards(builder, split)
        self._paths = [path for path, _ in shards]
        look: Callable[[Features], list[_Entry]]
        if whole_images and {"image", "objects"} <= {*features}:
            look = _whole_image
        elif "image" in features and "label" in features and not whole_images:
            origins = [name for name in _ORIGINS if name in features]
            has_box = given_heads.has_head_box(builder)
            look = functools.partial(_labeled, origins=origins, has_box=has_box)
        elif {"image", "objects"} <= {*features}:
            look = functools.partial(_heads, least_side=least_side)
        else:
            raise ValueError(
                f"{builder.info.full_name} must have images with "
                f"{'' if whole_images else 'a label or '}objects, got "
                f"{sorted(features)}."
            )
        places, found, sources = [], [], []
        for number, (path, length) in enumerate(shards):
            count = offset = 0
            try:
                for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                    fields = tf.train.Example.FromString(record).features.feature
                    is_wanted = record_fields.stored_meets(builder, where, fields)
                    entries = look(fields) if is_wanted else []
                    place = (number, offset + _BEFORE, len(record), count)
                    places += [place] * len(entries)
                    found += entries
                    if source_field is not None:
                        source = record_fields.stored_origin(
                            builder, source_field, fields
                        )
                        sources += [source] * len(entries)
                    offset += _BEFORE + len(record) + _AFTER
                    count += 1
            except records.DAMAGE as error:
                raise ValueError(
                    records.describe_damage(builder, path, str(error.message))
                ) from error
            if length is not None and count != length:
                raise ValueError(
                    records.describe_damage(
                        builder, path, f"{count} of {length} records"
                    )
                )
        truths, names, boxes = zip(*found, strict=True) if found else ((), (), ())
        unknown = set(truths) - {labels.REAL, labels.FAKE}
        if unknown:
            raise ValueError(
                f"label of {builder.info.full_name} must be 0 or 1, got {unknown}."
            )
        self._places = places
        self._boxes = np.array(boxes, np.float32).reshape(-1, 4)
        self.catalog = Catalog(
            np.array(truths, np.int64),
            np.array(names, str),
            None if source_field is None else np.array(sources, str),
        )

    def name(self, place: int) -> str:
        """Returns the TFDS id of a record: file and place in it."""
        number, _, _, count = self._places[place]
        return f"{os.path.basename(self._paths[number])}__{count}"

    def box(self, place: int) -> np.ndarray:
        """The head, float32 `[4]` (see `boxes`); zeros where it fills the image.

        A box is clipped to the image.

        For a whole image it is the largest head; zeros without a head.
        """
        return self._boxes[place]

    def largest_sides(self) -> np.ndarray:
        """Longer sides of all boxes (see `box`), float32 `[N]`; 0 where there is none.

        Relative to height or width of the image.
        """
        return (self._boxes[:, 2:] - self._boxes[:, :2]).max(axis=1)

    def read(self, place: int) -> bytes:
        """The bytes of the record, a serialized `tf.train.Example`."""
        number, offset, length, _ = self._places[place]
        with tf.io.gfile.GFile(self._paths[number], "rb") as file:
            file.seek(offset)
            return file.read(length)

    def image(self, place: int) -> bytes:
        """The encoded image of the record."""
        example = tf.train.Example.FromString(self.read(place))
        return example.features.feature["image"].bytes_list.value[0]


def _labeled(features: Features, origins: Sequence[str], has_box: bool) -> list[_Entry]:
    values = [features[name].bytes_list.value[0] for name in origins]
    origin = next(filter(None, values), b"").decode()
    box = [0.0] * 4
    if has_box:
        sides = [features[side].float_list.value[0] for side in given_heads.SIDES]
        box = next(iter(given_heads.clip_boxes(np.array([sides])).tolist()), box)
    return [(features["label"].int64_list.value[0], origin, tuple(box))]


def _whole_image(features: Features) -> list[_Entry]:
    boxes = np.array(features["objects/bbox"].float_list.value).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    largest = boxes[areas.argmax()].tolist() if len(boxes) else [0.0] * 4
    return [(labels.REAL, "", tuple(largest))]


def _heads(features: Features, least_side: int) -> list[_Entry]:
    extent = _read_extent(features["image"].bytes_list.value[0]).numpy()
    boxes = np.array(features["objects/bbox"].float_list.value).reshape(-1, 4)
    sides = ((boxes[:, 2:] - boxes[:, :2]) * extent).max(1)
    difficult = features["objects/is_difficult"].int64_list.value or [0] * len(boxes)
    kept = boxes[(sides >= least_side) & (np.array(difficult) == 0)]
    return [(labels.REAL, "", tuple(box)) for box in kept.tolist()]


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _read_extent(image_bytes: tf.Tensor) -> tf.Tensor:
    return exif.upright_extent(headers.read(image_bytes))


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

    def from_index(self, index: int) -> tf.data.Dataset:
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

        def load(first: tf.Tensor) -> tuple[dict[str, tf.Tensor]]:
            # A batch at once: to call Python costs more than to read a record.
            parts = tf.numpy_function(self._read, [first], dtypes)
            batch = {
                name: tf.ensure_shape(part, [self._batch_size, *widths.get(name, [])])
                for name, part in zip(names, parts, strict=True)
            }
            return (batch,)

        firsts = tf.data.Dataset.range(index, tf.int64.max, self._batch_size)
        return firsts.map(load).unbatch()

    def _read(self, first: np.ndarray) -> tuple[np.ndarray, ...]:
        """The examples of a batch: each of their parts."""
        draws = self._sampler.batch_at(int(first))
        keys = np.stack([draws.datasets, draws.records], axis=1)
        contents, packed_crops, truths, boxes, names = [], [], [], [], []
        for number, place in keys.tolist():
            index = self._indexes[number]
            crop = self._cache.get((number, place)) if self._cache else None
            contents.append(b"" if crop else index.image(place))
            packed_crops.append(crop or b"")
            truths.append(index.catalog.labels[place])
            boxes.append(index.box(place))
            names.append(index.name(place).encode())
        return (
            np.array(contents, object),
            np.array(packed_crops, object),
            np.array(truths, np.int64),
            draws.blended,
            np.stack(boxes),
            keys,
            np.array(names, object),
        )
