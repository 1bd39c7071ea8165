"""Errors as both protocols tell them: a code, and one line without a server's path.

Imports nothing heavy: the process that reads large JSON has errors, too.
"""

import re
from collections.abc import Mapping, Sequence

HTTP_STATUS: Mapping[str, int] = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

_MOST_CHARACTERS = 1000
# At least two parts, so that a division or a single slash is left alone; not the
# rest of a URL or of a name with slashes.
_PATH = re.compile(r"(?<![\w./:<>-])(?:/[\w.@+~=-]+){2,}/?")


class ServingError(Exception):
    """An error whose code and message a client receives.

    Args:
        code: A name of `HTTP_STATUS`; the names are gRPC's.
        message: For the client.
    """

    def __init__(self, code: str, message: str) -> None:
        # It travels in a header, and may quote what the client sent.
        message = message[:_MOST_CHARACTERS]
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple:
        return type(self), (self.code, self.message)


def invalid(message: str) -> ServingError:
    """Returns an INVALID_ARGUMENT error, for a mistake of the client."""
    return ServingError("INVALID_ARGUMENT", message)


def to_serving_error(
    error: BaseException, model: str = "", paths: Sequence[str] = ()
) -> ServingError:
    """Returns the error that a client receives for any exception.

    Args:
        error: Raised by a graph, while a model was read, or by our own code.
        model: Name that replaces paths on this machine.
        paths: Relative paths to replace; absolute ones are found without.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import error_codes_pb2

    if isinstance(error, ServingError):
        return error
    if isinstance(error, tf.errors.OpError):
        code = error_codes_pb2.Code.Name(error.error_code)
        return ServingError(code, _told(error.message, model, paths))
    # What the reader of a SavedModel raises where TensorFlow Serving has a NOT_FOUND.
    if isinstance(error, OSError) or "associated with tags" in str(error):
        return ServingError("NOT_FOUND", _told(str(error), model, paths))
    if isinstance(error, MemoryError):
        return ServingError("RESOURCE_EXHAUSTED", "out of memory")
    message = str(error) or type(error).__name__
    return ServingError("INTERNAL", _told(message, model, paths))


def _told(message: str, model: str, paths: Sequence[str]) -> str:
    # Behind it come lines of the program that made the graph.
    message = message.partition("\n\nOriginal stack trace")[0]
    stand_in = f"<{model or 'path'}>"
    for path in paths:
        message = message.replace(path, stand_in)
    return " ".join(_PATH.sub(stand_in, message).split())
