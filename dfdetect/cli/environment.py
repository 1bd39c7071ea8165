"""Sets what TensorFlow and OpenCV read while they are imported; names the machine."""

import ctypes
import os
import pathlib
import platform

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h.


def set_variables() -> None:
    """Sets what a command of dfdetect wants, before either is imported.

    What the user has set stays, but for the backend of Keras.
    """
    # What TensorFlow says of its own making is not for a person, nor is what FFmpeg and
    # OpenCV say of each clip that is damaged.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    # TensorFlow leaves oneDNN off where a processor has no AVX512. Our graph takes half
    # the time with it there, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # The graph is TensorFlow whatever backend Keras is set to.
    os.environ["KERAS_BACKEND"] = "tensorflow"


def use_single_malloc_arena() -> None:
    """Lets all threads take memory from one heap, for commands that run alone.

    By default glibc gives each thread heaps of its own, and what one has freed no other
    can use: `dfdetect detect` takes a tenth more by that. Elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def describe_machine() -> str:
    """Processor, cores, memory, system and Python, in one line."""
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
