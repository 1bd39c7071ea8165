"""Reads image headers: size, orientation and what TensorFlow's decoder ignores.

The TensorFlow ops never fail, however broken the bytes are: a server must reject a
small file whose header states gigapixels without decoding it, and without failing the
rest of the batch. TensorFlow's decoder ignores EXIF orientations, reads all frames of
a GIF, rejects an animated WebP and takes the palette indices of a BMP for gray; the
header has the fields that correct this.
"""

import functools
from collections.abc import Iterable

import tensorflow as tf

from dfdetect.media import header_fields, jpeg_headers, webp_headers
from dfdetect.media.header_fields import (
    END,
    HEIGHT,
    LEFT,
    NUM_FIELDS,
    ORIENTATION,
    PALETTE,
    START,
    TOP,
    WIDTH,
    read_uint,
)

__all__ = [
    "END",
    "HEIGHT",
    "LEFT",
    "NUM_FIELDS",
    "ORIENTATION",
    "PALETTE",
    "START",
    "TOP",
    "WIDTH",
]

# First bytes of each kind of file, in which a dot is any byte.
SIGNATURES = {
    "jpeg": b"\xff\xd8\xff",
    "png": b"\x89PNG\r\n\x1a\n",
    "gif": b"GIF8",
    "bmp": b"BM",
    "webp": b"RIFF....WEBP",
}

