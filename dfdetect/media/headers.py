"""Reads image headers: size, orientation and what TensorFlow's decoder ignores.

The TensorFlow ops never fail, however broken the bytes are: a server must reject a
small file whose header states gigapixels without decoding it, and without failing the
rest of the batch. TensorFlow's decoder ignores EXIF orientations, reads all frames of
a GIF, rejects an animated WebP and takes the palette indices of a BMP for gray; the
header has the fields that correct this.
"""

import functools

import tensorflow as tf

from dfdetect.media import header_fields, webp_headers
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
    uint,
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

# More than any real image has; they bound the time for a hostile file.
_MAX_JPEG_SEGMENTS = 2000
_MAX_GIF_BLOCKS = 100_000
_MAX_PNG_CHUNKS = 2000
_MAX_PNG_EXIF = 16
# Each may unpack to 8 MB, which libpng then holds.
_MAX_PNG_TEXTS = 32
_PNG_TAIL_BYTES = 2**18

# Scans of a JPEG. libjpeg's own progressive files have 10, and 18 in four colors. One
# of no bytes still costs a step for each block of pixels, some 40 ms in 64 megapixels.
_FEWEST_SCANS, _MOST_SCANS = 32, 256
_MOST_SCANNED_PIXELS = 2**31
# Of a file, a motion photo's clip included, by chance one in 266 bytes of the latter.
_MOST_JPEG_MARKERS = 2**22

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_PROGRESSIVE_FRAMES = (0xC2, 0xC6, 0xCA, 0xCE)

# How the walk over a JPEG continues after a marker.
_SKIP_ONE, _SKIP_TWO, _SKIP_SEGMENT, _FRAME, _STOP = range(5)


