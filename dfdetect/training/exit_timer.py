"""Ends the process from within a call that holds Python's lock, after a time.

TensorFlow connects workers in such a call: no Python thread or signal handler runs in
it. A signal would not end it either where it is the first process of a container. So
the C library ends it: a timer of POSIX calls `_exit` in a thread of its own.
"""

import contextlib
import ctypes
from collections.abc import Iterator

_CLOCK_MONOTONIC = 1  # Of Linux.
_SIGEV_THREAD = 2


class _Event(ctypes.Structure):
    """`struct sigevent`, for a function that is called with a number."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("rest", ctypes.c_byte * 40),
    )


class _Time(ctypes.Structure):
    """`struct itimerspec`: an interval, none here, and the time until the call."""

    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in ("every_seconds", "every_rest", "seconds", "nanoseconds")
    )


@contextlib.contextmanager
def exiting_after(seconds: float, code: int) -> Iterator[None]:
    """Ends the process at once with an exit code if the block takes longer.

    Where the C library has no such timer, as on macOS, the block has no limit.

    Args:
        seconds: Longest time of the block, above 0.
        code: Exit code.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "timer_create"):
        yield
        return
    leave = ctypes.cast(library._exit, ctypes.c_void_p)
    event = _Event(code, 0, _SIGEV_THREAD, leave)
    timer = ctypes.c_void_p()
    whole = int(seconds)
    time = _Time(0, 0, whole, max(1, int((seconds - whole) * 1e9)))
    _check(
        library.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer))
    )
    try:
        _check(library.timer_settime(timer, 0, ctypes.byref(time), None))
        yield
    finally:
        library.timer_delete(timer)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "no timer could be set")
