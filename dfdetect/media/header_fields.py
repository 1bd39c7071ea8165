"""Fields of image headers, and how integers and orientations are read."""

import tensorflow as tf

# Fields of a header. HEIGHT and WIDTH are those before the orientation is applied, and
# 0 if the file cannot be decoded. The others are 0 where they do not apply: END is the
# end of the first frame of a GIF; START and END enclose the pixels of a transparent
# WebP, or of the first frame of an animated one, which is placed at TOP and LEFT;
# PALETTE is the start of the palette of an 8-bit BMP.
HEIGHT, WIDTH, ORIENTATION, END, PALETTE, START, TOP, LEFT = range(8)
NUM_FIELDS = 8

_EXIF_ORIENTATION = 0x0112
# EXIF types SHORT and LONG, unsigned and signed. The standard demands SHORT.
_EXIF_TYPES_OF_TWO_BYTES = (3, 8)
_EXIF_TYPES_OF_FOUR_BYTES = (4, 9)


def pack_fields(
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    orientation: tf.Tensor | int = 1,
    *,
    end: tf.Tensor | int = 0,
    palette: tf.Tensor | int = 0,
    start: tf.Tensor | int = 0,
    top: tf.Tensor | int = 0,
    left: tf.Tensor | int = 0,
) -> tf.Tensor:
    """Packs the fields into a header, int64 `[NUM_FIELDS]`."""
    fields = (height, width, orientation, end, palette, start, top, left)
    return tf.stack([tf.cast(field, tf.int64) for field in fields])


def read_uint(
    data: tf.Tensor,
    at: tf.Tensor | int,
    num_bytes: int,
    little: tf.Tensor | bool = False,
) -> tf.Tensor:
    """Reads int64 values of `num_bytes` at offsets `at`; 0 beyond the end of `data`."""
    index = tf.cast(at, tf.int64)[..., None] + tf.range(num_bytes, dtype=tf.int64)
    index = tf.minimum(index, tf.size(data, tf.int64) - 1)
    weights = tf.constant([256**i for i in range(num_bytes)], tf.int64)
    weights = tf.where(little, weights, tf.reverse(weights, [0]))
    return tf.reduce_sum(tf.cast(tf.gather(data, index), tf.int64) * weights, -1)


def read_orientation(data: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Reads the orientation, 1 to 8, of the TIFF structure at `tiff`; 1 if absent."""
    little = read_uint(data, tiff, 2) == int.from_bytes(b"II", "big")
    directory = tiff + read_uint(data, tiff + 4, 4, little)
    entries = directory + 2 + 12 * tf.range(read_uint(data, directory, 2, little))
    tags = read_uint(data, entries, 2, little)
    types = read_uint(data, entries + 2, 2, little)
    short, long = (read_uint(data, entries + 8, size, little) for size in (2, 4))
    is_long = _is_one_of(types, _EXIF_TYPES_OF_FOUR_BYTES)
    values = tf.where(is_long, long, short)
    valid = (tags == _EXIF_ORIENTATION) & (read_uint(data, entries + 4, 4, little) == 1)
    valid &= is_long | _is_one_of(types, _EXIF_TYPES_OF_TWO_BYTES)
    valid &= (values >= 1) & (values <= 8)
    # The first valid value, or 1 if there is none.
    return tf.concat([tf.boolean_mask(values, valid), [1]], 0)[0]


def _is_one_of(values: tf.Tensor, choices: tuple[int, ...]) -> tf.Tensor:
    choices = tf.constant(choices, tf.int64)
    return tf.reduce_any(values[..., None] == choices, -1)
