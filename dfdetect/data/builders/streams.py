"""Runs the tasks of a split, in threads or on Apache Beam: the same records."""

import logging
import pickle
import queue
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from dfdetect.data.builders.account import Account

Record = tuple[str, dict[str, Any]]

# Turns one task into records and notes in the account what became of its files.
Process = Callable[[Any, Account], Iterator[Record]]

_log = logging.getLogger(__name__)

_MAX_WAITING = 64  # Records made ahead of the writer; they bound the memory.
_SECONDS_BETWEEN_LINES = 30  # of progress
_SECONDS_TO_STOP = 5  # for a thread that may hang in a file

_END = object()


def run_in_threads(
    split: str,
    tasks: Sequence[Any],
    *,
    process: Process,
    account: Account,
    num_threads: int,
) -> Iterator[Record]:
    """Runs the tasks in threads; yields their records as they come, in any order."""
    made: queue.Queue[Any] = queue.Queue(_MAX_WAITING)
    stop = threading.Event()
    todo = iter(tasks)
    lock = threading.Lock()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return made.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    task = next(todo, _END)
                if task is _END:
                    break
                own = Account(account.strict)
                for record in process(task, own):
                    put(record)
                    if stop.is_set():
                        return
                put(own)
            put(_END)
        except BaseException as error:  # It is raised again by the reader.
            put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(num_threads)]
    progress = _Lines(split, len(tasks))
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            item = made.get()
            if isinstance(item, Account):
                account.add(item)
                progress.task_done()
            elif isinstance(item, BaseException):
                raise item
            elif item is _END:
                running -= 1
            else:
                progress.record_made()
                yield item
    finally:
        stop.set()
        for thread in threads:
            thread.join(_SECONDS_TO_STOP)


class _Lines:
    """A line of progress in a log now and then; TFDS draws a bar on a terminal."""

    def __init__(self, split: str, num_tasks: int) -> None:
        self._split, self._num_tasks = split, num_tasks
        self._records = self._tasks = 0
        self._start = self._last = time.monotonic()

    def record_made(self) -> None:
        self._records += 1

    def task_done(self) -> None:
        self._tasks += 1
        now = time.monotonic()
        if now - self._last > _SECONDS_BETWEEN_LINES:
            self._last = now
            _log.info(
                "%s: %d of %d parts done, %d records, %.1f a second",
                self._split,
                self._tasks,
                self._num_tasks,
                self._records,
                self._records / (now - self._start),
            )


def import_beam() -> types.ModuleType:
    """Imports Apache Beam, an optional package.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import apache_beam
    except ImportError as error:
        raise ImportError(
            "Apache Beam is missing: pip install dfdetect[beam]"
        ) from error
    return apache_beam


def build_beam_transform(
    tasks: Sequence[Any],
    process: Process,
    *,
    strict: bool,
    account_path: str,
    module: types.ModuleType,
) -> Any:
    """Builds a Beam transform that makes the records and writes their account.

    Args:
        tasks: Arguments of `process`.
        process: Makes the records of a task.
        strict: See `account.Account`.
        account_path: File to which the workers write the sum of their accounts.
        module: Sent to the workers whole, as they cannot import it.

    Raises:
        ImportError: Apache Beam is not installed.
    """
    beam = import_beam()
    from apache_beam.internal import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    packed = [cloudpickle.dumps(task) for task in tasks]

    def run(task: bytes) -> Iterator[Any]:
        own = Account(strict)
        yield from process(pickle.loads(task), own)
        yield beam.pvalue.TaggedOutput("accounts", own)

    def add_up(accounts: Iterable[Account]) -> Account:
        total = Account(strict)
        for account in accounts:
            total.add(account)
        return total

    def write(account: Account) -> None:
        with tf.io.gfile.GFile(account_path, "w") as file:
            file.write(account.to_json())

    def expand(begin: Any) -> Any:
        outputs = (
            begin
            | "Tasks" >> beam.Create(packed)
            # Or one worker would do all of them.
            | "Share" >> beam.Reshuffle()
            | "Records" >> beam.FlatMap(run).with_outputs("accounts", main="records")
        )
        _ = (
            outputs.accounts
            | "Add up" >> beam.CombineGlobally(add_up)
            | "Write account" >> beam.Map(write)
        )
        return outputs.records

    return beam.ptransform_fn(expand)()
