"""Files as decoded images, each no finer than what is seen of it."""

from typing import Any, NamedTuple

import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect.media import decode, exif, headers, jpeg, resize
from dfdetect.pipeline import chunking


class ImageBatch(NamedTuple):
    """A batch of images of any sizes, as one nest of tensors; or one image.

    Attributes:
        packed: string `[B]`, for `decode.unpack`: what the detector looks at.
        encoded: string `[B]`, the file of an image of which a reduced copy is packed;
            else "".
        header: int64 `[B, headers.NUM_FIELDS]` of those files.
    """

    packed: tf.Tensor
    encoded: tf.Tensor
    header: tf.Tensor

    def at(self, places: tf.Tensor) -> "ImageBatch":
        """Those at some places, `[R, 1]`, in their order."""
        # Most often all of them, and an image may be large.
        found = tf.cond(
            tf.equal(tf.shape(places)[0], tf.size(self.packed)),
            lambda: tuple(self),
            lambda: tuple(tf.gather_nd(one, places) for one in self),
        )
        return ImageBatch(*found)


def read(
    image_bytes: tf.Tensor, described: dict[str, Any]
) -> tuple[ImageBatch, tf.Tensor]:
    """Decodes files for a detector.

    JPEGs that are far larger than its input are decoded at a reduced scale, unless it
    looks at tiles; see `decode.decode_for_letterbox`.

    Args:
        image_bytes: string `[B]`; see `decode.decode`.
        described: The detector's manifest.

    Returns:
        The images, and their statuses int32 `[B]`, see `decode.decode`.
    """
    if described.get("tile_size"):
        packed, status = decode.decode(image_bytes)
        return whole(packed), status
    header = headers.read_batch(image_bytes)
    times = jpeg.downscale_steps(image_bytes, header, described["image_size"])
    packed, status = decode.decode_with_headers(image_bytes, header, times)
    return ImageBatch(packed, tf.where(times > 0, image_bytes, ""), header), status


def whole(packed: tf.Tensor) -> ImageBatch:
    """Images of `decode.decode`, or of `decode.pack`."""
    header = tf.zeros([tf.size(packed), headers.NUM_FIELDS], tf.int64)
    return ImageBatch(packed, tf.fill(tf.shape(packed), ""), header)


def letterboxed(images: ImageBatch, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """What the detector sees of images.

    Args:
        images: `[B]`, all of them readable.
        size: See `resize.letterbox`.

    Returns:
        float32 `[B, size, size, 3]`; heights and widths of the originals, int32
        `[B, 2]`.
    """

    # Both at once: a large image takes long to unpack.
    def look(one: ImageBatch) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode.unpack(one.packed)
        extent = tf.cond(
            _is_reduced(one),
            lambda: exif.upright_extent(one.header),
            lambda: tf.shape(image)[:2],
        )
        return resize.letterbox(image, size, extent), extent

    specs = (tf.TensorSpec([size, size, 3]), tf.TensorSpec([2], tf.int32))
    return chunking.map_rows(look, images, specs)


def squares(
    one: ImageBatch, boxes: tf.Tensor, margin: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """What is to be cut out of one image, and pixels of it that cover all of that.

    Args:
        one: An image.
        boxes: `[num_heads, 4]` of the original; empty is fine.
        margin: See `boxes.square_crops`.

    Returns:
        uint8 `[height, width, 3]` of the original, and the squares int32
        `[num_heads, 3]` in it: y, x and side.
    """

    def window() -> tuple[tf.Tensor, tf.Tensor]:
        height, width = tf.unstack(exif.upright_extent(one.header))
        found = box_format.square_crops(boxes, height, width, margin)
        first = tf.reduce_min(found[:, :2], axis=0)
        last = tf.reduce_max(found[:, :2] + found[:, 2:], axis=0)
        covering = tf.concat([first, last - first], 0)
        moved = found - tf.concat([first, [0]], 0)
        return jpeg.decode_window(one.encoded, one.header, covering), moved

    def all_of_it() -> tuple[tf.Tensor, tf.Tensor]:
        image = decode.unpack(one.packed)
        height, width = tf.unstack(tf.shape(image)[:2])
        return image, box_format.square_crops(boxes, height, width, margin)

    # Without boxes there is nothing to cover.
    return tf.cond(_is_reduced(one) & (tf.shape(boxes)[0] > 0), window, all_of_it)


def _is_reduced(one: ImageBatch) -> tf.Tensor:
    return tf.strings.length(one.encoded) > 0