# More than any real image has; they bound the time for a hostile file.
_MAX_GIF_BLOCKS = 10_000
_MAX_PNG_CHUNKS = 2000
_MAX_PNG_EXIF = 16
# Each may decompress to 8 MB, which libpng keeps.
_MAX_PNG_TEXTS = 32
_PNG_TAIL_BYTES = 2**18


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
)
def read(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads one header: scalar string -> int64 `[NUM_FIELDS]`."""
    return read_of_kinds(image_bytes, SIGNATURES)


def read_of_kinds(image_bytes: tf.Tensor, kinds: Iterable[str]) -> tf.Tensor:
    """Reads one header, like `read`, of some kinds of files: a smaller graph.

    Args:
        image_bytes: Scalar string.
        kinds: Of `SIGNATURES`. To a file of another kind the header of one that cannot
            be decoded is given.
    """
    # Padding, for offsets beyond the end of a broken file.
    data = tf.io.decode_raw(image_bytes + b"\0" * 16, tf.uint8)
    readers = {
        "jpeg": lambda data, _: jpeg_headers.read(data),
        "png": _png,
        "gif": _gif,
        "bmp": _bmp,
        "webp": lambda data, _: webp_headers.read(data),
    }
    kind = tf.constant(0)
    branches = [lambda: header_fields.pack_fields(0, 0)]
    for number, name in enumerate(kinds, start=1):
        kind = tf.where(_starts_with(data, SIGNATURES[name]), number, kind)
        branches.append(functools.partial(readers[name], data, image_bytes))
    return tf.ensure_shape(tf.switch_case(kind, branches), [NUM_FIELDS])


def read_batch(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads the headers of a batch: string `[B]` -> int64 `[B, NUM_FIELDS]`."""
    spec = tf.TensorSpec([NUM_FIELDS], tf.int64)
    return tf.map_fn(read, image_bytes, fn_output_signature=spec)


def identify_kind(content: bytes) -> str | None:
    """Returns the key of `SIGNATURES` that `read` goes by; None if there is none."""
    for kind, signature in SIGNATURES.items():
        pairs = zip(signature, content, strict=False)
        if len(content) >= len(signature) and all(
            wanted in (ord("."), byte) for wanted, byte in pairs
        ):
            return kind
    return None


def extract_first_frame(image_bytes: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Extracts the first frame of a GIF or WebP as a file; returns others unchanged.

    TensorFlow's decoder would decode all frames of a GIF, and rejects an animated WebP.
    """
    start = tf.cast(header[START], tf.int32)
    end = tf.cast(header[END], tf.int32)
    alone = (
        lambda: image_bytes,
        lambda: tf.strings.substr(image_bytes, 0, end) + b";",
        lambda: webp_headers.build_still(
            tf.strings.substr(image_bytes, start, end - start)
        ),
    )
    kind = tf.where(start > 0, 2, tf.cast(end > 0, tf.int32))
    return tf.ensure_shape(tf.switch_case(kind, alone), [])


def apply_palette(
    image_bytes: tf.Tensor, header: tf.Tensor, indices: tf.Tensor
) -> tf.Tensor:
    """Looks up the colors, uint8 `[..., 3]`, of uint8 palette indices of a BMP."""
    start = tf.cast(header[PALETTE], tf.int32)
    start = tf.minimum(start, tf.strings.length(image_bytes))
    colors = tf.strings.substr(image_bytes, start, 4 * 256)
    # Blue, green, red and unused; black beyond the end of the file.
    colors = tf.io.decode_raw(colors, tf.uint8, fixed_length=4 * 256)
    colors = tf.reverse(tf.reshape(colors, [256, 4])[:, :3], [1])
    return tf.gather(colors, tf.cast(indices, tf.int32))


def _starts_with(data: tf.Tensor, signature: bytes) -> tf.Tensor:
    """Whether `data` starts with a signature, in which a dot is any byte."""
    equal = data[: len(signature)] == tf.constant(list(signature), tf.uint8)
    return tf.reduce_all(equal | tf.constant([byte == ord(".") for byte in signature]))


def _png(data: tf.Tensor, image_bytes: tf.Tensor) -> tf.Tensor:
    """Walks over the chunks up to the pixels; eXIf may be before or after them."""
    exif_name, pixels_name = (int.from_bytes(x, "big") for x in (b"eXIf", b"IDAT"))

    def step(pos: tf.Tensor, exif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        exif = tf.where(read_uint(data, pos + 4, 4) == exif_name, pos, exif)
        return pos + 12 + read_uint(data, pos, 4), exif

    end = tf.size(data, tf.int64) - 16
    zero = tf.constant(0, tf.int64)
    _, exif = tf.while_loop(
        lambda pos, exif: (
            (pos < end) & (exif == 0) & (read_uint(data, pos + 4, 4) != pixels_name)
        ),
        step,
        (zero + 8, zero),
        maximum_iterations=_MAX_PNG_CHUNKS,
    )
    orientation = tf.cond(
        exif > 0,
        lambda: _png_orientation(data[exif + 8 :]),
        lambda: _orientation_behind_pixels(image_bytes),
    )
    is_valid = _count_png_texts(image_bytes) <= _MAX_PNG_TEXTS
    rows = read_uint(data, 20, 4) * tf.cast(is_valid, tf.int64)
    return header_fields.pack_fields(rows, read_uint(data, 16, 4), orientation)


def _count_png_texts(image_bytes: tf.Tensor) -> tf.Tensor:
    """Counts chunks of text that may be compressed, to somewhat above the limit.

    By their names alone, which pixels contain by chance once in gigabytes.
    """
    pieces = [
        tf.raw_ops.StringSplitV2(
            input=[image_bytes], sep=name, maxsplit=_MAX_PNG_TEXTS + 1
        ).values
        for name in (b"zTXt", b"iTXt")
    ]
    return tf.add_n([tf.size(values) - 1 for values in pieces])


def _png_orientation(exif: tf.Tensor) -> tf.Tensor:
    """Reads the orientation of bytes that start with the content of an eXIf chunk."""
    has_prefix = _starts_with(exif, b"Exif\0\0")
    start = tf.where(has_prefix, tf.constant(6, tf.int64), 0)
    return header_fields.read_orientation(exif, start)


def _orientation_behind_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    # Walking over the chunks of pixels would take longer than decoding them.
    start = tf.maximum(tf.strings.length(image_bytes) - _PNG_TAIL_BYTES, 0)
    tail = tf.strings.substr(image_bytes, start, _PNG_TAIL_BYTES)
    pieces = tf.raw_ops.StringSplitV2(
        input=[tail], sep=b"eXIf", maxsplit=_MAX_PNG_EXIF
    ).values[1:]
    # Pixels may contain the four letters by chance, but not followed by a TIFF mark.
    padded = pieces + b"\0" * 16
    after_prefix = tf.strings.substr(padded, 6, 4)
    has_prefix = tf.strings.substr(padded, 0, 6) == b"Exif\0\0"
    mark = tf.where(has_prefix, after_prefix, tf.strings.substr(padded, 0, 4))
    exif = tf.boolean_mask(padded, (mark == b"II*\0") | (mark == b"MM\0*"))
    return tf.cond(
        tf.size(exif) > 0,
        lambda: _png_orientation(tf.io.decode_raw(exif[0], tf.uint8)),
        lambda: tf.constant(1, tf.int64),
    )


def _bmp(data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    width, height, header_size = tf.unstack(
        read_uint(data, tf.constant([18, 22, 14]), 4, little=True)
    )
    # Negative: rows from top to bottom.
    height = tf.where(height >= 2**31, 2**32 - height, height)
    # The decoder reads run lengths as pixels. 3: masks of 32-bit colors.
    compression = read_uint(data, 30, 4, little=True)
    plain = tf.cast((compression == 0) | (compression == 3), tf.int64)
    has_palette = tf.cast(read_uint(data, 28, 2, little=True) == 8, tf.int64)
    return header_fields.pack_fields(
        height * plain, width, palette=has_palette * (14 + header_size)
    )


def _gif(data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Walks over the extensions to the end of the first image."""
    start = 13 + _color_table_bytes(read_uint(data, 10, 1))
    image, steps = tf.while_loop(
        lambda pos, steps: (
            (read_uint(data, pos, 1) == 0x21) & (steps < _MAX_GIF_BLOCKS)
        ),
        lambda pos, steps: _skip_gif_blocks(data, pos + 2, steps + 1),
        (start, tf.constant(0)),
    )
    is_image = read_uint(data, image, 1) == 0x2C
    width, height = tf.unstack(
        read_uint(data, image + tf.constant([5, 7], tf.int64), 2, little=True)
    )
    blocks = image + 11 + _color_table_bytes(read_uint(data, image + 9, 1))
    end, _ = _skip_gif_blocks(data, blocks, steps)
    complete = is_image & (end <= tf.size(data, tf.int64) - 16)
    return header_fields.pack_fields(
        height * tf.cast(complete, tf.int64), width, end=end
    )


def _skip_gif_blocks(
    data: tf.Tensor, pos: tf.Tensor, steps: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the offset after a chain of length-prefixed blocks, the last empty."""
    pos, steps = tf.while_loop(
        lambda pos, steps: (read_uint(data, pos, 1) > 0) & (steps < _MAX_GIF_BLOCKS),
        lambda pos, steps: (pos + 1 + read_uint(data, pos, 1), steps + 1),
        (pos, steps),
    )
    return pos + 1, steps


def _color_table_bytes(flags: tf.Tensor) -> tf.Tensor:
    size = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return tf.where(flags >= 128, size, 0)
