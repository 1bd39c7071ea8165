"""Deterministic, resumable training batches: each depends on seed and step alone.

A run that was stopped therefore resumes as if it had not been, and many workers
see what one would. Encoded bytes are shuffled, then decoded: a tenth of the memory.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from dfdetect.data import sampling

NAME = "tfds_id"  # Key of what TFDS calls a record: file and place.


@dataclasses.dataclass(frozen=True)
class Share:
    """Which examples a worker takes: every `count`-th one, from the `place`-th on.

    Attributes:
        count: Number of workers; divides a batch.
        place: This one's place among them, from 0.
    """

    count: int = 1
    place: int = 0

    def of_draws(self, draws: sampling.Draws) -> sampling.Draws:
        """Chooses a worker's part of a batch."""
        mine = slice(self.place, None, self.count)
        return sampling.Draws(
            draws.datasets[mine], draws.records[mine], draws.blended[mine]
        )


WHOLE = Share()


class Source(Protocol):
    """Where the examples of batches come from, in an order without end.

    Attributes:
        size: Examples of about one pass over the data.
    """

    @property
    def size(self) -> int: ...

    def from_index(self, index: int, share: Share = WHOLE) -> tf.data.Dataset:
        """Tuples of encoded examples, from that of this number on.

        Args:
            index: Place in the order of the first one, which begins a batch.
            share: Which of them to read; all by default.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ShuffledSource:
    """A source of all examples of a data set, each pass shuffled anew.

    Attributes:
        examples: One pass over small examples, such as paths, in a fixed order; all of
            them are held in memory.
        seed: Seed of the order.
        following: Number of examples next in order that come with each: to join
            images of the batch of a worker would make them depend on how many
            workers there are.
    """

    examples: tf.data.Dataset
    seed: int
    following: int = 0

    @property
    def size(self) -> int:
        """Examples of a pass.

        Raises:
            ValueError: There are none, or the number is not known.
        """
        size = int(self.examples.cardinality())
        if size < 1:
            raise ValueError(
                f"The data must have a known number of examples, got {size}."
            )
        return size

    def from_index(self, index: int, share: Share = WHOLE) -> tf.data.Dataset:
        """Each example in a tuple with those `following`, from one on."""
        size = self.size
        first_epoch, done = divmod(index, size)

        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            # For this function only: the order must not depend on the global seed, and
            # with one of 0 a data set takes no tensor as seed (TensorFlow 2.20).
            tf.random.set_seed(1)
            # All at once: sorted paths come folder by folder.
            shuffled = self.examples.shuffle(
                size,
                seed=self.seed * 1_000_003 + number,
                reshuffle_each_iteration=False,
            )
            return shuffled.skip(done * tf.cast(number == first_epoch, tf.int64))

        epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
        windows = slide_windows(epochs.flat_map(epoch), 1 + self.following)
        return windows.shard(share.count, share.place)


@dataclasses.dataclass(frozen=True)
class Batches:
    """An endless stream of training batches that begins at any step.

    What a step sees depends on the seed and the step only: not on where the run began,
    nor on how many workers share its batch. The last batch of one pass over the data
    may reach into the next.

    Attributes:
        source: Encoded examples in the order of training.
        prepare: Takes a seed for stateless random ops, int32 `[2]`, and the examples of
            a tuple of the source; returns what the model trains on.
        batch_size: Examples of a step, over all devices.
        seed: Seed of what `prepare` draws.
        offset: Place in the order of the first example, see `placed`.
    """

    source: Source
    prepare: Callable[..., Any]
    batch_size: int
    seed: int
    offset: int = 0

    def position(self, step: int) -> int:
        """Returns the place in the order of the first example of a step."""
        return self.offset + step * self.batch_size

    def placed(self, step: int, position: int) -> "Batches":
        """Returns the same batches, shifted so that a step begins at another place."""
        offset = position - step * self.batch_size
        return dataclasses.replace(self, offset=offset)

    def from_step(
        self, step: int, context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """Returns the batches from a step on, a batch for each replica.

        Args:
            step: Steps done, 0 at first.
            context: Which of the workers this is; all of them by default.

        Raises:
            ValueError: There is no example, or the batch cannot be divided evenly.
        """
        context = context or tf.distribute.InputContext()
        replicas = context.num_replicas_in_sync
        if self.batch_size % replicas:
            raise ValueError(
                f"batch_size must be a multiple of {replicas} devices, "
                f"got {self.batch_size}."
            )
        share = Share(context.num_input_pipelines, context.input_pipeline_id)
        mine = self._seeded(step, share)
        # Its thread now and then never ends when an iterator of many devices does, and
        # with it the process (TensorFlow 2.20).
        options = tf.data.Options()
        options.autotune.enabled = False
        return (
            mine.map(self._prepare(), os.cpu_count())
            .batch(self.batch_size // replicas, drop_remainder=True)
            # The strategies ask workers for more data at each step unless they know.
            .apply(
                tf.data.experimental.assert_cardinality(
                    tf.data.experimental.INFINITE_CARDINALITY
                )
            )
            .prefetch(2)
            .with_options(options)
        )

    def unreadable(self, step: int) -> str:
        """Names the first example from a step on that cannot be prepared, and why."""
        prepare = tf.function(self._prepare(), autograph=False)
        name = "a record"
        try:
            for seed, example, *following in self._seeded(step).take(self.source.size):
                name = example[NAME].numpy().decode()
                # By itself, so that it is not blamed for another one.
                prepare(seed, example, *[example] * len(following))
                name = "a record"
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            return f"{name}: {error.message.splitlines()[0]}"
        return "none of the examples of this epoch"

    def _prepare(self) -> Callable[..., Any]:
        # AutoGraph rewrites every function that it meets, which takes longer than to
        # trace them, and finds nothing to do: conditions are `tf.cond` here.
        return tf.autograph.experimental.do_not_convert(self.prepare)

    def _seeded(self, step: int, share: Share = WHOLE) -> tf.data.Dataset:
        """Seed and the tuple of encoded examples, without end, from a step on."""
        first = self.position(step)

        def seeded(rank: tf.Tensor, examples: tuple) -> tuple:
            index = first + share.place + rank * share.count
            number = tf.cast(index % 2**31, tf.int32)
            return tf.stack([tf.constant(self.seed, tf.int32), number]), *examples

        return self.source.from_index(first, share).enumerate().map(seeded)


def slide_windows(examples: tf.data.Dataset, size: int) -> tf.data.Dataset:
    """Puts each example into a tuple with the `size - 1` ones after it."""

    def slide(last: tuple, example: Any) -> tuple[tuple, tuple]:
        window = (*last[1:], example)
        return window, window

    # Not `window`: it makes a data set within the data set of each example.
    nothing = tf.nest.map_structure(
        lambda spec: tf.zeros([side or 0 for side in spec.shape], spec.dtype),
        examples.element_spec,
    )
    return examples.scan((nothing,) * size, slide).skip(size - 1)
