"""Memory of the process, and the machine."""

import ctypes
import os
import pathlib
import platform

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h.


def use_single_malloc_arena() -> None:
    """Makes all threads allocate from one heap, for commands that run alone.

    By default glibc gives each thread heaps of its own, and memory freed in one cannot
    be used by another: `dfdetect detect` takes a tenth more. Without glibc nothing
    happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def describe_machine() -> str:
    """Describes processor, cores, memory, system and Python in one line."""
    processor = platform.processor() or platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(x.split(":", 1)[1].strip() for x in lines if "model name" in x)
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )
