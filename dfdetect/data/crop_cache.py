"""Decoded crops in memory: a run of many passes decodes each of them once."""

import threading

import numpy as np
import tensorflow as tf

from dfdetect.media import decode


class CropCache:
    """A cache that keeps what comes first, up to a number of bytes, and evicts nothing.

    Batches draw each crop about as often as the next: no other choice would do better.

    Args:
        most_bytes: Most bytes of pixels to keep.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: dict[tuple[int, ...], bytes] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, ...]) -> bytes | None:
        """Returns a crop, see `decode.pack`, or None."""
        return self._kept.get(key)

    def keep(self, key: tf.Tensor, crop: tf.Tensor) -> tf.Tensor:
        """Keeps a crop in passing, in a graph.

        Args:
            key: int64 `[K]`.
            crop: uint8 `[height, width, 3]`.

        Returns:
            The crop.
        """
        done = tf.numpy_function(self._keep, [key, decode.pack(crop)], tf.bool)
        with tf.control_dependencies([done]):
            return tf.identity(crop)

    def _keep(self, key: np.ndarray, packed: bytes) -> bool:
        name = tuple(key.tolist())
        with self._lock:
            fits = self._bytes + len(packed) <= self._most_bytes
            if fits and name not in self._kept:
                self._kept[name] = packed
                self._bytes += len(packed)
        return fits
