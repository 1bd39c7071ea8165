"""Iterators: in batches, and made on threads before they are asked for."""

import collections
import concurrent.futures
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")
_Made = TypeVar("_Made")

_END = object()
_SECONDS_TO_STOP = 5  # For a thread that may hang in a file.


def ahead(items: Iterable[_T], depth: int) -> Generator[_T, None, None]:
    """Yields items that a thread makes, in their order.

    The thread begins with the first that is asked for, and ends when the iterator is
    closed. What `items` raises is raised here, in its place.

    Args:
        items: Iterated over on the thread.
        depth: The most items that wait; one more is being made.
    """
    made: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return made.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
        except BaseException as raised:  # noqa: B036 - it is raised again.
            error = raised
        put((_END, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if item is _END:
                if error:
                    raise error
                return
            yield item
    finally:
        stop.set()
        thread.join(_SECONDS_TO_STOP)


def mapped(
    function: Callable[[_T], _Made], items: Iterable[_T], at_once: int
) -> Generator[_Made, None, None]:
    """Yields what a function makes of items, in their order, several in the making.

    Args:
        function: Called on threads. What it raises is raised here, in its place.
        items: Iterated over here, as far as is needed.
        at_once: Calls that are made at the same time.
    """
    made: collections.deque[concurrent.futures.Future[_Made]] = collections.deque()

    def begin(item: _T) -> None:
        future: concurrent.futures.Future[_Made] = concurrent.futures.Future()

        def work() -> None:
            try:
                future.set_result(function(item))
            except BaseException as raised:  # noqa: B036 - it is raised again.
                future.set_exception(raised)

        # An executor would wait for its threads, whatever they hang in.
        threading.Thread(target=work, daemon=True).start()
        made.append(future)

    def first() -> _Made:
        # Interrupted, it is still among those that are waited for.
        result = made[0].result()
        made.popleft()
        return result

    try:
        for item in items:
            begin(item)
            if len(made) == at_once:
                yield first()
        while made:
            yield first()
    finally:
        concurrent.futures.wait(made, _SECONDS_TO_STOP)


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yields lists of `size` items in their order; the last may be shorter.

    As `itertools.batched`, which begins with Python 3.12.
    """
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