def _jpeg_actions() -> list[int]:
    actions = [_SKIP_SEGMENT] * 256
    actions[0xC0:0xD0] = [_FRAME] * 16
    for marker in (0xC4, 0xC8, 0xCC):  # Tables.
        actions[marker] = _SKIP_SEGMENT
    for marker in (0x00, 0x01, *range(0xD0, 0xD8)):  # Markers without a length.
        actions[marker] = _SKIP_TWO
    for marker in (0xD8, 0xD9, 0xDA):  # Start of image, end, first scan.
        actions[marker] = _STOP
    actions[0xFF] = _SKIP_ONE  # A fill byte.
    return actions


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
)
def read(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads one header: scalar string -> int64 `[NUM_FIELDS]`."""
    # Padding, for offsets beyond the end of a broken file.
    data = tf.io.decode_raw(image_bytes + b"\0" * 16, tf.uint8)
    signatures = {
        b"\xff\xd8\xff": _jpeg,
        b"\x89PNG\r\n\x1a\n": _png,
        b"GIF8": _gif,
        b"BM": _bmp,
        b"RIFF....WEBP": lambda data, _: webp_headers.read(data),
    }
    kind = tf.constant(0)
    branches = [lambda: header_fields.pack(0, 0)]
    for number, (signature, reader) in enumerate(signatures.items(), start=1):
        kind = tf.where(_starts_with(data, signature), number, kind)
        branches.append(functools.partial(reader, data, image_bytes))
    return tf.ensure_shape(tf.switch_case(kind, branches), [NUM_FIELDS])


def read_batch(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads the headers of a batch: string `[B]` -> int64 `[B, NUM_FIELDS]`."""
    spec = tf.TensorSpec([NUM_FIELDS], tf.int64)
    return tf.map_fn(read, image_bytes, fn_output_signature=spec)


def first_frame(image_bytes: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Extracts the first frame of a GIF or WebP as a file; returns others unchanged.

    TensorFlow's decoder would decode all frames of a GIF, and rejects an animated WebP.
    """
    start = tf.cast(header[START], tf.int32)
    end = tf.cast(header[END], tf.int32)
    alone = (
        lambda: image_bytes,
        lambda: tf.strings.substr(image_bytes, 0, end) + b";",
        lambda: webp_headers.still(tf.strings.substr(image_bytes, start, end - start)),
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
        exif = tf.where(uint(data, pos + 4, 4) == exif_name, pos, exif)
        return pos + 12 + uint(data, pos, 4), exif

    end = tf.size(data, tf.int64) - 16
    zero = tf.constant(0, tf.int64)
    _, exif = tf.while_loop(
        lambda pos, exif: (
            (pos < end) & (exif == 0) & (uint(data, pos + 4, 4) != pixels_name)
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
    is_sound = _count_png_texts(image_bytes) <= _MAX_PNG_TEXTS
    rows = uint(data, 20, 4) * tf.cast(is_sound, tf.int64)
    return header_fields.pack(rows, uint(data, 16, 4), orientation)


def _count_png_texts(image_bytes: tf.Tensor) -> tf.Tensor:
    """Chunks of text that may be compressed, before and behind the pixels.

    By their names alone, which pixels have by chance once in gigabytes; no more than
    some above the bound.
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
    return header_fields.exif_orientation(exif, start)


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
        uint(data, tf.constant([18, 22, 14]), 4, little=True)
    )
    # Negative: rows from top to bottom.
    height = tf.where(height >= 2**31, 2**32 - height, height)
    # The decoder reads run lengths as pixels. 3: masks of 32-bit colors.
    compression = uint(data, 30, 4, little=True)
    plain = tf.cast((compression == 0) | (compression == 3), tf.int64)
    has_palette = tf.cast(uint(data, 28, 2, little=True) == 8, tf.int64)
    return header_fields.pack(
        height * plain, width, palette=has_palette * (14 + header_size)
    )


def _gif(data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Walks over the extensions to the end of the first image."""
    start = 13 + _color_table_bytes(uint(data, 10, 1))
    image, steps = tf.while_loop(
        lambda pos, steps: (uint(data, pos, 1) == 0x21) & (steps < _MAX_GIF_BLOCKS),
        lambda pos, steps: _skip_gif_blocks(data, pos + 2, steps + 1),
        (start, tf.constant(0)),
    )
    is_image = uint(data, image, 1) == 0x2C
    width, height = tf.unstack(
        uint(data, image + tf.constant([5, 7], tf.int64), 2, little=True)
    )
    blocks = image + 11 + _color_table_bytes(uint(data, image + 9, 1))
    end, _ = _skip_gif_blocks(data, blocks, steps)
    complete = is_image & (end <= tf.size(data, tf.int64) - 16)
    return header_fields.pack(height * tf.cast(complete, tf.int64), width, end=end)


def _skip_gif_blocks(
    data: tf.Tensor, pos: tf.Tensor, steps: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the offset after a chain of length-prefixed blocks, the last empty."""
    pos, steps = tf.while_loop(
        lambda pos, steps: (uint(data, pos, 1) > 0) & (steps < _MAX_GIF_BLOCKS),
        lambda pos, steps: (pos + 1 + uint(data, pos, 1), steps + 1),
        (pos, steps),
    )
    return pos + 1, steps


def _color_table_bytes(flags: tf.Tensor) -> tf.Tensor:
    size = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return tf.where(flags >= 128, size, 0)


def _jpeg(data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Walks over the markers up to the first scan, as libjpeg does; notes EXIF."""
    actions = tf.constant(_jpeg_actions())
    exif_start = tf.constant(list(b"\xff\xe1Exif\0\0"), tf.uint8)

    def step(
        pos: tf.Tensor, action: tf.Tensor, frame: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        window = data[pos : pos + 10]
        marker, length = tf.cast(window[1], tf.int32), uint(window, 2, 2)
        # Bytes between the segments that are not markers are skipped.
        action = tf.where(window[0] == 0xFF, actions[marker], _SKIP_ONE)
        has_length = (action == _SKIP_SEGMENT) | (action == _FRAME)
        action = tf.where(has_length & (length < 2), _STOP, action)
        is_exif = tf.reduce_all(tf.concat([window[:2], window[4:]], 0) == exif_start)
        exif = tf.where(is_exif & (exif == 0), pos, exif)
        frame = tf.where((action == _FRAME) & (frame == 0), pos, frame)
        alone = tf.cast(action + 1, tf.int64)  # _SKIP_ONE is 0, _SKIP_TWO is 1.
        jump = tf.where(has_length, 2 + length, alone)
        return tf.where(action == _STOP, pos, pos + jump), action, frame, exif

    end = tf.size(data, tf.int64) - 16
    zero = tf.constant(0, tf.int64)
    pos, action, frame, exif = tf.while_loop(
        lambda pos, action, frame, exif: (pos < end) & (action != _STOP),
        step,
        (zero + 2, tf.constant(_SKIP_ONE), zero, zero),
        maximum_iterations=_MAX_JPEG_SEGMENTS,
    )
    height, width = tf.unstack(uint(data, frame + tf.constant([5, 7], tf.int64), 2))
    is_sound = (frame > 0) & ~_has_too_many_scans(data, frame, pos, height * width)
    orientation = tf.cond(
        exif > 0,
        lambda: header_fields.exif_orientation(data, exif + 10),
        lambda: tf.constant(1, tf.int64),
    )
    return header_fields.pack(height * tf.cast(is_sound, tf.int64), width, orientation)


def _has_too_many_scans(
    data: tf.Tensor, frame: tf.Tensor, scan: tf.Tensor, pixels: tf.Tensor
) -> tf.Tensor:
    """Whether a JPEG has more scans than a real one of its size.

    Only of files whose first scan is not all of them: of others libjpeg reads no more.

    Args:
        data: uint8 `[N]`.
        frame: Offset of its frame.
        scan: Offset of its first scan.
        pixels: Height times width.
    """
    marker = uint(data, frame + 1, 1)
    is_progressive = tf.reduce_any(marker == tf.constant(_PROGRESSIVE_FRAMES, tf.int64))
    # The numbers of colors in all, and of those in the first scan.
    is_partial = uint(data, scan + 4, 1) < uint(data, frame + 9, 1)
    most = _MOST_SCANNED_PIXELS // tf.maximum(pixels, 1)
    most = tf.clip_by_value(most, _FEWEST_SCANS, _MOST_SCANS)
    return tf.cond(
        is_progressive | is_partial,
        lambda: _count_scans(data, scan, most) > most,
        lambda: tf.constant(False),
    )


def _count_scans(data: tf.Tensor, scan: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
    """Scans from the offset of the first one on; of more than `most`, `most + 1`."""
    too_many = most + 1
    after = data[1:]
    # Not those that stand in pixels: stuffing, and restarts.
    is_marker = (data[:-1] == 0xFF) & (after > 0x01) & (after < 0xFF)
    is_marker &= (after < 0xD0) | (after > 0xD7)

    def walk() -> tf.Tensor:
        # A last one, so that there is always a next.
        markers = tf.concat(
            [tf.where(is_marker)[:, 0], [tf.size(data, tf.int64) - 2]], 0
        )
        last = tf.size(markers, tf.int64) - 1

        def step(
            pos: tf.Tensor, count: tf.Tensor, ended: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            index = tf.searchsorted(markers, pos[None], out_type=tf.int64)[0]
            index = tf.minimum(index, last)
            pos = markers[index]
            marker, length = uint(data, pos + 1, 1), uint(data, pos + 2, 2)
            ended = (marker == _END_OF_IMAGE) | (index == last)
            count += tf.cast((marker == _START_OF_SCAN) & ~ended, tf.int64)
            return pos + 2 + tf.maximum(length, 2), count, ended

        _, count, ended = tf.while_loop(
            lambda pos, count, ended: ~ended & (count <= most),
            step,
            (scan, tf.constant(0, tf.int64), tf.constant(False)),
            maximum_iterations=_MAX_JPEG_SEGMENTS,
        )
        # Else the walk was given up.
        return tf.where(ended, count, too_many)

    is_short = tf.math.count_nonzero(is_marker) <= _MOST_JPEG_MARKERS
    return tf.cond(is_short, walk, lambda: too_many)
