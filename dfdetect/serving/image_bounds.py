"""A limit of image sizes below that of an exported graph.

2.5 kB of WebP may be 64 megapixels, which take seconds and half a gigabyte to decode.
"""

import functools
import math
import struct
import time
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from dfdetect.media import headers, image_status
from dfdetect.serving import errors

_ALIAS = "image_bytes"
_AT_ONCE = 8  # Images whose headers are read between two looks at the time.
_SIDE = 2**30
# The header of a file that promises more than any graph of ours decodes.
_TOO_LARGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", _SIDE, _SIDE)


def hide_large(
    signature: meta_graph_pb2.SignatureDef,
    feeds: dict[str, Any],
    max_pixels: int,
    deadline: float = math.inf,
) -> dict[str, Any]:
    """Puts a header alone in the place of large images, which the graph then refuses.

    Args:
        signature: Only of one of ours, which gives a `status` or an embedding alone,
            anything is changed.
        feeds: Values by tensor name.
        max_pixels: Most pixels of an image that stays.
        deadline: Time of `time.monotonic` until which headers may be read: those of a
            large batch can be made to take minutes.

    Returns:
        The feeds, whose images of more pixels come to be `too_large`.

    Raises:
        errors.ServingError: The deadline has passed.
    """
    outputs = {*signature.outputs}
    # Embeddings come alone.
    is_ours = "status" in outputs or outputs == {"embedding"}
    is_ours = is_ours and _ALIAS in signature.inputs
    if max_pixels >= image_status.MAX_PIXELS or not is_ours:
        return feeds
    name = signature.inputs[_ALIAS].name
    given = feeds[name]
    if given.ndim != 1 or not len(given):
        return feeds
    counts = []
    for start in range(0, len(given), _AT_ONCE):
        if time.monotonic() > deadline:
            raise errors.ServingError(
                "DEADLINE_EXCEEDED", "Deadline exceeded while headers were read"
            )
        counts.append(_count_pixels()(tf.constant(given[start : start + _AT_ONCE])))
    is_large = np.concatenate(counts) > max_pixels
    if not is_large.any():
        return feeds
    given = given.copy()
    given[is_large] = _TOO_LARGE
    return {**feeds, name: given}


@functools.cache
def _count_pixels() -> Any:
    """Builds a function of files, string `[B]`, to pixels, int64 `[B]`; 0 if unread."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def count(image_bytes: tf.Tensor) -> tf.Tensor:
        header = headers.read_batch(image_bytes)
        return header[:, headers.HEIGHT] * header[:, headers.WIDTH]

    return count
