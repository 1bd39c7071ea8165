"""Reads WebP headers, and extracts the pixels of animated and transparent files.

TensorFlow's decoder rejects both if three channels are wanted, so it is given a file of
the pixels alone.
"""

import tensorflow as tf

from dfdetect.media import header_fields
from dfdetect.media.header_fields import read_uint

_HAS_EXIF, _HAS_ALPHA, _IS_ANIMATED = 0x08, 0x10, 0x02

# Byte and bit of a lossless chunk that state whether there is alpha.
_LOSSLESS_ALPHA_BYTE, _LOSSLESS_ALPHA_BIT = 12, 0x10
_LOSSLESS, _ALPHA = (int.from_bytes(name, "big") for name in (b"VP8L", b"ALPH"))

_MAX_CHUNKS = 10_000

_PLACE = (
    header_fields.TOP,
    header_fields.LEFT,
    header_fields.HEIGHT,
    header_fields.WIDTH,
)


def read(data: tf.Tensor) -> tf.Tensor:
    """Reads the header of a WebP file: uint8 `[N]` -> int64 `[NUM_FIELDS]`."""
    sides = _sides(data, tf.constant(12, tf.int64))
    is_extended = read_uint(data, 12, 4) == int.from_bytes(b"VP8X", "big")
    return tf.cond(
        is_extended,
        lambda: _extended(data, sides),
        lambda: _still(data, sides, tf.constant(12, tf.int64), False, 1),
    )


