"""Finds small heads in large images: the detector sees overlapping tiles as well."""

from collections.abc import Callable

import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect.media import resize
from dfdetect.pipeline import chunking, detector_settings

# Relative to the side of a tile. A head that the edge of a tile cuts lies whole in the
# next tile if it is no longer than the overlap, and else in the whole image.
OVERLAP = 0.25

# Most tiles along a side: beyond, tiles grow. It bounds the time that an image takes.
MOST_ALONG = 8

# A box within this many pixels of an inner edge of its view may have been cut there.
_EDGE = 2.0


def split_views(height: tf.Tensor, width: tf.Tensor, tile_size: int) -> tf.Tensor:
    """Splits an image into views: the whole, and tiles where it is larger than one.

    Args:
        height: Height of the image in pixels, int32 scalar.
        width: Width of the image in pixels, int32 scalar.
        tile_size: Side of a tile in pixels; more where a side would need more than
            `MOST_ALONG` tiles. Tiles overlap by `OVERLAP` of their side or more.

    Returns:
        int32 `[V, 4]`: top, left, bottom and right of each view, the whole first.
    """
    whole = tf.stack([0, 0, height, width])[None]
    longer = tf.cast(tf.maximum(height, width), tf.float32)
    least = tf.math.ceil(longer / (MOST_ALONG * (1 - OVERLAP) + OVERLAP))
    side = tf.maximum(tile_size, tf.cast(least, tf.int32))

    def starts(length: tf.Tensor) -> tf.Tensor:
        step = tf.cast(side, tf.float32) * (1 - OVERLAP)
        span = tf.cast(tf.maximum(length - side, 0), tf.float32)
        steps = tf.cast(tf.math.ceil(span / step - 1e-4), tf.int32)
        return tf.cast(tf.linspace(0.0, span, steps + 1), tf.int32)

    top, left = tf.meshgrid(starts(height), starts(width), indexing="ij")
    top, left = tf.reshape(top, [-1]), tf.reshape(left, [-1])
    bottom = tf.minimum(top + side, height)
    right = tf.minimum(left + side, width)
    tiles = tf.stack([top, left, bottom, right], axis=1)
    is_larger = tf.maximum(height, width) > side
    return tf.concat([whole, tiles[: tf.where(is_larger, tf.shape(tiles)[0], 0)]], 0)


def find_in_views(
    detect: Callable[[tf.Tensor], chunking.Outputs],
    image: tf.Tensor,
    settings: detector_settings.DetectorSettings,
    at_once: int,
) -> chunking.Outputs:
    """Finds the heads of one image in all of its views.

    Boxes that an inner edge of a view has cut are left out. Of boxes that overlap by
    more than `iou_threshold`, or share more of the smaller one than
    `containment_threshold`, from whatever views, only the best one stays.

    Args:
        detect: See `head_detection.build_detector_function`.
        image: uint8 `[H, W, 3]`.
        settings: Settings of the detector, with `tile_size`.
        at_once: Views that the detector sees in one call.

    Returns:
        `boxes` `[N, 4]` of the image, `scores` `[N]` and `num_heads` int32, padded
        with zeros.
    """
    assert settings.tile_size is not None
    size, num_boxes = settings.image_size, settings.max_detections
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    all_views = split_views(height, width, settings.tile_size)

    def detect_in(some: tf.Tensor) -> chunking.Outputs:
        def letterbox(view: tf.Tensor) -> tf.Tensor:
            cut = image[view[0] : view[2], view[1] : view[3]]
            return resize.letterbox(cut, size)

        return detect(
            chunking.map_rows(letterbox, some, tf.TensorSpec([size, size, 3]))
        )

    specs = {
        "boxes": tf.TensorSpec([None, num_boxes, 4]),
        "scores": tf.TensorSpec([None, num_boxes]),
        "num_heads": tf.TensorSpec([None], tf.int32),
    }
    found = chunking.map_chunks(detect_in, [all_views], at_once, specs)
    boxes, whole = _move_into_image(found["boxes"], all_views, height, width)
    is_head = tf.range(num_boxes) < found["num_heads"][:, None]
    boxes = tf.boolean_mask(boxes, is_head & whole)
    scores = tf.boolean_mask(found["scores"], is_head & whole)
    chosen = _suppress(boxes, scores, settings)
    num_heads = tf.shape(chosen)[0]
    padding = [[0, num_boxes - num_heads]]
    return {
        "boxes": tf.ensure_shape(
            tf.pad(tf.gather(boxes, chosen), [*padding, [0, 0]]), [num_boxes, 4]
        ),
        "scores": tf.ensure_shape(
            tf.pad(tf.gather(scores, chosen), padding), [num_boxes]
        ),
        "num_heads": num_heads,
    }


def _suppress(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    settings: detector_settings.DetectorSettings,
) -> tf.Tensor:
    """Selects the boxes `[M, 4]` of all views that stay, int32 `[K]`, best first."""
    num_boxes, iou_threshold = settings.max_detections, settings.iou_threshold
    containment_threshold = settings.containment_threshold
    if containment_threshold >= 1.0:
        return tf.image.non_max_suppression(boxes, scores, num_boxes, iou_threshold)
    areas = box_format.area(boxes)
    top = tf.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom = tf.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = tf.reduce_prod(tf.maximum(bottom - top, 0.0), axis=-1)
    smaller = tf.minimum(areas[:, None], areas[None])
    overlap = tf.maximum(
        box_format.iou(boxes, boxes) / iou_threshold,
        tf.math.divide_no_nan(shared, smaller) / containment_threshold,
    )
    return tf.image.non_max_suppression_overlaps(overlap, scores, num_boxes, 1.0)


def _move_into_image(
    boxes: tf.Tensor, all_views: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves boxes `[V, N, 4]` of letterboxed views into the image.

    Returns:
        The boxes relative to the image, and a mask of those that no inner edge cuts.
    """
    heights = (all_views[:, 2] - all_views[:, 0])[:, None]
    widths = (all_views[:, 3] - all_views[:, 1])[:, None]
    boxes = resize.unletterbox_boxes(boxes, heights, widths)
    extents = tf.cast(tf.stack([heights, widths] * 2, axis=-1), tf.float32)
    starts = tf.cast(tf.tile(all_views[:, :2], [1, 2])[:, None], tf.float32)
    pixels = boxes * extents + starts
    sides = tf.cast(tf.stack([height, width] * 2), tf.float32)
    edges = tf.cast(all_views, tf.float32)[:, None]
    inner = edges != tf.constant([0.0, 0.0, 1.0, 1.0]) * sides
    cut = tf.reduce_any(inner & (tf.abs(pixels - edges) < _EDGE), axis=-1)
    return pixels / sides, ~cut
