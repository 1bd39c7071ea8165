"""Images with all of their heads, drawn from several data sets for a detector.

Each is a function of seed and step alone, see `sampling.Sampler`.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dfdetect.batches import NAME, windows
from dfdetect.record_index import RecordIndex
from dfdetect.sampling import Sampler


class SampledImages:
    """Images with all of their heads in the order of a `Sampler`; a `batches.Source`.

    Its examples are dicts of `image`, encoded, a scalar string; `objects`, a dict of
    `bbox` float32 `[num_heads, 4]`, `label` int64 `[num_heads]` and `is_difficult` bool
    `[num_heads]`; and `batches.NAME`.

    Args:
        indexes: One for each data set, of whole images.
        sampler: Says which records come when.
        batch_size: That of the sampler.
        following: How many of the examples next in order come with each.
    """

    def __init__(
        self,
        indexes: Sequence[RecordIndex],
        sampler: Sampler,
        batch_size: int,
        following: int = 0,
    ) -> None:
        self._indexes, self._sampler = indexes, sampler
        self._batch_size, self._following = batch_size, following

    @property
    def size(self) -> int:
        """Images of all data sets."""
        return sum(len(index.catalogue.labels) for index in self._indexes)

    def from_index(self, index: int) -> tf.data.Dataset:
        """The images from a place in the order on, which begins a batch."""

        def load(step: tf.Tensor) -> dict[str, tf.Tensor]:
            parts = tf.numpy_function(self._read, [step], [tf.string, tf.string])
            records, names = (
                tf.ensure_shape(part, [self._batch_size]) for part in parts
            )
            return {"record": records, NAME: names}

        steps = tf.data.Dataset.range(index // self._batch_size, tf.int64.max)
        examples = steps.map(load).unbatch().map(_parse)
        return windows(examples, 1 + self._following)

    def _read(self, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The records of a batch, serialized, and their names."""
        draws = self._sampler.batch(int(step))
        drawn = list(zip(draws.datasets.tolist(), draws.records.tolist(), strict=True))
        records = [self._indexes[number].read(place) for number, place in drawn]
        names = [self._indexes[number].name(place).encode() for number, place in drawn]
        return np.array(records, object), np.array(names, object)


def _parse(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Reads the image and its heads from a serialized `tf.train.Example`."""
    parsed = tf.io.parse_single_example(
        example["record"],
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "objects/bbox": _values(tf.float32, 4),
            "objects/label": _values(tf.int64),
            "objects/is_difficult": _values(tf.int64),
        },
    )
    objects = {
        "bbox": parsed["objects/bbox"],
        "label": parsed["objects/label"],
        "is_difficult": parsed["objects/is_difficult"] > 0,
    }
    return {"image": parsed["image"], "objects": objects, NAME: example[NAME]}


def _values(dtype: tf.DType, *shape: int) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True)
