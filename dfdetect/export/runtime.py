"""Environment variables of TensorFlow, Keras and OpenCV; imports none of them."""

import os
import sys
from typing import Any


def set_variables() -> None:
    """Sets the variables that TensorFlow, Keras and OpenCV read when imported.

    Variables that the user has set stay, except the backend of Keras. Those of
    TensorFlow stay unset in a process that has imported it already, as it no longer
    reads them.

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
    # TensorFlow's notes on its own internals are not for the user either.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN off where a processor lacks AVX512. The graph takes half
    # the time with it there, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
