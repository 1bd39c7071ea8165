"""Prefetching, order-preserving parallel map and batching of iterables."""

import collections
import concurrent.futures
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")
_Result = TypeVar("_Result")

_END = object()
_STOP_TIMEOUT = 5  # Seconds, for a thread that may hang while reading a file.


def prefetch(items: Iterable[_T], depth: int) -> Generator[_T, None, None]:
    """Yields items in order, while a thread computes the next ones.

    The thread starts with the first request, and ends when the generator is closed.
    Exceptions of `items` are raised here, after the items before them.

    Args:
        items: Iterated over on the thread.
        depth: Most items to hold; the thread works on one more.
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
        thread.join(_STOP_TIMEOUT)


def parallel_map(
    function: Callable[[_T], _Result], items: Iterable[_T], at_once: int
) -> Generator[_Result, None, None]:
    """Yields the results of a function in the order of its items, in parallel.

    Args:
        function: Called on threads. Its exceptions are raised here, after the results
            before them.
        items: Iterated over on the calling thread, no further than needed.
        at_once: Number of parallel calls.
    """
    made: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()

    def begin(item: _T) -> None:
        future: concurrent.futures.Future[_Result] = concurrent.futures.Future()

        def work() -> None:
            try:
                future.set_result(function(item))
            except BaseException as raised:  # noqa: B036 - it is raised again.
                future.set_exception(raised)

        # Not an executor, which would wait for threads that hang.
        threading.Thread(target=work, daemon=True).start()
        made.append(future)

    def first() -> _Result:
        # Removed after the result is there, so that an interrupt still waits for it.
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
        concurrent.futures.wait(made, _STOP_TIMEOUT)


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yields lists of `size` items in order; the last may be shorter.

    Like `itertools.batched` of Python 3.12.
    """
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
