"""Reads the head boxes that a prepared data set itself gives for its images."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import boxes as box_format

SIDES = ("ymin", "xmin", "ymax", "xmax")  # Fields of a head box, see `boxes`.

UNKNOWN = -1  # How many heads an image holds, where nothing says so.


@dataclasses.dataclass(frozen=True)
class GivenHeads:
    """The heads that the record of one image gives.

    Attributes:
        boxes: float32 `[K, 4]` of `dfdetect.boxes`, those that have an area; empty
            where the record has none, and for an image that is a crop already.
        count: Number of heads, or `UNKNOWN`.
    """

    boxes: np.ndarray
    count: int


def has_head_box(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether the records of a data set have the fields of a head box.

    The box of an image with the field `margin`, a crop, says where it was cut out.
    """
    features = builder.info.features
    return "margin" not in features and all(side in features for side in SIDES)


def clip_boxes(boxes: np.ndarray) -> np.ndarray:
    """Clips boxes `[K, 4]` as the graph does, and drops those that have no area then.

    NaN counts as 0.
    """
    boxes = np.clip(np.nan_to_num(boxes), 0, 1)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]


def parse_head_box(example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Parses the head box of a record in the graph, see `clip_boxes`.

    Returns:
        float32 `[4]` of `dfdetect.boxes`; zeros where the record has none.
    """
    sides = tf.stack([tf.cast(example[side], tf.float32) for side in SIDES])
    box = box_format.clip(tf.where(tf.math.is_nan(sides), 0.0, sides))
    return tf.where(tf.reduce_all(box[2:] > box[:2]), box, 0.0)


def cut_head(image: tf.Tensor, box: tf.Tensor, margin: float) -> tf.Tensor:
    """Cuts the square around a head out of an image, in the graph.

    Args:
        image: `[height, width, 3]`.
        box: `[4]` of `dfdetect.boxes`; all zeros return the image itself.
        margin: See `boxes.square_crops`.
    """

    def cut() -> tf.Tensor:
        height, width = tf.unstack(tf.shape(image)[:2])
        square = box_format.square_crops(box[None], height, width, margin)
        y, x, side = tf.unstack(square[0])
        return image[y : y + side, x : x + side]

    return tf.cond(tf.reduce_max(box) > 0, cut, lambda: image)


class GivenHeadReader:
    """Reads the given heads out of the records of a data set.

    Head boxes are the fields `ymin`, `xmin`, `ymax` and `xmax`, or `objects` with
    `bbox`; difficult objects are not judged and do not count. An image
    with the field `margin` is a crop and shows the head that was cut out. An image
    without a box shows one head, as sets of faces do, unless it is a frame of a clip.

    Args:
        builder: The data set.

    Attributes:
        fields: Names of the fields that `read` wants.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder) -> None:
        features = builder.info.features
        self._is_crop = "margin" in features
        self._has_box = has_head_box(builder)
        self._has_objects = (
            not self._is_crop and not self._has_box and _has_boxes(features)
        )
        self.fields = [
            *(SIDES if self._has_box else ()),
            *(["objects"] if self._has_objects else ()),
            *(["frame"] if "frame" in features else ()),
        ]

    def read(self, example: Mapping[str, Any]) -> GivenHeads:
        """Reads the heads of a record of NumPy values."""
        boxes = np.zeros((0, 4), np.float32)
        if self._has_box:
            boxes = np.array([[example[side] for side in SIDES]], np.float32)
        if self._has_objects:
            objects = example["objects"]
            boxes = np.asarray(objects["bbox"], np.float32).reshape(-1, 4)
            difficult = objects.get("is_difficult", np.zeros(len(boxes), bool))
            boxes = boxes[~np.asarray(difficult, bool)]
        boxes = clip_boxes(boxes)
        if self._has_objects or len(boxes):
            return GivenHeads(boxes, len(boxes))
        is_frame = not self._is_crop and example.get("frame", -1) >= 0
        return GivenHeads(boxes, UNKNOWN if is_frame else 1)


def _has_boxes(features: tfds.features.FeaturesDict) -> bool:
    objects = features["objects"] if "objects" in features else None
    return isinstance(objects, tfds.features.Sequence) and "bbox" in objects.feature
