"""Joins requests into batches, as TensorFlow Serving's batching session does.

Unlike there, a request that the graph refuses costs the others of its batch nothing:
they are run again, each alone.
"""

import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from dfdetect.serving import config, errors, saved_model

Run = Callable[[saved_model.Arrays, Sequence[str]], dict[str, np.ndarray]]


@dataclasses.dataclass
class _Task:
    feeds: saved_model.Arrays
    size: int
    deadline: float
    done: concurrent.futures.Future
    born: float = dataclasses.field(default_factory=time.monotonic)


class Batcher:
    """Runs the requests of many threads in few calls of a graph.

    Only what agrees in its inputs' names, types and other dimensions, and in its
    outputs, is joined.

    Args:
        run: The graph, see `saved_model.SavedModel.run`.
        parameters: How to join.
        on_batch: Called for each batch: its size as run, and how many seconds its first
            request has waited.
    """

    def __init__(
        self,
        run: Run,
        parameters: config.Batching,
        on_batch: Callable[[int, float], None] = lambda size, waited: None,
    ) -> None:
        self._run = run
        self._parameters = parameters
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._queues: dict[tuple, collections.deque[_Task]] = {}
        self._queued = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{i}", daemon=True)
            for i in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(
        self, feeds: saved_model.Arrays, fetches: Sequence[str], deadline: float
    ) -> dict[str, np.ndarray]:
        """Waits for the outputs of one request.

        Args:
            feeds: Values by tensor name, all of one size in dimension 0.
            fetches: Names of tensors.
            deadline: Time of `time.monotonic` after which the request is not started.

        Raises:
            errors.ServingError: The request does not fit, the queue is full, or the
                deadline passed.
            tf.errors.OpError: The graph refuses the request.
        """
        size = self._size(feeds)
        largest = self._parameters.max_batch_size
        if size > largest and not self._parameters.enable_large_batch_splitting:
            raise errors.invalid(
                f"Task size {size} is larger than maximum input batch size {largest}"
            )
        parts = [
            {name: value[start : start + largest] for name, value in feeds.items()}
            for start in range(0, max(size, 1), largest)
        ]
        futures = self._enqueue(parts, tuple(sorted(set(fetches))), deadline)
        outputs = [future.result() for future in futures]
        if len(outputs) == 1:
            return outputs[0]
        return {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}

    def close(self) -> None:
        """Ends the threads once what is queued has run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _size(self, feeds: saved_model.Arrays) -> int:
        if not feeds:
            raise errors.invalid(
                "Batching session Run() must have at least one input tensor"
            )
        if any(value.ndim == 0 for value in feeds.values()):
            raise errors.invalid(
                "Batching session Run() input tensors must have at least one dimension"
            )
        sizes = {len(value) for value in feeds.values()}
        if len(sizes) > 1:
            raise errors.invalid(
                "Batching session Run() input tensors must have equal 0th-dimension "
                "size"
            )
        return sizes.pop()

    def _enqueue(
        self, parts: list[dict[str, np.ndarray]], fetches: tuple, deadline: float
    ) -> list[concurrent.futures.Future]:
        tasks = [
            _Task(part, self._size(part), deadline, concurrent.futures.Future())
            for part in parts
        ]
        padded = self._parameters.pad_variable_length_inputs
        kind = tuple(
            (name, value.dtype.str, value.ndim if padded else value.shape[1:])
            for name, value in sorted(parts[0].items())
        )
        bound = self._parameters.max_enqueued_batches * self._parameters.max_batch_size
        with self._changed:
            # Whatever its size, one request fits into an empty queue. One of no rows
            # takes room, too.
            added = sum(max(task.size, 1) for task in tasks)
            if self._closed or (self._queued and self._queued + added > bound):
                raise errors.ServingError(
                    "UNAVAILABLE",
                    "The batch scheduling queue to which this task was submitted "
                    "is full",
                )
            self._queued += added
            queue = self._queues.setdefault((kind, fetches), collections.deque())
            queue.extend(tasks)
            self._changed.notify_all()
        return [task.done for task in tasks]

    def _work(self) -> None:
        while True:
            with self._changed:
                found = self._next()
                while found is None:
                    if self._closed and not self._queues:
                        return
                    self._changed.wait(self._until_ripe())
                    found = self._next()
            self._run_batch(*found)

    def _next(self) -> tuple[list[_Task], tuple] | None:
        """Runs the next batch, from the oldest queue; returns its tasks and outputs."""
        now = time.monotonic()
        by_age = sorted(self._queues.items(), key=lambda item: item[1][0].born)
        for key, queue in by_age:
            size = sum(task.size for task in queue)
            waited = now - queue[0].born
            if not (
                self._closed
                or size >= self._parameters.max_batch_size
                or waited >= self._timeout
            ):
                continue
            tasks: list[_Task] = []
            room = self._parameters.max_batch_size
            while queue and (not tasks or queue[0].size <= room):
                tasks.append(queue.popleft())
                room -= tasks[-1].size
                self._queued -= max(tasks[-1].size, 1)
            if not queue:
                del self._queues[key]
            return tasks, key[1]
        return None

    @property
    def _timeout(self) -> float:
        return self._parameters.batch_timeout_micros / 1e6

    def _until_ripe(self) -> float | None:
        if not self._queues:
            return None
        oldest = min(queue[0].born for queue in self._queues.values())
        return max(oldest + self._timeout - time.monotonic(), 0.0)

    def _run_batch(self, tasks: list[_Task], fetches: tuple) -> None:
        now = time.monotonic()
        waited = now - tasks[0].born
        for task in tasks:
            if task.deadline < now:
                task.done.set_exception(
                    errors.ServingError(
                        "DEADLINE_EXCEEDED", "Deadline exceeded in queue"
                    )
                )
        tasks = [task for task in tasks if task.deadline >= now]
        if not tasks:
            return
        try:
            self._answer(tasks, fetches, waited)
        except BaseException as error:
            if len(tasks) == 1:
                tasks[0].done.set_exception(error)
                return
            for task in tasks:
                self._run_batch([task], fetches)

    def _answer(self, tasks: list[_Task], fetches: tuple, waited: float) -> None:
        size = sum(task.size for task in tasks)
        allowed = self._parameters.allowed_batch_sizes
        full = min((s for s in allowed if s >= size), default=size)
        feeds = {
            name: _join([task.feeds[name] for task in tasks], full)
            for name in tasks[0].feeds
        }
        outputs = self._run(feeds, fetches)
        for value in outputs.values():
            if value.ndim == 0:
                raise errors.ServingError(
                    "FAILED_PRECONDITION", "Batched output tensor has 0 dimensions"
                )
            if len(value) != full:
                raise errors.ServingError(
                    "FAILED_PRECONDITION",
                    "Batched output tensor's 0th dimension does not equal the sum of "
                    "the 0th dimension sizes of the input tensors",
                )
        self._on_batch(full, waited)
        start = 0
        for task in tasks:
            rows = slice(start, start + task.size)
            start += task.size
            task.done.set_result({name: value[rows] for name, value in outputs.items()})


def _join(values: list[np.ndarray], size: int) -> np.ndarray:
    """Concatenates values, and repeats their first row until there are `size`."""
    shape = np.max([value.shape[1:] for value in values], axis=0).astype(int)
    values = [_padded(value, shape) for value in values]
    lacking = size - sum(map(len, values))
    joined = values[0] if len(values) == 1 else np.concatenate(values)
    if lacking and len(joined):
        return np.concatenate([joined, np.repeat(joined[:1], lacking, axis=0)])
    return joined


def _padded(value: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Pads all dimensions of a value but the first to a shape."""
    if value.shape[1:] == tuple(shape):
        return value
    widths = [
        (0, 0),
        *((0, n - m) for n, m in zip(shape, value.shape[1:], strict=True)),
    ]
    filling = b"" if value.dtype == object else 0
    return np.pad(value, widths, constant_values=filling)
