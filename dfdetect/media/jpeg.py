"""Decodes less of a JPEG than all of it: all at a reduced scale, or a window of it.

A photograph of 12 megapixels is 36 MB of pixels, of which the detector sees a hundredth
and the classifier a few heads.
"""

import functools

import tensorflow as tf

from dfdetect.media import exif, headers

# Pixels on a side, of the reduced image, for each that is seen of it in the end: what
# is left is to be resized with care, by `resize.letterbox`.
_DETAIL = 2

# Halvings that libjpeg can do while it decodes.
_MOST_HALVINGS = 3

# A colour of a pixel is interpolated of its neighbours', which must be there.
_SEAM = 8


def halvings(image_bytes: tf.Tensor, header: tf.Tensor, size: int) -> tf.Tensor:
    """How often the scale of images may be halved that are to be letterboxed.

    Args:
        image_bytes: string `[...]`.
        header: `[..., headers.NUM_FIELDS]`.
        size: Side of the letterbox in pixels.

    Returns:
        int32 `[...]`; 0 of what is no JPEG.
    """
    longer = tf.reduce_max(exif.upright_extent(header), axis=-1)
    large = [longer >= _DETAIL * size * 2**n for n in range(1, 1 + _MOST_HALVINGS)]
    is_jpeg = tf.strings.substr(image_bytes, 0, 3) == b"\xff\xd8\xff"
    count = tf.add_n([tf.cast(enough, tf.int32) for enough in large])
    return tf.where(is_jpeg, count, 0)


def reduced(image_bytes: tf.Tensor, header: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG with its scale halved so many times, by libjpeg's smaller DCTs.

    Args:
        image_bytes: Scalar string.
        header: Of it.
        times: int32 scalar, 1 or more; see `halvings`.

    Returns:
        uint8 `[height, width, 3]` as stored, sides divided by `2**times`, rounded up.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are no JPEG, or cut short, or have
            another size than the header says: a `window` of them could then not be.
    """
    decoders = [
        functools.partial(tf.io.decode_jpeg, image_bytes, channels=3, ratio=2**n)
        for n in range(1, 1 + _MOST_HALVINGS)
    ]
    image = tf.switch_case(times - 1, decoders)
    stored = tf.gather(header, [headers.HEIGHT, headers.WIDTH])
    divisor = tf.cast(tf.bitwise.left_shift(1, times), tf.int64)
    tf.debugging.assert_equal(
        tf.shape(image, tf.int64)[:2],
        (stored + divisor - 1) // divisor,
        "The size of the JPEG is not that of its header.",
    )
    return image


def window(image_bytes: tf.Tensor, header: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Decodes a window of a JPEG: the pixels that `decode.decode_image` gives there.

    Args:
        image_bytes: Scalar string; one that `reduced` can decode.
        header: Of it.
        wanted: int32 `[4]`, top, left, height and width, at least 1, in the upright
            image and inside of it.

    Returns:
        uint8 `[height, width, 3]`, upright RGB.
    """
    end = wanted[:2] + wanted[2:]
    first = tf.maximum(wanted[:2] - _SEAM, 0)
    last = tf.minimum(end + _SEAM, exif.upright_extent(header))
    around = tf.concat([first, last - first], 0)
    pixels = tf.image.decode_and_crop_jpeg(
        image_bytes, exif.stored_window(around, header), channels=3
    )
    pixels = exif.turn(pixels, header[headers.ORIENTATION])
    top, left = tf.unstack(wanted[:2] - first)
    return pixels[top : top + wanted[2], left : left + wanted[3]]
