"""Resizes, letterboxes and crops images, in TensorFlow ops only; see `decode`."""

import tensorflow as tf

from dfdetect import boxes as box_format

MEAN_PIXEL = (123.675, 116.28, 103.53)  # ImageNet mean; zero after normalization.


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes `[height, width, 3]` to float32 `[size, size, 3]`, antialiased.

    Used for images that are one head each, and by `crop_heads`.
    """
    return tf.ensure_shape(resize_to(image, [size, size]), [size, size, 3])


def resize_to(image: tf.Tensor, extent: tf.Tensor | list[int]) -> tf.Tensor:
    """Equals `tf.image.resize` with antialiasing, to the bit, in half the time.

    That op moves three values at a time along rows. Here each axis in turn is resized
    as the first one, with the values along the other axis as channels.

    Args:
        image: `[height, width, 3]`, any numeric dtype.
        extent: Height and width of the result in pixels.

    Returns:
        float32 `[*extent, 3]`.
    """
    for side in (extent[0], extent[1]):
        rows, columns = tf.unstack(tf.shape(image)[:2])
        strips = tf.reshape(image, [rows, 1, columns * 3])
        strips = tf.image.resize(strips, [side, 1], antialias=True)
        image = tf.transpose(tf.reshape(strips, [side, columns, 3]), [1, 0, 2])
    return tf.cast(image, tf.float32)


def letterbox(
    image: tf.Tensor, size: int, extent: tf.Tensor | None = None
) -> tf.Tensor:
    """Scales an image so that its longer side is `size`, and pads it to a square.

    The image is at the top left; the padding is `MEAN_PIXEL`.

    Args:
        image: `[height, width, 3]`, RGB in [0, 255], any numeric dtype.
        size: Side of the result in pixels.
        extent: Height and width of the original, which set the proportions, if the
            image is reduced by `decode_for`.

    Returns:
        float32 `[size, size, 3]` in [0, 255].
    """
    extent = tf.shape(image)[:2] if extent is None else extent
    # In integers, rounded to the nearest, never 0.
    longer = tf.reduce_max(extent)
    scaled = tf.maximum((2 * extent * size + longer) // (2 * longer), 1)
    return pad_to_square(resize_to(image, scaled), size)


def pad_to_square(image: tf.Tensor, size: int) -> tf.Tensor:
    """Pads `[height, width, 3]` at the bottom and right with `MEAN_PIXEL`.

    Returns:
        float32 `[size, size, 3]`; neither side of `image` may be longer than `size`.
    """
    return tf.ensure_shape(pad(image, size, size), [size, size, 3])


def pad(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Pads an image at the bottom and right with `MEAN_PIXEL`.

    Args:
        image: `[height, width, 3]`, no larger than the result.
        height: Height of the result in pixels.
        width: Width of the result in pixels.

    Returns:
        float32 `[height, width, 3]`.
    """
    image = tf.cast(image, tf.float32)
    extent = tf.shape(image)
    right = [extent[0], width - extent[1], 3]
    bottom = [height - extent[0], width, 3]
    image = tf.concat([image, tf.broadcast_to(MEAN_PIXEL, right)], axis=1)
    return tf.concat([image, tf.broadcast_to(MEAN_PIXEL, bottom)], axis=0)


def letterbox_boxes(
    boxes: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """Converts boxes of a `height` x `width` image to its letterbox.

    Args:
        boxes: `[..., 4]`.
        height: Pixels; a scalar, or `[...]` to broadcast against the boxes.
        width: Pixels, like `height`.
    """
    return boxes * _share_of_square(height, width)


def unletterbox_boxes(
    boxes: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """The inverse of `letterbox_boxes`, clipped to the image."""
    return box_format.clip(boxes / _share_of_square(height, width))


def _share_of_square(height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    sides = [tf.cast(height, tf.float32), tf.cast(width, tf.float32)]
    extent = tf.stack(sides * 2, axis=-1)
    return extent / tf.reduce_max(extent, axis=-1, keepdims=True)


def crop_heads(
    image: tf.Tensor, boxes: tf.Tensor, size: int, margin: float = 1.3
) -> tf.Tensor:
    """Cuts heads out of one image and resizes them to squares.

    Args:
        image: `[height, width, 3]`, RGB in [0, 255], any numeric dtype.
        boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`; empty is fine.
        size: Side of the crops in pixels.
        margin: See `boxes.square_crops`.

    Returns:
        `[num_heads, size, size, 3]` float32 in [0, 255].

    Raises:
        ValueError: `boxes` is not `[num_heads, 4]`.
    """
    if boxes.shape.rank != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be [num_heads, 4], got {boxes.shape}.")
    extent = tf.shape(image)
    squares = box_format.square_crops(boxes, extent[0], extent[1], margin)
    return crop_squares(image, squares, size)


def crop_squares(image: tf.Tensor, squares: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts squares out of an image and resizes them; the last step of `crop_heads`.

    Args:
        image: `[height, width, 3]`, RGB in [0, 255], any numeric dtype.
        squares: int32 `[num_heads, 3]`, y, x and side in pixels.
        size: Side of the crops in pixels.

    Returns:
        `[num_heads, size, size, 3]` float32 in [0, 255].
    """

    def crop(square: tf.Tensor) -> tf.Tensor:
        y, x, side = tf.unstack(square)
        return resize(image[y : y + side, x : x + side], size)

    return tf.map_fn(
        crop, squares, fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32)
    )
