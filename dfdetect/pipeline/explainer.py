"""The heat maps of an image's heads."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dfdetect.pipeline import chunking, head_detection


class Explainer:
    """The heat maps of heads of one image after the other.

    Those of the last call are kept: a copy and a report show the same.

    Args:
        explain: The signature `explain` of a graph.
        margin: That of the graph's classifier, or None; see `boxes.crop_regions`.
    """

    def __init__(
        self, explain: Callable[[tf.Tensor], chunking.Outputs], margin: float | None
    ) -> None:
        self._explain = explain
        self._margin = margin
        # What was asked for last, and what was answered.
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._found: tuple[np.ndarray, np.ndarray]

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The heat maps of some heads.

        Args:
            image: `[height, width, 3]` uint8 RGB.
            boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`; empty is fine.

        Returns:
            int32 `[num_heads, 4]`, the regions in pixels that the classifier saw: y,
            x, height and width; float32 `[num_heads, S, S]`, the map of each.
        """
        # One caller has read them from a result line, which has them as float64.
        boxes = np.asarray(boxes, np.float32)
        last = self._last
        if last is None or not all(map(np.array_equal, last, (image, boxes))):
            regions, crops = head_detection.encoded_crops(image, boxes, self._margin)
            maps = self._explain(tf.constant(crops, tf.string))["heat_map"].numpy()
            self._last, self._found = (image, boxes), (regions, maps)
        return self._found
