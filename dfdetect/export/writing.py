"""Tells in one line why an export cannot be written, such as a disk that is full."""

import contextlib
import errno
import os
from collections.abc import Iterator

import tensorflow as tf

_NO_SPACE = os.strerror(errno.ENOSPC)


@contextlib.contextmanager
def errors_told(directory: str) -> Iterator[None]:
    """Names the folder in errors of writing within a block.

    Args:
        directory: The folder that a person asked for.

    Raises:
        OSError: Something could not be written. TensorFlow tells it in many lines, and
            Python without a path.
    """
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{directory} cannot be written: {reason}") from error
    except tf.errors.OpError as error:
        line = error.message.partition("\n")[0]
        # After the name of a file that was written aside.
        reason = _NO_SPACE if _NO_SPACE in line else line
        raise OSError(f"{directory} cannot be written: {reason}") from error
