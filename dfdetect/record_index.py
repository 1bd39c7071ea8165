"""Random access to the records of a prepared split of labelled pictures.

TFDS reads its TFRecord files from front to back. One pass notes where each record
begins, what it shows and what it was made from; from then on any record can be read
by itself, in any order, however large the files are.
"""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.batches import NAME
from dfdetect.sampling import Catalogue, Sampler

# A TFRecord is its length (8 bytes), a checksum of that (4), the data, another one (4).
_BEFORE, _AFTER = 12, 4

# What a fake was made from; the first that a record names counts.
_ORIGINS = ("target_id", "group")

# Of every record that TFDS wrote for an `Image` called image and a `ClassLabel`.
_SPEC = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


class RecordIndex:
    """The records of a split by their places.

    Attributes:
        catalogue: Labels and origins of the records.

    Args:
        builder: Of a prepared data set with `image` and `label`.
        split: One of its splits.

    Raises:
        ValueError: It holds no labelled pictures, a label is not known, or the files
            are damaged.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        features = builder.info.features
        lacking = [name for name in ("image", "label") if name not in features]
        if lacking:
            raise ValueError(f"{builder.info.full_name} has no {', '.join(lacking)}.")
        origins = [name for name in _ORIGINS if name in features]
        self._paths = [os.fspath(p) for p in builder.info.splits[split].filepaths]
        places, truths, names = [], [], []
        try:
            for number, path in enumerate(self._paths):
                offset = 0
                for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                    places.append((number, offset + _BEFORE, len(record)))
                    offset += _BEFORE + len(record) + _AFTER
                    found = tf.train.Example.FromString(record).features.feature
                    truths.append(found["label"].int64_list.value[0])
                    values = [found[name].bytes_list.value[0] for name in origins]
                    names.append(next(filter(None, values), b"").decode())
        except tf.errors.DataLossError as error:
            raise ValueError(
                f"The files of {split} of {builder.info.full_name} are damaged; "
                "prepare it again."
            ) from error
        unknown = set(truths) - {labels.REAL, labels.FAKE}
        if unknown:
            raise ValueError(
                f"label of {builder.info.full_name} must be 0 or 1, got {unknown}."
            )
        self._places = np.array(places, np.int64).reshape(-1, 3)
        self.catalogue = Catalogue(np.array(truths, np.int64), np.array(names, str))

    def name(self, place: int) -> str:
        """What TFDS calls the record: file and place in it."""
        number = self._places[place, 0]
        first = np.searchsorted(self._places[:, 0], number)
        return f"{os.path.basename(self._paths[number])}__{place - first}"

    def read(self, place: int) -> bytes:
        """The bytes of the record, a serialized `tf.train.Example`."""
        number, offset, length = self._places[place].tolist()
        with tf.io.gfile.GFile(self._paths[number], "rb") as file:
            file.seek(offset)
            return file.read(length)


class Sampled:
    """Labelled records in the order of a `Sampler`; a `batches.Source`.

    Its examples are dicts of the scalars `image`, encoded, `label` int64, `blended`
    bool (see `sampling.Draws`) and `batches.NAME`.

    Args:
        indexes: One for each data set.
        sampler: Says which records come when.
        batch_size: That of the sampler.
    """

    def __init__(
        self, indexes: Sequence[RecordIndex], sampler: Sampler, batch_size: int
    ) -> None:
        self._indexes, self._sampler = indexes, sampler
        self._batch_size = batch_size

    @property
    def size(self) -> int:
        """Records of all data sets."""
        return sum(len(index.catalogue.labels) for index in self._indexes)

    def from_index(self, index: int) -> tf.data.Dataset:
        """The records from a place in the order on, which begins a batch."""
        step = index // self._batch_size

        def draw(step: np.ndarray) -> tuple[np.ndarray, ...]:
            draws = self._sampler.batch(int(step))
            return draws.datasets, draws.records, draws.blended

        def plan(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
            drawn = tf.numpy_function(draw, [step], (tf.int64, tf.int64, tf.bool))
            return tuple(tf.ensure_shape(part, [self._batch_size]) for part in drawn)

        def read(dataset: np.ndarray, record: np.ndarray) -> tuple[bytes, bytes]:
            source = self._indexes[int(dataset)]
            return source.read(int(record)), source.name(int(record)).encode()

        def load(dataset: tf.Tensor, record: tf.Tensor, blended: tf.Tensor) -> tuple:
            content, name = tf.numpy_function(
                read, [dataset, record], (tf.string, tf.string)
            )
            example = tf.io.parse_single_example(tf.ensure_shape(content, []), _SPEC)
            name = tf.ensure_shape(name, [])
            return ({**example, "blended": blended, NAME: name},)

        steps = tf.data.Dataset.range(step, tf.int64.max)
        return steps.map(plan).unbatch().map(load)
