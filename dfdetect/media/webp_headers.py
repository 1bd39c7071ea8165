"""Headers of WebP files, and the first frame of animated ones."""

import tensorflow as tf

from dfdetect.media import header_fields
from dfdetect.media.header_fields import uint

_HAS_EXIF, _IS_ANIMATED = 0x08, 0x02

_MAX_CHUNKS = 10_000

_PLACE = (
    *(header_fields.TOP, header_fields.LEFT),
    *(header_fields.HEIGHT, header_fields.WIDTH),
)


def read(data: tf.Tensor) -> tf.Tensor:
    """The header of a WebP file: uint8 `[N]` -> int64 `[NUM_FIELDS]`."""
    sides = _sides(data, tf.constant(12, tf.int64))
    is_extended = uint(data, 12, 4) == int.from_bytes(b"VP8X", "big")
    return tf.cond(
        is_extended,
        lambda: _extended(data, sides),
        lambda: header_fields.pack(sides[0], sides[1]),
    )


def _sides(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Height and width by the chunk at an offset; zeros by one of another kind."""
    chunk = uint(data, at, 4)
    lossy = uint(data, at + tf.constant([16, 14], tf.int64), 2, little=True) % 2**14
    bits = uint(data, at + 9, 4, little=True)
    lossless = tf.stack([bits // 2**14, bits]) % 2**14 + 1
    extended = uint(data, at + tf.constant([15, 12], tf.int64), 3, little=True) + 1
    sides = tf.zeros([2], tf.int64)
    for name, value in ((b"VP8 ", lossy), (b"VP8L", lossless), (b"VP8X", extended)):
        sides = tf.where(chunk == int.from_bytes(name, "big"), value, sides)
    return sides


def _extended(data: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Walks over the chunks to the first frame and to EXIF, of those that have them."""
    frame_name = int.from_bytes(b"ANMF", "big")
    exif_name = int.from_bytes(b"EXIF", "big")
    end = tf.size(data, tf.int64) - 16

    def step(
        pos: tf.Tensor, frame: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        name = uint(data, pos, 4)
        frame = tf.where((name == frame_name) & (frame == 0), pos, frame)
        exif = tf.where((name == exif_name) & (exif == 0), pos, exif)
        return _next_chunk(data, pos), frame, exif

    flags = uint(data, 20, 1)
    has_exif = tf.bitwise.bitwise_and(flags, _HAS_EXIF) > 0
    is_animated = tf.bitwise.bitwise_and(flags, _IS_ANIMATED) > 0
    zero = tf.constant(0, tf.int64)
    _, frame, exif = tf.while_loop(
        lambda pos, frame, exif: (
            (pos < end) & ((has_exif & (exif == 0)) | (is_animated & (frame == 0)))
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
        lambda: header_fields.exif_orientation(
            data, tiff + tf.where(has_prefix, zero + 6, zero)
        ),
        lambda: tf.constant(1, tf.int64),
    )
    return tf.cond(
        is_animated,
        lambda: _animated(data, sides, frame, orientation),
        lambda: header_fields.pack(sides[0], sides[1], orientation),
    )


def _animated(
    data: tf.Tensor, canvas: tf.Tensor, frame: tf.Tensor, orientation: tf.Tensor
) -> tf.Tensor:
    """The header by the chunk of the first frame; of size 0 where that is unsound."""
    at = frame + 8 + tf.constant([3, 0, 9, 6], tf.int64)
    top, left, height, width = tf.unstack(uint(data, at, 3, little=True))
    top, left, height, width = 2 * top, 2 * left, height + 1, width + 1
    pixels = frame + 24
    # Transparency may stand before them.
    is_alpha = uint(data, pixels, 4) == int.from_bytes(b"ALPH", "big")
    pixels = tf.where(is_alpha, _next_chunk(data, pixels), pixels)
    end = pixels + 8 + uint(data, pixels + 4, 4, little=True)
    # What the decoder is given must be as large as it was said to be.
    is_sound = (frame > 0) & (end <= tf.size(data, tf.int64) - 16)
    is_sound &= tf.reduce_all(_sides(data, pixels) == tf.stack([height, width]))
    is_sound &= (top + height <= canvas[0]) & (left + width <= canvas[1])
    rows = canvas[0] * tf.cast(is_sound, tf.int64)
    return header_fields.pack(rows, canvas[1], orientation, end, 0, pixels, top, left)


def _next_chunk(data: tf.Tensor, pos: tf.Tensor) -> tf.Tensor:
    length = uint(data, pos + 4, 4, little=True)
    return pos + 8 + length + length % 2


def still(chunk: tf.Tensor) -> tf.Tensor:
    """The file of one chunk of pixels."""
    # Chunks begin at even offsets.
    length = tf.strings.length(chunk)
    chunk += tf.where(length % 2 == 1, b"\0", b"")
    size = 4 + length + length % 2
    octets = tf.constant([bytes([value]) for value in range(256)])
    size_bytes = tf.gather(octets, [size // 256**i % 256 for i in range(4)])
    return b"RIFF" + tf.strings.reduce_join(size_bytes) + b"WEBP" + chunk


def place_frame(image: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """The canvas, uint8 `[height, width, 3]`, with the first frame of a WebP on it."""
    top, left, height, width = tf.unstack(tf.cast(tf.gather(header, _PLACE), tf.int32))
    extent = tf.shape(image)
    below, right = height - top - extent[0], width - left - extent[1]
    return tf.pad(image, [[top, below], [left, right], [0, 0]])
