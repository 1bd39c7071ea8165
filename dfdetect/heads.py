"""Finds heads with a detector, in a graph: pictures in, boxes of the originals out."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dfdetect import chunks, images, postprocess, tiles


def detector_function(
    detector: keras.Model, described: dict[str, Any], score_threshold: float
) -> Callable[[tf.Tensor], chunks.Outputs]:
    """The detector with its post-processing as one function, traced once.

    Args:
        detector: An `EfficientDet`.
        described: Its manifest, or of it `image_size`, `max_detections`,
            `iou_threshold`, and `soft_nms_sigma` if suppression is soft.
        score_threshold: Heads score above it.

    Returns:
        Takes letterboxed pictures, float32 `[B, S, S, 3]`; gives `boxes` `[B, N, 4]`,
        `scores` `[B, N]` and `num_heads` int32 `[B]`, padded with zeros.
    """
    size = described["image_size"]

    def detect(letterboxed: tf.Tensor) -> chunks.Outputs:
        class_logits, box_offsets = detector(letterboxed, training=False)
        boxes, scores, num_heads = postprocess.detections(
            class_logits,
            box_offsets,
            detector.anchors.boxes,
            max_detections=described["max_detections"],
            iou_threshold=described["iou_threshold"],
            score_threshold=score_threshold,
            soft_nms_sigma=described.get("soft_nms_sigma", 0.0),
        )
        return {"boxes": boxes, "scores": scores, "num_heads": num_heads}

    # There is no Python control flow to convert, and looking for it takes seconds.
    spec = tf.TensorSpec([None, size, size, 3], tf.float32)
    return tf.function(detect, input_signature=[spec], autograph=False)


def find(
    detect: Callable[[tf.Tensor], chunks.Outputs],
    packed: tf.Tensor,
    described: dict[str, Any],
    at_once: int,
) -> chunks.Outputs:
    """Finds the heads of pictures of any sizes.

    Args:
        detect: Of `detector_function`.
        packed: Pictures of `images.decode`, string `[B]`, all of them readable.
        described: The detector's manifest. With a `tile_size`, the detector looks at
            each picture as a whole and at overlapping tiles of it, see `tiles.views`.
        at_once: Pictures or tiles that the detector sees in one call.

    Returns:
        What `detect` gives, the boxes relative to the originals; `sides` float32
        `[B, N]`, the longer side of each box in pixels of its original.
    """
    size, num_boxes = described["image_size"], described["max_detections"]
    specs = {
        "boxes": tf.TensorSpec([None, num_boxes, 4]),
        "scores": tf.TensorSpec([None, num_boxes]),
        "num_heads": tf.TensorSpec([None], tf.int32),
    }

    def letterbox(one: tf.Tensor) -> tf.Tensor:
        return images.letterbox(images.unpack(one), size)

    def look(packed: tf.Tensor) -> chunks.Outputs:
        picture = tf.TensorSpec([size, size, 3])
        return detect(chunks.one_by_one(letterbox, packed, picture))

    def look_closely(packed: tf.Tensor) -> chunks.Outputs:
        found = tiles.find(detect, images.unpack(packed[0]), described, at_once)
        return {name: value[None] for name, value in found.items()}

    extents = chunks.one_by_one(
        lambda one: tf.shape(images.unpack(one))[:2],
        packed,
        tf.TensorSpec([2], tf.int32),
    )
    if described.get("tile_size"):
        found = chunks.by_chunks(look_closely, [packed], 1, specs)
        boxes = found["boxes"]
    else:
        found = chunks.by_chunks(look, [packed], at_once, specs)
        heights, widths = extents[:, 0, None], extents[:, 1, None]
        boxes = images.unletterbox_boxes(found["boxes"], heights, widths)
    pixels = tf.cast(extents[:, None], tf.float32)
    sides = tf.reduce_max((boxes[..., 2:] - boxes[..., :2]) * pixels, axis=-1)
    return {**found, "boxes": boxes, "sides": sides}
