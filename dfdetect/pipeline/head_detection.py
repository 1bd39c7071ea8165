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
from dfdetect.pipeline import chunking, detector_settings, image_batch, tiling


@dataclasses.dataclass(frozen=True)
class FoundHeads:
    """The heads of a batch of B images, of which R are readable.

    Attributes:
        status: int32 `[B]`, see `image_batch.read`.
        readable: int64 `[R, 1]`, the places of the readable images.
        boxes: float32 `[R, N, 4]`.
        scores: float32 `[R, N]`.
        num_heads: int32 `[R]`.
        is_head: bool `[R, N]`, False for padding.
        judged: bool `[R, N]`, False for padding and heads that are too small.
        crops: float32 `[K, S, S, 3]`, crops of the judged heads, in order.
    """

    status: tf.Tensor
    readable: tf.Tensor
    boxes: tf.Tensor
    scores: tf.Tensor
    num_heads: tf.Tensor
    is_head: tf.Tensor
    judged: tf.Tensor
    crops: tf.Tensor

    def scatter_to_batch(self, values: tf.Tensor, nothing: Any = 0) -> tf.Tensor:
        """Scatters `[R, ...]` to `[B, ...]`, with `nothing` for unreadable images."""
        shape = tf.concat([tf.shape(self.status), tf.shape(values)[1:]], 0)
        empty = tf.fill(shape, tf.constant(nothing, values.dtype))
        return tf.tensor_scatter_nd_update(empty, self.readable, values)

    def compute_status(self) -> tf.Tensor:
        """Computes the status of each image after detection, int32 `[B]`."""
        any_judged = tf.reduce_any(self.judged, axis=1)
        outcome = tf.where(any_judged, image_status.OK, image_status.HEAD_TOO_SMALL)
        outcome = tf.where(self.num_heads > 0, outcome, image_status.NO_HEAD)
        return tf.tensor_scatter_nd_update(self.status, self.readable, outcome)


def build_detector_function(
    detector: keras.Model, settings: detector_settings.DetectorSettings
) -> Callable[[tf.Tensor], chunking.Outputs]:
    """Builds one function of the detector and its post-processing, traced once.

    Args:
        detector: An `EfficientDet`.
        settings: Its settings.

    Returns:
        A function of letterboxed images, float32 `[B, S, S, 3]`, that gives `boxes`
        `[B, N, 4]`, `scores` `[B, N]` and `num_heads` int32 `[B]`, padded with zeros.
    """
    size = settings.image_size

    def detect(letterboxed: tf.Tensor) -> chunking.Outputs:
        class_logits, box_offsets = detector(letterboxed, training=False)
        boxes, scores, num_heads = postprocess.select_detections(
            class_logits,
            box_offsets,
            detector.anchors.boxes,
            max_detections=settings.max_detections,
            iou_threshold=settings.iou_threshold,
            score_threshold=settings.score_threshold,
            soft_nms_sigma=settings.soft_nms_sigma,
            containment_threshold=settings.containment_threshold,
        )
        return {"boxes": boxes, "scores": scores, "num_heads": num_heads}

    # AutoGraph would take seconds, and there is no Python control flow to convert.
    spec = tf.TensorSpec([None, size, size, 3], tf.float32)
    return tf.function(detect, input_signature=[spec], autograph=False)