def _sides(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Reads height and width from the chunk at an offset; zeros for other chunks."""
    chunk = read_uint(data, at, 4)
    lossy = (
        read_uint(data, at + tf.constant([16, 14], tf.int64), 2, little=True) % 2**14
    )
    bits = read_uint(data, at + 9, 4, little=True)
    lossless = tf.stack([bits // 2**14, bits]) % 2**14 + 1
    extended = read_uint(data, at + tf.constant([15, 12], tf.int64), 3, little=True) + 1
    sides = tf.zeros([2], tf.int64)
    for name, value in ((b"VP8 ", lossy), (b"VP8L", lossless), (b"VP8X", extended)):
        sides = tf.where(chunk == int.from_bytes(name, "big"), value, sides)
    return sides


def _extended(data: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Walks over the chunks to the first frame and to EXIF, if there is any."""
    exif_name = int.from_bytes(b"EXIF", "big")
    pixels_names = tf.constant(
        [int.from_bytes(x, "big") for x in (b"ANMF", b"ALPH", b"VP8 ", b"VP8L")],
        tf.int64,
    )
    end = tf.size(data, tf.int64) - 16

    def step(
        pos: tf.Tensor, frame: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        name = read_uint(data, pos, 4)
        is_frame = tf.reduce_any(name == pixels_names)
        frame = tf.where(is_frame & (frame == 0), pos, frame)
        exif = tf.where((name == exif_name) & (exif == 0), pos, exif)
        return _next_chunk(data, pos), frame, exif

    flags = read_uint(data, 20, 1)
    has_exif = tf.bitwise.bitwise_and(flags, _HAS_EXIF) > 0
    is_animated = tf.bitwise.bitwise_and(flags, _IS_ANIMATED) > 0
    zero = tf.constant(0, tf.int64)
    _, frame, exif = tf.while_loop(
        lambda pos, frame, exif: (
            (pos < end) & ((has_exif & (exif == 0)) | (frame == 0))
        ),
        step,
        (zero + 12, zero, zero),
        maximum_iterations=_MAX_CHUNKS,
    )
    prefix = tf.constant(list(b"Exif\0\0"), tf.uint8)
    has_prefix = tf.reduce_all(data[exif + 8 : exif + 14] == prefix)
    tiff = exif + 8 + tf.where(has_prefix, zero + 6, zero)
    orientation = tf.cond(
        has_exif & (exif > 0),
        lambda: header_fields.read_orientation(data, tiff),
        lambda: tf.constant(1, tf.int64),
    )
    return tf.cond(
        is_animated,
        lambda: _animated(data, sides, frame, orientation),
        lambda: _still(
            data,
            sides,
            frame,
            tf.bitwise.bitwise_and(flags, _HAS_ALPHA) > 0,
            orientation,
        ),
    )


def _still(
    data: tf.Tensor,
    sides: tf.Tensor,
    frame: tf.Tensor,
    has_alpha: tf.Tensor | bool,
    orientation: tf.Tensor | int,
) -> tf.Tensor:
    """Builds the header from the first chunk of pixels or transparency."""
    is_alpha = read_uint(data, frame, 4) == _ALPHA
    pixels = tf.where(is_alpha, _next_chunk(data, frame), frame)
    bits = read_uint(data, pixels + _LOSSLESS_ALPHA_BYTE, 1)
    is_transparent = (read_uint(data, pixels, 4) == _LOSSLESS) & (
        tf.bitwise.bitwise_and(bits, _LOSSLESS_ALPHA_BIT) > 0
    )
    length = 8 + read_uint(data, pixels + 4, 4, little=True)
    # The decoder's result must have the size that the header states.
    is_valid = (frame > 0) & (pixels + length <= tf.size(data, tf.int64) - 16)
    is_valid &= tf.reduce_all(_sides(data, pixels) == sides)
    alone = is_valid & (has_alpha | is_alpha | is_transparent)
    start, end = (
        tf.where(alone, x, tf.zeros_like(x)) for x in (pixels, pixels + length)
    )
    return header_fields.pack_fields(
        sides[0], sides[1], orientation, start=start, end=end
    )


def _animated(
    data: tf.Tensor, canvas: tf.Tensor, frame: tf.Tensor, orientation: tf.Tensor
) -> tf.Tensor:
    """Builds the header from the chunk of the first frame; size 0 if it is invalid."""
    at = frame + 8 + tf.constant([3, 0, 9, 6], tf.int64)
    top, left, height, width = tf.unstack(read_uint(data, at, 3, little=True))
    top, left, height, width = 2 * top, 2 * left, height + 1, width + 1
    pixels = frame + 24
    # A chunk of transparency may precede them.
    is_alpha = read_uint(data, pixels, 4) == _ALPHA
    pixels = tf.where(is_alpha, _next_chunk(data, pixels), pixels)
    end = pixels + 8 + read_uint(data, pixels + 4, 4, little=True)
    # The decoder's result must have the size that the header states.
    is_valid = (frame > 0) & (end <= tf.size(data, tf.int64) - 16)
    is_valid &= tf.reduce_all(_sides(data, pixels) == tf.stack([height, width]))
    is_valid &= (top + height <= canvas[0]) & (left + width <= canvas[1])
    rows = canvas[0] * tf.cast(is_valid, tf.int64)
    return header_fields.pack_fields(
        rows,
        canvas[1],
        orientation,
        end=end,
        start=pixels,
        top=top,
        left=left,
    )


def _next_chunk(data: tf.Tensor, pos: tf.Tensor) -> tf.Tensor:
    length = read_uint(data, pos + 4, 4, little=True)
    return pos + 8 + length + length % 2


def build_still(chunk: tf.Tensor) -> tf.Tensor:
    """Builds a WebP file of one chunk of pixels, without transparency."""
    octets = tf.constant([bytes([value]) for value in range(256)])
    at = _LOSSLESS_ALPHA_BYTE
    byte = tf.io.decode_raw(tf.strings.substr(chunk + b"\0" * 16, at, 1), tf.uint8)[0]
    opaque = tf.bitwise.bitwise_and(
        byte, tf.constant(255 - _LOSSLESS_ALPHA_BIT, tf.uint8)
    )
    is_lossless = tf.strings.substr(chunk + b"\0" * 16, 0, 4) == b"VP8L"
    chunk = tf.cond(
        is_lossless & (tf.strings.length(chunk) > at),
        lambda: (
            tf.strings.substr(chunk, 0, at)
            + tf.gather(octets, tf.cast(opaque, tf.int32))
            + tf.strings.substr(chunk, at + 1, tf.strings.length(chunk))
        ),
        lambda: chunk,
    )
    # Chunks start at even offsets.
    length = tf.strings.length(chunk)
    chunk += tf.where(length % 2 == 1, b"\0", b"")
    size = 4 + length + length % 2
    size_bytes = tf.gather(octets, [size // 256**i % 256 for i in range(4)])
    return b"RIFF" + tf.strings.reduce_join(size_bytes) + b"WEBP" + chunk


def place_frame(image: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Places the first frame of a WebP on its canvas, uint8 `[height, width, 3]`."""
    top, left, height, width = tf.unstack(tf.cast(tf.gather(header, _PLACE), tf.int32))
    extent = tf.shape(image)
    below, right = height - top - extent[0], width - left - extent[1]
    return tf.pad(image, [[top, below], [left, right], [0, 0]])
