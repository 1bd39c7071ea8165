"""Decodes a JPEG at a reduced scale, or only a window of it.

A photograph of 12 megapixels is 36 MB of pixels, of which the detector sees a hundredth
and the classifier a few heads.
"""

import functools

import tensorflow as tf

from dfdetect.media import exif, headers

# Least ratio of the sides of the reduced image and of the letterbox, so that
# `resize.letterbox` does the last step, antialiased.
_MIN_RATIO = 2

# libjpeg decodes at 1/2, 1/4 and 1/8.
_MAX_STEPS = 3

# Pixels around a window, because chroma is interpolated from adjacent pixels.
_BORDER = 8


def downscale_steps(image_bytes: tf.Tensor, header: tf.Tensor, size: int) -> tf.Tensor:
    """Returns how often libjpeg can halve images before they are letterboxed.

    Args:
        image_bytes: string `[...]`.
        header: `[..., headers.NUM_FIELDS]`.
        size: Side of the letterbox in pixels.

    Returns:
        int32 `[...]`; 0 for other formats than JPEG.
    """
    longer = tf.reduce_max(exif.upright_extent(header), axis=-1)
    large = [longer >= _MIN_RATIO * size * 2**n for n in range(1, 1 + _MAX_STEPS)]
    is_jpeg = tf.strings.substr(image_bytes, 0, 3) == b"\xff\xd8\xff"
    count = tf.add_n([tf.cast(enough, tf.int32) for enough in large])
    return tf.where(is_jpeg, count, 0)


def decode_reduced(
    image_bytes: tf.Tensor, header: tf.Tensor, steps: tf.Tensor
) -> tf.Tensor:
    """Decodes a JPEG at half its scale, `steps` times over, by libjpeg's smaller DCTs.

    Args:
        image_bytes: Scalar string.
        header: `[headers.NUM_FIELDS]`, header of the file.
        steps: int32 scalar, 1 or more; see `downscale_steps`.

    Returns:
        uint8 `[height, width, 3]` as stored, sides divided by `2**steps`, rounded up.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are not a JPEG, are truncated, or have
            another size than the header states, so that `decode_window`
            would fail.
    """
    decoders = [
        functools.partial(tf.io.decode_jpeg, image_bytes, channels=3, ratio=2**n)
        for n in range(1, 1 + _MAX_STEPS)
    ]
    image = tf.switch_case(steps - 1, decoders)
    stored = tf.gather(header, [headers.HEIGHT, headers.WIDTH])
    divisor = tf.cast(tf.bitwise.left_shift(1, steps), tf.int64)
    tf.debugging.assert_equal(
        tf.shape(image, tf.int64)[:2],
        (stored + divisor - 1) // divisor,
        "The size of the JPEG is not that of its header.",
    )
    return image


def decode_window(
    image_bytes: tf.Tensor, header: tf.Tensor, wanted: tf.Tensor
) -> tf.Tensor:
    """Decodes a window of a JPEG: the same pixels as by `decode.decode_image`.

    Args:
        image_bytes: Scalar string that `decode_reduced` can decode.
        header: `[headers.NUM_FIELDS]`, header of the file.
        wanted: int32 `[4]`: top, left, height and width, at least 1, inside the upright
            image.

    Returns:
        uint8 `[height, width, 3]`, upright RGB.
    """
    end = wanted[:2] + wanted[2:]
    first = tf.maximum(wanted[:2] - _BORDER, 0)
    last = tf.minimum(end + _BORDER, exif.upright_extent(header))
    around = tf.concat([first, last - first], 0)
    pixels = tf.image.decode_and_crop_jpeg(
        image_bytes, exif.stored_window(around, header), channels=3
    )
    pixels = exif.turn_upright(pixels, header[headers.ORIENTATION])
    top, left = tf.unstack(wanted[:2] - first)
    return pixels[top : top + wanted[2], left : left + wanted[3]]
