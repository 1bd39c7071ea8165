"""The process that runs a graph: variables of TensorFlow, Keras and OpenCV, and memory.

Imports none of them.
"""

import ctypes
import gc
import os
import sys
from typing import Any

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h.
# Numbers of threads, of TensorFlow within an operation and for several, and of OpenCV.
_THREADS = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


def set_variables(threads: int | None = None) -> None:
    """Sets the variables that TensorFlow, Keras and OpenCV read when imported.

    Variables that the user has set stay, except the backend of Keras. Those of
    TensorFlow stay unset in a process that has imported it already, as it no longer
    reads them.

    Args:
        threads: Threads of TensorFlow's operations, and of OpenCV's; None for the
            number of cores.

    Raises:
        ImportError: Keras is imported already, with another backend than TensorFlow.
    """
    keras: Any = sys.modules.get("keras")
    backend = keras.config.backend() if keras else "tensorflow"
    if backend != "tensorflow":
        raise ImportError(
            f"the backend of Keras must be 'tensorflow', got {backend!r}; set "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )
    # The graph is TensorFlow, whatever backend Keras is configured for.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Notes of FFmpeg and OpenCV on each damaged clip are not for the user.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    if "tensorflow" in sys.modules:
        return
    if threads is not None:
        for name in _THREADS:
            os.environ.setdefault(name, str(threads))
    # TensorFlow's notes on its own internals are not for the user either.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN off where a processor lacks AVX512. The graph takes half
    # the time with it there, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def count_cores() -> int:
    """Counts the cores that this process may use; all where that is unknown (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_single_malloc_arena() -> None:
    """Makes all threads allocate from one heap, for commands that run alone.

    By default glibc gives each thread heaps of its own, and memory freed in one cannot
    be used by another: `dfdetect detect` takes a tenth more. Without glibc nothing
    happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def release_memory() -> None:
    """Gives memory that is free back to the system, between steps that need much.

    Python is late to free graphs, which refer to themselves, and glibc keeps what lies
    below memory in use; without glibc that part is left out.
    """
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
