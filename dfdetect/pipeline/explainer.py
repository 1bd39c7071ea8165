"""Computes heat maps of the heads of an image."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dfdetect.pipeline import chunking, head_detection


class Explainer:
    """Computes heat maps of heads, one image after the other.

    The maps of the last call are kept, as a copy and a report show the same ones.

    Args:
        explain: The signature `explain` of a graph.
        margin: Margin of the graph's classifier, or None; see `boxes.crop_regions`.
    """

    def __init__(
        self, explain: Callable[[tf.Tensor], chunking.Outputs], margin: float | None
    ) -> None:
        self._explain = explain
        self._margin = margin
        # The arguments of the last call, and what it returned.
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._found: tuple[np.ndarray, np.ndarray]

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes the heat maps of some heads.

        Args:
            image: `[height, width, 3]` uint8 RGB.
            boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`; empty is fine.

        Returns:
            The regions in pixels that the classifier sees, int32 `[num_heads, 4]`: y,
            x, height and width; and the map of each, float32 `[num_heads, S, S]`.
        """
        # Boxes of a result line are float64.
        boxes = np.asarray(boxes, np.float32)
        last = self._last
        if last is None or not all(map(np.array_equal, last, (image, boxes))):
            regions, crops = head_detection.encode_crops(image, boxes, self._margin)
            maps = self._explain(tf.constant(crops, tf.string))["heat_map"].numpy()
            self._last, self._found = (image, boxes), (regions, maps)
        return self._found