def encode_crops(
    image: np.ndarray, boxes: np.ndarray, margin: float | None
) -> tuple[np.ndarray, list[bytes]]:
    """Cuts heads out of one image, for the signatures that take one head each.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`; empty is fine.
        margin: Margin of the graph's classifier, or None; see `boxes.crop_regions`.

    Returns:
        The regions in pixels, int32 `[num_heads, 4]`: y, x, height and width; and a
        PNG of each, without loss, so that the classifier sees the same pixels.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    height, width = image.shape[:2]
    regions = np.asarray(box_format.crop_regions(boxes, height, width, margin))
    crops = [
        # Not compressed, as it is decoded again at once.
        tf.io.encode_png(image[y : y + height, x : x + width], 0).numpy()
        for y, x, height, width in regions
    ]
    return regions, crops


def find_heads(
    detect: Callable[[tf.Tensor], chunking.Outputs],
    images: image_batch.ImageBatch,
    settings: detector_settings.DetectorSettings,
    at_once: int,
) -> chunking.Outputs:
    """Finds the heads of images of any sizes.

    Args:
        detect: See `build_detector_function`.
        images: `[B]`, all readable.
        settings: Settings of the detector. With a `tile_size`, the detector sees each
            image as a whole and in overlapping tiles, see `tiling.split_views`.
        at_once: Images or tiles that the detector sees in one call.

    Returns:
        The outputs of `detect` with boxes relative to the originals; and `sides`
        float32 `[B, N]`, the longer side of each box in pixels of its original.
    """
    size, num_boxes = settings.image_size, settings.max_detections
    specs = {
        "boxes": tf.TensorSpec([None, num_boxes, 4]),
        "scores": tf.TensorSpec([None, num_boxes]),
        "num_heads": tf.TensorSpec([None], tf.int32),
        "extents": tf.TensorSpec([None, 2], tf.int32),
    }

    def detect_whole(*tensors: tf.Tensor) -> chunking.Outputs:
        images = image_batch.ImageBatch(*tensors)
        letterboxed, extents = image_batch.letterbox(images, size)
        return {**detect(letterboxed), "extents": extents}

    def detect_in_tiles(packed: tf.Tensor, *_: tf.Tensor) -> chunking.Outputs:
        image = decode.unpack(packed[0])
        found = tiling.find_in_views(detect, image, settings, at_once)
        found = {name: value[None] for name, value in found.items()}
        return {**found, "extents": tf.shape(image)[None, :2]}

    if settings.tile_size:
        found = chunking.map_chunks(detect_in_tiles, list(images), 1, specs)
        boxes, extents = found["boxes"], found.pop("extents")
    else:
        found = chunking.map_chunks(detect_whole, list(images), at_once, specs)
        extents = found.pop("extents")
        heights, widths = extents[:, 0, None], extents[:, 1, None]
        boxes = resize.unletterbox_boxes(found["boxes"], heights, widths)
    pixels = tf.cast(extents[:, None], tf.float32)
    sides = tf.reduce_max((boxes[..., 2:] - boxes[..., :2]) * pixels, axis=-1)
    return {**found, "boxes": boxes, "sides": sides}


def cut_heads(
    images: image_batch.ImageBatch,
    boxes: tf.Tensor,
    chosen: tf.Tensor,
    size: int,
    margin: float,
) -> tf.Tensor:
    """Cuts the chosen heads out of images, as `resize.crop_heads` does.

    Args:
        images: `[B]`, all readable.
        boxes: `[B, N, 4]`, relative to the originals.
        chosen: bool `[B, N]`.
        size: Side of the crops in pixels.
        margin: See `boxes.square_crops`.

    Returns:
        float32 `[K, size, size, 3]`, image after image.
    """

    # From the original, not the letterboxed image, which would resize a head twice.
    def cut(pixels: tf.Tensor, squares: tf.Tensor) -> chunking.Outputs:
        return {"crops": resize.crop_squares(pixels, squares, size)}

    specs = {"crops": tf.TensorSpec([None, size, size, 3])}
    return cut_each(cut, images, boxes, chosen, margin=margin, specs=specs)["crops"]


def cut_each(
    cut: Callable[[tf.Tensor, tf.Tensor], chunking.Outputs],
    images: image_batch.ImageBatch,
    boxes: tf.Tensor,
    chosen: tf.Tensor,
    *,
    margin: float,
    specs: dict[str, tf.TensorSpec],
) -> chunking.Outputs:
    """Cuts the chosen heads out of images, one image after the other.

    Args:
        cut: Takes pixels and squares, see `image_batch.locate_squares`; gives a row for
            each square.
        images: `[B]`, all readable.
        boxes: `[B, N, 4]`, relative to the originals.
        chosen: bool `[B, N]`.
        margin: See `boxes.square_crops`.
        specs: Specs of the outputs of `cut`, see `chunking.map_chunks`.
    """

    def cut_one(*one: tf.Tensor) -> chunking.Outputs:
        *parts, boxes, chosen = (tensor[0] for tensor in one)
        image = image_batch.ImageBatch(*parts)
        wanted = tf.boolean_mask(boxes, chosen)
        return cut(*image_batch.locate_squares(image, wanted, margin))

    rows = [*images, boxes, chosen]
    return chunking.map_chunks(cut_one, rows, 1, specs, at_once=chunking.ROWS_AT_ONCE)
