"""What a picture file says about itself before anything is decoded.

In TensorFlow ops that never fail, however broken the bytes are: a server has to turn
away a file of a few bytes that promises gigapixels without decoding it, and without
failing the pictures beside it. TensorFlow's decoder ignores EXIF orientations, reads
all frames of a GIF and takes the palette indices of a BMP for grey; what it takes to
do better is read here too.
"""

import functools

import tensorflow as tf

# Fields of a header. Height and width are 0 in a file that cannot be decoded, and
# those before the orientation is applied. END is where the first picture ends, PALETTE
# where the palette of an 8-bit BMP begins; 0 elsewhere.
HEIGHT, WIDTH, ORIENTATION, END, PALETTE = range(5)
NUM_FIELDS = 5

_EXIF_ORIENTATION = 0x0112
_EXIF_SHORT = 3

# Nobody's picture has as many; they bound the time that a hostile one may take.
_MAX_JPEG_SEGMENTS = 2000
_MAX_GIF_BLOCKS = 100_000


def read(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads one header: scalar string -> int64 `[NUM_FIELDS]`."""
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    start = tf.io.decode_raw(
        tf.strings.substr(image_bytes, 0, 12), tf.uint8, fixed_length=12
    )
    signatures = {
        b"\xff\xd8\xff": _jpeg,
        b"\x89PNG\r\n\x1a\n": _png,
        b"GIF8": _gif,
        b"BM": _bmp,
        b"RIFF....WEBP": _webp,
    }
    kind = tf.constant(0)
    branches = [lambda: _header(0, 0)]
    for number, (signature, reader) in enumerate(signatures.items(), start=1):
        kind = tf.where(_starts_with(start, signature), number, kind)
        branches.append(functools.partial(reader, data))
    return tf.ensure_shape(tf.switch_case(kind, branches), [NUM_FIELDS])


def first_frame(image_bytes: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """The bytes of the first picture alone; only those of a GIF ever change.

    The decoder would unpack all frames of a GIF, of any size, to return the first.
    """
    end = tf.cast(header[END], tf.int32)
    trailer = b";"
    return tf.cond(
        end > 0,
        lambda: tf.strings.substr(image_bytes, 0, end) + trailer,
        lambda: image_bytes,
    )


def apply_palette(
    image_bytes: tf.Tensor, header: tf.Tensor, indices: tf.Tensor
) -> tf.Tensor:
    """The colours, uint8 `[..., 3]`, of the uint8 indices of an 8-bit BMP."""
    start = tf.minimum(
        tf.cast(header[PALETTE], tf.int32), tf.strings.length(image_bytes)
    )
    colours = tf.strings.substr(image_bytes, start, 4 * 256)
    # Blue, green, red and nothing; black where the file has fewer than 256.
    colours = tf.io.decode_raw(colours, tf.uint8, fixed_length=4 * 256)
    colours = tf.reshape(colours, [256, 4])[:, 2::-1]
    return tf.gather(colours, tf.cast(indices, tf.int32))


def _starts_with(start: tf.Tensor, signature: bytes) -> tf.Tensor:
    """Whether the first bytes are these; a dot is any byte."""
    equal = start[: len(signature)] == tf.constant(list(signature), tf.uint8)
    return tf.reduce_all(equal | tf.constant([byte == ord(".") for byte in signature]))


def _where(condition: tf.Tensor, chosen, otherwise) -> tf.Tensor:
    return tf.where(condition, tf.cast(chosen, tf.int64), tf.cast(otherwise, tf.int64))


def _header(height, width, orientation=1, end=0, palette=0) -> tf.Tensor:
    fields = (height, width, orientation, end, palette)
    return tf.stack([tf.cast(field, tf.int64) for field in fields])


def _size(data: tf.Tensor) -> tf.Tensor:
    return tf.size(data, tf.int64)


def _uint(data: tf.Tensor, at, num_bytes: int, little=False, end=None) -> tf.Tensor:
    """Unsigned integers at the offsets `at`; bytes beyond the `end` are zeros."""
    end = _size(data) if end is None else end
    index = tf.cast(at, tf.int64)[..., None] + tf.range(num_bytes, dtype=tf.int64)
    inside = (index >= 0) & (index < end)
    values = tf.gather(data, _where(inside, index, 0))
    values = _where(inside, tf.cast(values, tf.int64), 0)
    shifts = tf.range(num_bytes, dtype=tf.int64) * 8
    shifts = _where(little, shifts, shifts[::-1])
    return tf.reduce_sum(tf.bitwise.left_shift(values, shifts), -1)


def _png(data: tf.Tensor) -> tf.Tensor:
    return _header(_uint(data, 20, 4), _uint(data, 16, 4))


def _bmp(data: tf.Tensor) -> tf.Tensor:
    width = _uint(data, 18, 4, little=True)
    height = _uint(data, 22, 4, little=True)
    # Negative: rows from top to bottom.
    height = _where(height >= 2**31, 2**32 - height, height)
    # The decoder takes run lengths for pixels. 3 tells the order of 32-bit colours.
    compression = _uint(data, 30, 4, little=True)
    plain = (compression == 0) | (compression == 3)
    has_palette = _uint(data, 28, 2, little=True) == 8
    palette = _where(has_palette, 14 + _uint(data, 14, 4, little=True), 0)
    return _header(_where(plain, height, 0), width, palette=palette)


def _webp(data: tf.Tensor) -> tf.Tensor:
    chunk = _uint(data, 12, 4)

    def is_chunk(name: bytes) -> tf.Tensor:
        return chunk == int.from_bytes(name, "big")

    lossy = [_uint(data, at, 2, little=True) % 2**14 for at in (28, 26)]
    bits = _uint(data, 21, 4, little=True)
    lossless = [bits // 2**14 % 2**14 + 1, bits % 2**14 + 1]
    extended = [_uint(data, at, 3, little=True) + 1 for at in (27, 24)]
    sides = tf.where(
        is_chunk(b"VP8 "), lossy, _where(is_chunk(b"VP8L"), lossless, extended)
    )
    known = is_chunk(b"VP8 ") | is_chunk(b"VP8L") | is_chunk(b"VP8X")
    return _header(_where(known, sides[0], 0), sides[1])


def _gif(data: tf.Tensor) -> tf.Tensor:
    """Walks to the first picture and through its blocks."""
    table = _uint(data, 10, 1)
    start = 13 + _colour_table_bytes(table)
    between, in_extension, in_picture, done = (
        tf.constant(i, tf.int64) for i in range(4)
    )

    def step(pos, place, height, width):
        block = _uint(data, pos, 1)
        opens_extension = (place == between) & (block == 0x21)
        opens_picture = (place == between) & (block == 0x2C)
        ends = (place != between) & (block == 0)
        ended = _where(place == in_picture, done, between)
        sides = _uint(data, tf.stack([pos + 7, pos + 5]), 2, little=True)
        picture_head = 11 + _colour_table_bytes(_uint(data, pos + 9, 1))
        jump = _where(opens_extension, 2, _where(opens_picture, picture_head, 1))
        # Anything else between the blocks is broken: leave by the end.
        broken = (place == between) & ~opens_extension & ~opens_picture
        jump = _where(broken, _size(data), jump)
        jump += _where(place == between, 0, block)
        next_place = _where(opens_extension, in_extension, place)
        next_place = _where(opens_picture, in_picture, next_place)
        next_place = _where(ends, ended, next_place)
        return (
            pos + jump,
            next_place,
            _where(opens_picture, sides[0], height),
            _where(opens_picture, sides[1], width),
        )

    zero = tf.constant(0, tf.int64)
    pos, place, height, width = tf.while_loop(
        lambda pos, place, height, width: (place != done) & (pos < _size(data)),
        step,
        (start, between, zero, zero),
        maximum_iterations=_MAX_GIF_BLOCKS,
    )
    return _header(_where(place == done, height, 0), width, end=pos)


def _colour_table_bytes(flags: tf.Tensor) -> tf.Tensor:
    size = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return _where(flags >= 128, size, 0)


def _jpeg(data: tf.Tensor) -> tf.Tensor:
    """Walks the markers as libjpeg does: to the frame, past an EXIF segment."""
    zero = tf.constant(0, tf.int64)

    def step(pos, height, width, exif, exif_end):
        first, marker = tf.unstack(_uint(data, tf.stack([pos, pos + 1]), 1))
        length, high, wide = tf.unstack(
            _uint(data, tf.stack([pos + 2, pos + 5, pos + 7]), 2)
        )
        is_marker = (first == 0xFF) & (marker != 0xFF) & (marker != 0)
        # Fill bytes, stuffed zeros and dirt between the segments.
        dirt = _where((first == 0xFF) & (marker == 0), 2, 1)
        alone = ((marker >= 0xD0) & (marker <= 0xD7)) | (marker == 0x01)
        no_frame = (marker == 0xC4) | (marker == 0xC8) | (marker == 0xCC)
        is_frame = is_marker & (marker >= 0xC0) & (marker <= 0xCF) & ~no_frame
        # Start of image, end, start of scan: no frame can follow.
        is_end = is_marker & (marker >= 0xD8) & (marker <= 0xDA)
        is_end |= is_marker & ~alone & (length < 2)
        segment = _where(alone, 2, 2 + length)
        name = _uint(data, pos + 4, 6)
        is_exif = is_marker & (marker == 0xE1) & (exif == 0)
        is_exif &= name == int.from_bytes(b"Exif\0\0", "big")
        return (
            _where(
                is_frame | is_end,
                _size(data),
                pos + _where(is_marker, segment, dirt),
            ),
            _where(is_frame, high, height),
            _where(is_frame, wide, width),
            _where(is_exif, pos + 10, exif),
            _where(is_exif, pos + segment, exif_end),
        )

    _, height, width, exif, exif_end = tf.while_loop(
        lambda pos, *_: pos < _size(data),
        step,
        (zero + 2, zero, zero, zero, zero),
        maximum_iterations=_MAX_JPEG_SEGMENTS,
    )
    orientation = tf.cond(
        exif > 0,
        lambda: _exif_orientation(data, exif, tf.minimum(exif_end, _size(data))),
        lambda: tf.constant(1, tf.int64),
    )
    return _header(height, width, orientation)


def _exif_orientation(data: tf.Tensor, tiff: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """The orientation, 1 to 8, in the TIFF structure at `tiff`; 1 if there is none."""
    little = _uint(data, tiff, 2) == int.from_bytes(b"II", "big")
    directory = tiff + _uint(data, tiff + 4, 4, little, end)
    count = _uint(data, directory, 2, little, end)
    count = tf.clip_by_value((end - directory - 2) // 12, 0, count)
    entries = directory + 2 + 12 * tf.range(count)
    tags = _uint(data, entries, 2, little, end)
    types = _uint(data, entries + 2, 2, little, end)
    values = _uint(data, entries + 8, 2, little, end)
    valid = (tags == _EXIF_ORIENTATION) & (types == _EXIF_SHORT)
    valid &= (values >= 1) & (values <= 8)
    # The first wins; 1 follows for the case that there is none.
    found = tf.concat([tf.boolean_mask(values, valid), [1]], 0)
    return found[0]
