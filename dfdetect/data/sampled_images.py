"""Images with all of their heads, drawn from several data sets for a detector.

Each is a function of seed and step alone, see `sampling.Sampler`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect.data.batches import NAME, WHOLE, Share, slide_windows
from dfdetect.data.record_index import RecordIndex, read_records
from dfdetect.data.sampling import Catalog, Sampler

_READ_AHEAD = 2  # Batches that are read while others are decoded.

# Longer side of the largest head of a closeup, at least, over that of the image.
CLOSEUP_SIDE = 0.25


def has_closeups(indexes: Sequence[RecordIndex]) -> bool:
    """Whether there are images without heads, and closeups to paste onto them."""
    sides = np.concatenate([index.largest_sides() for index in indexes])
    return bool((sides == 0).any() and (sides >= CLOSEUP_SIDE).any())


class SampledImages:
    """Images with all of their heads in the order of a `Sampler`; a `batches.Source`.

    Its examples are dicts of `image`, encoded, a scalar string; `objects`, a dict of
    `bbox` float32 `[num_heads, 4]`, `label` int64 `[num_heads]` and `is_difficult` bool
    `[num_heads]`; and `batches.NAME`. With `closeups` they also hold `pasted`: `image`
    and `objects` of a closeup where the image has no head, else an empty `image`.

    Args:
        indexes: One for each data set, of whole images.
        sampler: Says which records come when.
        batch_size: That of the sampler.
        following: Number of examples next in order that come with each.
        closeups: Says which images come to be pasted onto those without heads.
    """

    def __init__(
        self,
        indexes: Sequence[RecordIndex],
        sampler: Sampler,
        *,
        batch_size: int,
        following: int = 0,
        closeups: "Closeups | None" = None,
    ) -> None:
        self._indexes, self._sampler = indexes, sampler
        self._batch_size, self._following = batch_size, following
        self._closeups = closeups

    @property
    def size(self) -> int:
        """Images of all data sets."""
        return sum(len(index.catalog.labels) for index in self._indexes)

    def from_index(self, index: int, share: Share = WHOLE) -> tf.data.Dataset:
        """The images from a place in the order on, which begins a batch."""
        # With those that follow, a worker's images are about all there are.
        read_share = WHOLE if self._following else share
        count = self._batch_size // read_share.count
        read = functools.partial(self._read, share=read_share)

        def load(first: tf.Tensor) -> dict[str, tf.Tensor]:
            parts = tf.numpy_function(read, [first], [tf.string] * 3)
            records, names, pasted = (tf.ensure_shape(part, [count]) for part in parts)
            return {"record": records, NAME: names, "pasted": pasted}

        def parse(example: dict[str, tf.Tensor]) -> dict[str, Any]:
            parsed = {**_parse(example["record"]), NAME: example[NAME]}
            if self._closeups is not None:
                parsed["pasted"] = _parse(example["pasted"])
            return parsed

        firsts = tf.data.Dataset.range(index, tf.int64.max, self._batch_size)
        examples = (
            firsts.map(load, _READ_AHEAD)
            .unbatch()
            .map(tf.autograph.experimental.do_not_convert(parse))
        )
        windows = slide_windows(examples, 1 + self._following)
        return windows.shard(share.count, share.place) if self._following else windows

    def _read(self, first: np.ndarray, share: Share) -> tuple[np.ndarray, ...]:
        """Serialized records of a share of a batch, their names, and closeups."""
        draws = share.of_draws(self._sampler.batch_at(int(first)))
        drawn = list(zip(draws.datasets.tolist(), draws.records.tolist(), strict=True))
        records = read_records(self._indexes, drawn)
        names = [self._indexes[number].name(place).encode() for number, place in drawn]
        pasted = [b""] * len(drawn)
        if self._closeups is not None:
            closeups = self._closeups.batch(int(first))[share.place :: share.count]
            slots = [
                slot
                for slot, (number, place) in enumerate(drawn)
                if not self._indexes[number].box(place).any()
            ]
            found = read_records(self._indexes, [closeups[slot] for slot in slots])
            for slot, record in zip(slots, found, strict=True):
                pasted[slot] = record
        return tuple(np.array(part, object) for part in (records, names, pasted))


class Closeups:
    """Images with a large head, in an order of their own, as many as of others.

    Args:
        indexes: One for each data set, of whole images.
        batch_size: Images of a step.
        seed: Seed of the order.
        weights: Weight of each data set, by default its number of closeups.
        least_side: Shortest longer side of the largest head, over that of the image.

    Raises:
        ValueError: No image has so large a head.
    """

    def __init__(
        self,
        indexes: Sequence[RecordIndex],
        batch_size: int,
        *,
        seed: int,
        weights: Sequence[float] | None = None,
        least_side: float = CLOSEUP_SIDE,
    ) -> None:
        self._places: list[tuple[int, np.ndarray]] = []
        catalogs, kept_weights = [], []
        for number, index in enumerate(indexes):
            places = np.flatnonzero(index.largest_sides() >= least_side)
            if len(places):
                self._places.append((number, places))
                truths, names = index.catalog.labels, index.catalog.origins
                catalogs.append(Catalog(truths[places], names[places]))
                kept_weights.append(weights[number] if weights else len(places))
        self._sampler = Sampler(catalogs, batch_size, seed=seed, weights=kept_weights)

    def batch(self, first: int) -> list[tuple[int, int]]:
        """Returns data set and record of each closeup of the batch after `first`."""
        draws = self._sampler.batch_at(first)
        found = zip(draws.datasets.tolist(), draws.records.tolist(), strict=True)
        return [
            (self._places[number][0], int(self._places[number][1][record]))
            for number, record in found
        ]


def _parse(record: tf.Tensor) -> dict[str, Any]:
    """Reads the image and its heads from a serialized `tf.train.Example`."""
    parsed = tf.io.parse_single_example(
        record,
        {
            "image": tf.io.FixedLenFeature([], tf.string, default_value=""),
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
    return {"image": parsed["image"], "objects": objects}


def _values(dtype: tf.DType, *shape: int) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True)
