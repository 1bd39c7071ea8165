"""Finds heads with a detector: images in, boxes of the originals or crops out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect.media import decode, image_status, resize
from dfdetect.models import postprocess
from dfdetect.pipeline import chunking, image_batch, tiling


@dataclasses.dataclass(frozen=True)
class Found:
    """The heads of a batch, of whose images R are readable.

    Attributes:
        status: `[B]` of `image_batch.read`.
        readable: `[R, 1]`, the places of the readable ones.
        boxes: `[R, N, 4]`.
        scores: `[R, N]`.
        num_heads: `[R]`.
        is_head: bool `[R, N]`, False of padding.
        judged: bool `[R, N]`, False of what is too small.
        crops: `[K, S, S, 3]`, those that are judged, in order.
    """

    status: tf.Tensor
    readable: tf.Tensor
    boxes: tf.Tensor
    scores: tf.Tensor
    num_heads: tf.Tensor
    is_head: tf.Tensor
    judged: tf.Tensor
    crops: tf.Tensor

    def among_all(self, values: tf.Tensor, nothing: Any = 0) -> tf.Tensor:
        """`[R, ...]` as `[B, ...]`, with `nothing` for what is not readable."""
        shape = tf.concat([tf.shape(self.status), tf.shape(values)[1:]], 0)
        empty = tf.fill(shape, tf.constant(nothing, values.dtype))
        return tf.tensor_scatter_nd_update(empty, self.readable, values)

    def outcome(self) -> tf.Tensor:
        """`[B]`, the status of each image after its heads were looked for."""
        any_judged = tf.reduce_any(self.judged, axis=1)
        outcome = tf.where(any_judged, image_status.OK, image_status.HEAD_TOO_SMALL)
        outcome = tf.where(self.num_heads > 0, outcome, image_status.NO_HEAD)
        return tf.tensor_scatter_nd_update(self.status, self.readable, outcome)


def detector_function(
    detector: keras.Model, described: dict[str, Any], score_threshold: float
) -> Callable[[tf.Tensor], chunking.Outputs]:
    """The detector with its post-processing as one function, traced once.

    Args:
        detector: An `EfficientDet`.
        described: Its manifest, or of it `image_size`, `max_detections`,
            `iou_threshold`, and where they are not the defaults of
            `postprocess.select_class_detections`, `soft_nms_sigma` and
            `containment_threshold`.
        score_threshold: Heads score above it.

    Returns:
        Takes letterboxed images, float32 `[B, S, S, 3]`; gives `boxes` `[B, N, 4]`,
        `scores` `[B, N]` and `num_heads` int32 `[B]`, padded with zeros.
    """
    size = described["image_size"]

    def detect(letterboxed: tf.Tensor) -> chunking.Outputs:
        class_logits, box_offsets = detector(letterboxed, training=False)
        boxes, scores, num_heads = postprocess.select_detections(
            class_logits,
            box_offsets,
            detector.anchors.boxes,
            max_detections=described["max_detections"],
            iou_threshold=described["iou_threshold"],
            score_threshold=score_threshold,
            soft_nms_sigma=described.get("soft_nms_sigma", 0.0),
            containment_threshold=described.get("containment_threshold", 1.0),
        )
        return {"boxes": boxes, "scores": scores, "num_heads": num_heads}

    # There is no Python control flow to convert, and looking for it takes seconds.
    spec = tf.TensorSpec([None, size, size, 3], tf.float32)
    return tf.function(detect, input_signature=[spec], autograph=False)


def encoded_crops(
    image: np.ndarray, boxes: np.ndarray, margin: float | None
) -> tuple[np.ndarray, list[bytes]]:
    """Cuts heads out of one image, for the signatures that take one head each.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`; empty is fine.
        margin: That of the graph's classifier, or None; see `boxes.crop_regions`.

    Returns:
        int32 `[num_heads, 4]`, the regions in pixels: y, x, height and width; a PNG of
        each, without loss, so that a model sees what it saw.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    height, width = image.shape[:2]
    regions = np.asarray(box_format.crop_regions(boxes, height, width, margin))
    crops = [
        tf.io.encode_png(image[y : y + height, x : x + width]).numpy()
        for y, x, height, width in regions
    ]
    return regions, crops


def find(
    detect: Callable[[tf.Tensor], chunking.Outputs],
    images: image_batch.ImageBatch,
    described: dict[str, Any],
    at_once: int,
) -> chunking.Outputs:
    """Finds the heads of images of any sizes.

    Args:
        detect: Of `detector_function`.
        images: `[B]`, all of them readable.
        described: The detector's manifest. With a `tile_size`, the detector looks at
            each image as a whole and at overlapping tiles of it, see `tiling.views`.
        at_once: Images or tiles that the detector sees in one call.

    Returns:
        What `detect` gives, the boxes relative to the originals; `sides` float32
        `[B, N]`, the longer side of each box in pixels of its original.
    """
    size, num_boxes = described["image_size"], described["max_detections"]
    specs = {
        "boxes": tf.TensorSpec([None, num_boxes, 4]),
        "scores": tf.TensorSpec([None, num_boxes]),
        "num_heads": tf.TensorSpec([None], tf.int32),
        "extents": tf.TensorSpec([None, 2], tf.int32),
    }

    def look(*some: tf.Tensor) -> chunking.Outputs:
        seen, extents = image_batch.letterboxed(image_batch.ImageBatch(*some), size)
        return {**detect(seen), "extents": extents}

    def look_closely(packed: tf.Tensor, *_: tf.Tensor) -> chunking.Outputs:
        image = decode.unpack(packed[0])
        found = tiling.find(detect, image, described, at_once)
        found = {name: value[None] for name, value in found.items()}
        return {**found, "extents": tf.shape(image)[None, :2]}

    if described.get("tile_size"):
        found = chunking.by_chunks(look_closely, list(images), 1, specs)
        boxes, extents = found["boxes"], found.pop("extents")
    else:
        found = chunking.by_chunks(look, list(images), at_once, specs)
        extents = found.pop("extents")
        heights, widths = extents[:, 0, None], extents[:, 1, None]
        boxes = resize.unletterbox_boxes(found["boxes"], heights, widths)
    pixels = tf.cast(extents[:, None], tf.float32)
    sides = tf.reduce_max((boxes[..., 2:] - boxes[..., :2]) * pixels, axis=-1)
    return {**found, "boxes": boxes, "sides": sides}


def crops(
    images: image_batch.ImageBatch,
    boxes: tf.Tensor,
    chosen: tf.Tensor,
    size: int,
    margin: float,
) -> tf.Tensor:
    """Cuts the chosen heads out of images, as `resize.crop_heads` does.

    Args:
        images: `[B]`, all of them readable.
        boxes: `[B, N, 4]` of the originals.
        chosen: bool `[B, N]`.
        size: Side of the crops in pixels.
        margin: See `boxes.square_crops`.

    Returns:
        float32 `[K, size, size, 3]`, image after image.
    """

    # From the original, not the letterboxed image: a head of 40 px would be resized
    # twice.
    def cut(pixels: tf.Tensor, squares: tf.Tensor) -> chunking.Outputs:
        return {"crops": resize.crop_squares(pixels, squares, size)}

    specs = {"crops": tf.TensorSpec([None, size, size, 3])}
    return cut_each(cut, images, boxes, chosen, margin, specs)["crops"]


def cut_each(
    cut: Callable[[tf.Tensor, tf.Tensor], chunking.Outputs],
    images: image_batch.ImageBatch,
    boxes: tf.Tensor,
    chosen: tf.Tensor,
    margin: float,
    specs: dict[str, tf.TensorSpec],
) -> chunking.Outputs:
    """Cuts the chosen heads out of images, one image after the other.

    Args:
        cut: Takes pixels and squares of `image_batch.squares`.
        images: See `crops`, as for the three following.
        boxes: Alike.
        chosen: Alike.
        margin: Alike.
        specs: What `cut` returns, a row for each square; see `chunking.by_chunks`.
    """

    def cut_one(*one: tf.Tensor) -> chunking.Outputs:
        *parts, boxes, chosen = (tensor[0] for tensor in one)
        image = image_batch.ImageBatch(*parts)
        wanted = tf.boolean_mask(boxes, chosen)
        return cut(*image_batch.squares(image, wanted, margin))

    rows = [*images, boxes, chosen]
    return chunking.by_chunks(cut_one, rows, 1, specs, chunking.ROWS_AT_ONCE)
