"""EXIF orientations: converts between the stored and the upright image."""

import tensorflow as tf

from dfdetect.media import headers

# 5 to 8 swap the axes; then one axis or both may be mirrored.
_SWAPPED_FROM = 5
_MIRRORED_ROWS = (3, 4, 7, 8)
_MIRRORED_COLUMNS = (2, 3, 6, 7)


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns stored pixels `[height, width, 3]`, or a part of them, upright."""
    # Not with a slice of step -1: Grappler's remapper skips a graph that has one.
    image = tf.cond(
        orientation >= _SWAPPED_FROM,
        lambda: tf.transpose(image, [1, 0, 2]),
        lambda: image,
    )
    image = tf.cond(
        _any_of(orientation, _MIRRORED_COLUMNS),
        lambda: tf.reverse(image, [1]),
        lambda: image,
    )
    return tf.cond(
        _any_of(orientation, _MIRRORED_ROWS),
        lambda: tf.reverse(image, [0]),
        lambda: image,
    )


def upright_extent(header: tf.Tensor) -> tf.Tensor:
    """Returns height and width, int32 `[..., 2]`, of upright images from their headers.

    Args:
        header: `[..., headers.NUM_FIELDS]`.
    """
    stored = tf.gather(header, [headers.HEIGHT, headers.WIDTH], axis=-1)
    swapped = header[..., headers.ORIENTATION, None] >= _SWAPPED_FROM
    turned = tf.where(swapped, tf.reverse(stored, [-1]), stored)
    return tf.cast(turned, tf.int32)


def stored_window(window: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Converts a window of the upright image to the stored image.

    `turn_upright` of the pixels there gives those of the window.

    Args:
        window: int32 `[4]`: top, left, height and width.
        header: `[headers.NUM_FIELDS]`, header of the image.

    Returns:
        int32 `[4]`, in the same order.
    """
    orientation = header[headers.ORIENTATION]
    top, left, height, width = tf.unstack(window)
    rows, columns = tf.unstack(upright_extent(header))
    mirrored = _any_of(orientation, _MIRRORED_ROWS)
    top = tf.where(mirrored, rows - top - height, top)
    mirrored = _any_of(orientation, _MIRRORED_COLUMNS)
    left = tf.where(mirrored, columns - left - width, left)
    turned = tf.stack([left, top, width, height])
    return tf.where(
        orientation >= _SWAPPED_FROM, turned, tf.stack([top, left, height, width])
    )


def _any_of(value: tf.Tensor, choices: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(choices, tf.int64))
