"""A process that reads and writes large JSON, so that this one can answer meanwhile.

Python reads tens of megabytes of numbers for seconds, in which no other thread of the
process runs.
"""

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from dfdetect.serving import errors

_NICENESS = 5


class JsonWorker:
    """Calls functions in a process that is started when it is first needed.

    One call at a time, so that the memory of many does not add up.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: Any = None
        self._pipe: Any = None

    def call(
        self, function: Callable[..., Any], *arguments: Any, deadline: float
    ) -> Any:
        """Calls a function of a module in the process and returns its result.

        Args:
            function: Found by its name in the other process.
            arguments: Sent there.
            deadline: Time of `time.monotonic`.

        Raises:
            errors.ServingError: The function's own, or it did not end in time.
        """
        late = errors.ServingError("DEADLINE_EXCEEDED", "Deadline exceeded in JSON")
        if not self._turn.acquire(timeout=_until(deadline)):
            raise late
        try:
            if self._process is None:
                self._start()
            self._pipe.send((function, arguments))
            if not self._pipe.poll(_until(deadline)):
                self._end()
                raise late
            is_answer, value = self._pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self._end()
            message = "The process that reads JSON has ended"
            raise errors.ServingError("RESOURCE_EXHAUSTED", message) from error
        finally:
            self._turn.release()
        if is_answer:
            return value
        raise value

    def close(self) -> None:
        """Ends the process, also where a call is waiting for it."""
        if self._process is not None:
            self._process.kill()
        with self._turn:
            self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs,), name="dfdetect-json", daemon=True
        )
        try:
            process.start()
        except OSError:
            ours.close()
            raise
        finally:
            # Then reading ends with the other process.
            theirs.close()
        self._process, self._pipe = process, ours

    def _end(self) -> None:
        if self._process is None:
            return
        self._pipe.close()
        self._process.kill()
        self._process.join()
        self._process = None


def _until(deadline: float) -> float:
    return min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)


def _work(pipe: Any) -> None:
    # A person's Ctrl+C is for the server, which answers what it has accepted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    # Lists of millions of numbers would be walked over again and again.
    gc.disable()
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except errors.ServingError as error:
            answer = False, error
        except MemoryError:
            answer = False, errors.ServingError("RESOURCE_EXHAUSTED", "out of memory")
        with contextlib.suppress(BrokenPipeError):
            pipe.send(answer)
        del function, arguments, answer
