"""Reads the sizes of images from the headers of their files, outside of a graph."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dfdetect.media import exif, headers


def read_upright_extents(contents: Sequence[bytes]) -> np.ndarray:
    """Reads heights and widths, int32 `[B, 2]`, of upright images; 0 where unreadable.

    Args:
        contents: The bytes of image files, of any kind.
    """
    extents = np.zeros((len(contents), 2), np.int32)
    for place, content in enumerate(contents):
        kind = headers.identify_kind(content)
        if kind is not None:
            extents[place] = _build_reader(kind)(tf.constant(content)).numpy()
    return extents


@functools.cache
def _build_reader(kind: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Builds a function that reads the extent of one file of a kind.

    Tracing `headers.read`, for all kinds, takes more processor time than judging forty
    images; most collections are of one kind.
    """

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def read(image_bytes: tf.Tensor) -> tf.Tensor:
        return exif.upright_extent(headers.read_of_kinds(image_bytes, [kind]))

    return read
