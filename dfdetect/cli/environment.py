"""What TensorFlow and OpenCV read of the environment while they are imported."""

import ctypes
import os

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h.


def prepare() -> None:
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


def share_memory() -> None:
    """Lets all threads take memory from one heap, for commands that run alone.

    By default glibc gives each thread heaps of its own, and what one has freed no other
    can use: `dfdetect detect` takes a tenth more by that. Elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
