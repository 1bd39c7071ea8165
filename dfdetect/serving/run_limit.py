"""Bounds how many requests run at once while a version of a model is being loaded.

Sixteen requests at once leave a load one thread in many on a machine of a few cores, so
that a new version would come after minutes. Taking turns costs the requests little: a
graph that runs alone uses all cores.
"""

import collections
import contextlib
import math
import threading
import time
from collections.abc import Iterator

from dfdetect.export import runtime
from dfdetect.serving import errors


class RunLimit:
    """Lets requests run at once without a bound, but few of them during a load.

    Requests that wait go in the order in which they came.

    Args:
        most: Most requests that run at once during a load; by default half of the
            processor's cores.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most or max(runtime.count_cores() // 2, 1)
        self._lock = threading.Lock()
        self._loads = 0
        self._running = 0
        self._waiting: collections.deque[threading.Event] = collections.deque()

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Bounds what begins to run inside the block."""
        with self._lock:
            self._loads += 1
        try:
            yield
        finally:
            with self._lock:
                self._loads -= 1
                self._admit()

    @contextlib.contextmanager
    def running(self, deadline: float = math.inf) -> Iterator[None]:
        """Runs the block when its turn has come.

        Args:
            deadline: Time of `time.monotonic` until which it waits.

        Raises:
            errors.ServingError: The deadline passed before.
        """
        turn = threading.Event()
        with self._lock:
            self._waiting.append(turn)
            self._admit()
        timeout = None if deadline == math.inf else deadline - time.monotonic()
        if not turn.wait(timeout):
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise errors.ServingError(
                        "DEADLINE_EXCEEDED", "Deadline exceeded in queue"
                    )
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._admit()

    def _admit(self) -> None:
        """Lets those run whose turn it is; called with the lock held."""
        while self._waiting and (not self._loads or self._running < self._most):
            self._running += 1
            self._waiting.popleft().set()
