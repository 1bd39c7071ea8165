"""Batches of decoded images, each no finer than the detector needs it."""

from typing import NamedTuple

import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect.media import decode, exif, headers, jpeg, resize
from dfdetect.pipeline import chunking, detector_settings


class ImageBatch(NamedTuple):
    """A batch of images of any sizes as one nest of tensors, or a single image.

    Attributes:
        packed: string `[B]`, for `decode.unpack`: the images that the detector sees.
        encoded: string `[B]`, the encoded file where `packed` holds a reduced copy of
            it, else "".
        header: int64 `[B, headers.NUM_FIELDS]`, the headers of those files.
    """

    packed: tf.Tensor
    encoded: tf.Tensor
    header: tf.Tensor

    def gather(self, places: tf.Tensor) -> "ImageBatch":
        """Gathers the images at some places, `[R, 1]`, in their order."""
        # Most often it is all of them, and copying images takes memory.
        found = tf.cond(
            tf.equal(tf.shape(places)[0], tf.size(self.packed)),
            lambda: tuple(self),
            lambda: tuple(tf.gather_nd(one, places) for one in self),
        )
        return ImageBatch(*found)


def read(
    image_bytes: tf.Tensor, settings: detector_settings.DetectorSettings
) -> tuple[ImageBatch, tf.Tensor]:
    """Decodes files for a detector.

    JPEGs that are far larger than its input are decoded at a reduced scale, unless
    tiles are searched; see `decode.decode_for_letterbox`.

    Args:
        image_bytes: string `[B]`; see `decode.decode`.
        settings: Settings of the detector.

    Returns:
        The images, and their statuses int32 `[B]`, see `decode.decode`.
    """
    if settings.tile_size:
        packed, status = decode.decode(image_bytes)
        return wrap_whole(packed), status
    header = headers.read_batch(image_bytes)
    times = jpeg.downscale_steps(image_bytes, header, settings.image_size)
    packed, status = decode.decode_with_headers(image_bytes, header, times)
    return ImageBatch(packed, tf.where(times > 0, image_bytes, ""), header), status


def wrap_whole(packed: tf.Tensor) -> ImageBatch:
    """Makes a batch of whole images, as `decode.decode` or `decode.pack` give them."""
    header = tf.zeros([tf.size(packed), headers.NUM_FIELDS], tf.int64)
    return ImageBatch(packed, tf.fill(tf.shape(packed), ""), header)


def letterbox(images: ImageBatch, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Letterboxes images for the detector.

    Args:
        images: `[B]`, all readable.
        size: See `resize.letterbox`.

    Returns:
        float32 `[B, size, size, 3]`; heights and widths of the originals, int32
        `[B, 2]`.
    """

    # Both in one pass: unpacking a large image takes long.
    def letterbox_one(one: ImageBatch) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode.unpack(one.packed)
        extent = tf.cond(
            _is_reduced(one),
            lambda: exif.upright_extent(one.header),
            lambda: tf.shape(image)[:2],
        )
        return resize.letterbox(image, size, extent), extent

    specs = (tf.TensorSpec([size, size, 3]), tf.TensorSpec([2], tf.int32))
    return chunking.map_rows(letterbox_one, images, specs)


def locate_squares(
    one: ImageBatch, boxes: tf.Tensor, margin: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Locates the squares to crop from one image, and decodes pixels that cover them.

    Args:
        one: An image.
        boxes: `[num_heads, 4]` of the original; empty is fine.
        margin: See `boxes.square_crops`.

    Returns:
        Pixels of the original, uint8 `[height, width, 3]`, and the squares in them,
        int32 `[num_heads, 3]`: y, x and side.
    """

    def decode_window() -> tuple[tf.Tensor, tf.Tensor]:
        height, width = tf.unstack(exif.upright_extent(one.header))
        found = box_format.square_crops(boxes, height, width, margin)
        first = tf.reduce_min(found[:, :2], axis=0)
        last = tf.reduce_max(found[:, :2] + found[:, 2:], axis=0)
        covering = tf.concat([first, last - first], 0)
        moved = found - tf.concat([first, [0]], 0)
        return jpeg.decode_window(one.encoded, one.header, covering), moved

    def unpack_all() -> tuple[tf.Tensor, tf.Tensor]:
        image = decode.unpack(one.packed)
        height, width = tf.unstack(tf.shape(image)[:2])
        return image, box_format.square_crops(boxes, height, width, margin)

    # Without boxes there is nothing to cover.
    return tf.cond(
        _is_reduced(one) & (tf.shape(boxes)[0] > 0), decode_window, unpack_all
    )


def _is_reduced(one: ImageBatch) -> tf.Tensor:
    return tf.strings.length(one.encoded) > 0
