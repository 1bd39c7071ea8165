"""What a picture file says about itself before anything is decoded.

In TensorFlow ops that never fail, however broken the bytes are: a server has to turn
away a file of a few bytes that promises gigapixels without decoding it, and without
failing the pictures beside it. TensorFlow's decoder ignores EXIF orientations, reads
all frames of a GIF, refuses an animated WebP and takes the palette indices of a BMP for
grey; what it takes to do better is read here too.
"""

import functools

import tensorflow as tf

# Fields of a header. Height and width are 0 in a file that cannot be decoded, and
# those before the orientation is applied. END is where the first frame of a GIF ends.
# START and END are where the pixels of the first frame of an animated WebP lie, and TOP
# and LEFT its place. PALETTE is where that of an 8-bit BMP begins. 0 elsewhere.
HEIGHT, WIDTH, ORIENTATION, END, PALETTE, START, TOP, LEFT = range(8)
NUM_FIELDS = 8

_EXIF_ORIENTATION = 0x0112
# Types of numbers in EXIF: SHORT, LONG and the same with a sign. It is to be a SHORT.
_EXIF_TYPES_OF_TWO_BYTES = (3, 8)
_EXIF_TYPES_OF_FOUR_BYTES = (4, 9)

_WEBP_HAS_EXIF, _WEBP_IS_ANIMATED = 0x08, 0x02

# Nobody's picture has as many; they bound the time that a hostile one may take.
_MAX_JPEG_SEGMENTS = 2000
_MAX_GIF_BLOCKS = 100_000
_MAX_WEBP_CHUNKS = 10_000
_MAX_PNG_EXIF = 16
_MAX_EXIF_BYTES = 2**16

# What a JPEG marker asks the walk to do.
_SKIP_ONE, _SKIP_TWO, _SKIP_SEGMENT, _STOP, _FRAME = range(5)


def _jpeg_actions() -> list[int]:
    actions = [_SKIP_SEGMENT] * 256
    actions[0xC0:0xD0] = [_FRAME] * 16
    for marker in (0xC4, 0xC8, 0xCC):  # Tables.
        actions[marker] = _SKIP_SEGMENT
    for marker in (0x00, 0x01, *range(0xD0, 0xD8)):  # Markers without a length.
        actions[marker] = _SKIP_TWO
    for marker in (0xD8, 0xD9, 0xDA):  # Start of image, end, scan: no frame follows.
        actions[marker] = _STOP
    actions[0xFF] = _SKIP_ONE  # A fill byte.
    return actions


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
)
def read(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads one header: scalar string -> int64 `[NUM_FIELDS]`."""
    # The zeros stand for whatever a broken file points at beyond its end.
    data = tf.io.decode_raw(image_bytes + b"\0" * 16, tf.uint8)
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
        kind = tf.where(_starts_with(data, signature), number, kind)
        branches.append(functools.partial(reader, data, image_bytes))
    return tf.ensure_shape(tf.switch_case(kind, branches), [NUM_FIELDS])


def read_batch(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads the headers of a batch: string `[B]` -> int64 `[B, NUM_FIELDS]`."""
    spec = tf.TensorSpec([NUM_FIELDS], tf.int64)
    return tf.map_fn(read, image_bytes, fn_output_signature=spec)


def first_frame(image_bytes: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """The bytes of the first frame alone; only those of GIF and WebP ever change.

    The decoder would unpack all frames of a GIF, of any size, to return the first, and
    refuses a WebP of more than one.
    """
    start = tf.cast(header[START], tf.int32)
    end = tf.cast(header[END], tf.int32)
    alone = (
        lambda: image_bytes,
        lambda: tf.strings.substr(image_bytes, 0, end) + b";",
        lambda: _still_webp(tf.strings.substr(image_bytes, start, end - start)),
    )
    kind = tf.where(start > 0, 2, tf.cast(end > 0, tf.int32))
    return tf.ensure_shape(tf.switch_case(kind, alone), [])


def _still_webp(chunk: tf.Tensor) -> tf.Tensor:
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
    top, left, height, width = tf.unstack(
        tf.cast(tf.gather(header, [TOP, LEFT, HEIGHT, WIDTH]), tf.int32)
    )
    extent = tf.shape(image)
    below, right = height - top - extent[0], width - left - extent[1]
    return tf.pad(image, [[top, below], [left, right], [0, 0]])


def apply_palette(
    image_bytes: tf.Tensor, header: tf.Tensor, indices: tf.Tensor
) -> tf.Tensor:
    """The colours, uint8 `[..., 3]`, of the uint8 indices of an 8-bit BMP."""
    start = tf.cast(header[PALETTE], tf.int32)
    start = tf.minimum(start, tf.strings.length(image_bytes))
    colours = tf.strings.substr(image_bytes, start, 4 * 256)
    # Blue, green, red and nothing; black where the file has fewer than 256.
    colours = tf.io.decode_raw(colours, tf.uint8, fixed_length=4 * 256)
    colours = tf.reverse(tf.reshape(colours, [256, 4])[:, :3], [1])
    return tf.gather(colours, tf.cast(indices, tf.int32))


def _starts_with(data: tf.Tensor, signature: bytes) -> tf.Tensor:
    """Whether the first bytes are these; a dot is any byte."""
    equal = data[: len(signature)] == tf.constant(list(signature), tf.uint8)
    return tf.reduce_all(equal | tf.constant([byte == ord(".") for byte in signature]))


def _header(
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    orientation: tf.Tensor | int = 1,
    end: tf.Tensor | int = 0,
    palette: tf.Tensor | int = 0,
    start: tf.Tensor | int = 0,
    top: tf.Tensor | int = 0,
    left: tf.Tensor | int = 0,
) -> tf.Tensor:
    fields = (height, width, orientation, end, palette, start, top, left)
    return tf.stack([tf.cast(field, tf.int64) for field in fields])


def _uint(
    data: tf.Tensor,
    at: tf.Tensor | int,
    num_bytes: int,
    little: tf.Tensor | bool = False,
) -> tf.Tensor:
    """int64 of `num_bytes` at the offsets `at`; 0 beyond the end of the data."""
    index = tf.cast(at, tf.int64)[..., None] + tf.range(num_bytes, dtype=tf.int64)
    index = tf.minimum(index, tf.size(data, tf.int64) - 1)
    weights = tf.constant([256**i for i in range(num_bytes)], tf.int64)
    weights = tf.where(little, weights, tf.reverse(weights, [0]))
    return tf.reduce_sum(tf.cast(tf.gather(data, index), tf.int64) * weights, -1)


def _png(data: tf.Tensor, image_bytes: tf.Tensor) -> tf.Tensor:
    # Wherever it stands. To walk over all chunks would take longer than to decode them.
    pieces = tf.raw_ops.StringSplitV2(
        input=[image_bytes], sep=b"eXIf", maxsplit=_MAX_PNG_EXIF
    ).values[1:]
    exif = tf.strings.substr(pieces + b"\0" * 16, 0, _MAX_EXIF_BYTES)
    has_prefix = tf.strings.substr(exif, 0, 6) == b"Exif\0\0"
    exif = tf.where(has_prefix, tf.strings.substr(exif, 6, _MAX_EXIF_BYTES), exif)
    mark = tf.strings.substr(exif, 0, 4)
    # Other chunks may hold the four letters by chance, but none of these behind them.
    exif = tf.boolean_mask(exif, (mark == b"II*\0") | (mark == b"MM\0*"))
    orientation = tf.cond(
        tf.size(exif) > 0,
        lambda: _exif_orientation(
            tf.io.decode_raw(exif[0] + b"\0" * 16, tf.uint8), tf.constant(0, tf.int64)
        ),
        lambda: tf.constant(1, tf.int64),
    )
    return _header(_uint(data, 20, 4), _uint(data, 16, 4), orientation)


def _bmp(data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    width, height, header_size = tf.unstack(
        _uint(data, tf.constant([18, 22, 14]), 4, little=True)
    )
    # Negative: rows from top to bottom.
    height = tf.where(height >= 2**31, 2**32 - height, height)
    # The decoder takes run lengths for pixels. 3 tells the order of 32-bit colours.
    compression = _uint(data, 30, 4, little=True)
    plain = tf.cast((compression == 0) | (compression == 3), tf.int64)
    has_palette = tf.cast(_uint(data, 28, 2, little=True) == 8, tf.int64)
    return _header(height * plain, width, palette=has_palette * (14 + header_size))


def _webp(data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    sides = _webp_sides(data, tf.constant(12, tf.int64))
    is_extended = _uint(data, 12, 4) == int.from_bytes(b"VP8X", "big")
    return tf.cond(
        is_extended,
        lambda: _extended_webp(data, sides),
        lambda: _header(sides[0], sides[1]),
    )


def _webp_sides(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Height and width by the chunk at an offset; zeros by one of another kind."""
    chunk = _uint(data, at, 4)
    lossy = _uint(data, at + tf.constant([16, 14], tf.int64), 2, little=True) % 2**14
    bits = _uint(data, at + 9, 4, little=True)
    lossless = tf.stack([bits // 2**14, bits]) % 2**14 + 1
    extended = _uint(data, at + tf.constant([15, 12], tf.int64), 3, little=True) + 1
    sides = tf.zeros([2], tf.int64)
    for name, value in ((b"VP8 ", lossy), (b"VP8L", lossless), (b"VP8X", extended)):
        sides = tf.where(chunk == int.from_bytes(name, "big"), value, sides)
    return sides


def _extended_webp(data: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Walks over the chunks to the first frame and to EXIF, of those that have them."""
    frame_name = int.from_bytes(b"ANMF", "big")
    exif_name = int.from_bytes(b"EXIF", "big")
    end = tf.size(data, tf.int64) - 16

    def step(
        pos: tf.Tensor, frame: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        name = _uint(data, pos, 4)
        frame = tf.where((name == frame_name) & (frame == 0), pos, frame)
        exif = tf.where((name == exif_name) & (exif == 0), pos, exif)
        return _next_webp_chunk(data, pos), frame, exif

    flags = _uint(data, 20, 1)
    has_exif = tf.bitwise.bitwise_and(flags, _WEBP_HAS_EXIF) > 0
    is_animated = tf.bitwise.bitwise_and(flags, _WEBP_IS_ANIMATED) > 0
    zero = tf.constant(0, tf.int64)
    _, frame, exif = tf.while_loop(
        lambda pos, frame, exif: (
            (pos < end) & ((has_exif & (exif == 0)) | (is_animated & (frame == 0)))
        ),
        step,
        (zero + 12, zero, zero),
        maximum_iterations=_MAX_WEBP_CHUNKS,
    )
    prefix = tf.constant(list(b"Exif\0\0"), tf.uint8)
    tiff = exif + 8
    has_prefix = tf.reduce_all(data[tiff : tiff + 6] == prefix)
    orientation = tf.cond(
        has_exif & (exif > 0),
        lambda: _exif_orientation(data, tiff + tf.where(has_prefix, zero + 6, zero)),
        lambda: tf.constant(1, tf.int64),
    )
    return tf.cond(
        is_animated,
        lambda: _animated_webp(data, sides, frame, orientation),
        lambda: _header(sides[0], sides[1], orientation),
    )


def _animated_webp(
    data: tf.Tensor, canvas: tf.Tensor, frame: tf.Tensor, orientation: tf.Tensor
) -> tf.Tensor:
    """The header by the chunk of the first frame; of size 0 where that is unsound."""
    at = frame + 8 + tf.constant([3, 0, 9, 6], tf.int64)
    top, left, height, width = tf.unstack(_uint(data, at, 3, little=True))
    top, left, height, width = 2 * top, 2 * left, height + 1, width + 1
    pixels = frame + 24
    # Transparency may stand before them.
    is_alpha = _uint(data, pixels, 4) == int.from_bytes(b"ALPH", "big")
    pixels = tf.where(is_alpha, _next_webp_chunk(data, pixels), pixels)
    end = pixels + 8 + _uint(data, pixels + 4, 4, little=True)
    # What the decoder is given must be as large as it was said to be.
    is_sound = (frame > 0) & (end <= tf.size(data, tf.int64) - 16)
    is_sound &= tf.reduce_all(_webp_sides(data, pixels) == tf.stack([height, width]))
    is_sound &= (top + height <= canvas[0]) & (left + width <= canvas[1])
    rows = canvas[0] * tf.cast(is_sound, tf.int64)
    return _header(rows, canvas[1], orientation, end, 0, pixels, top, left)


def _next_webp_chunk(data: tf.Tensor, pos: tf.Tensor) -> tf.Tensor:
    length = _uint(data, pos + 4, 4, little=True)
    return pos + 8 + length + length % 2


def _gif(data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Walks over the extensions to the first picture, and to its end."""
    start = 13 + _colour_table_bytes(_uint(data, 10, 1))
    picture, steps = tf.while_loop(
        lambda pos, steps: (_uint(data, pos, 1) == 0x21) & (steps < _MAX_GIF_BLOCKS),
        lambda pos, steps: _skip_gif_blocks(data, pos + 2, steps + 1),
        (start, tf.constant(0)),
    )
    is_picture = _uint(data, picture, 1) == 0x2C
    width, height = tf.unstack(
        _uint(data, picture + tf.constant([5, 7], tf.int64), 2, little=True)
    )
    blocks = picture + 11 + _colour_table_bytes(_uint(data, picture + 9, 1))
    end, _ = _skip_gif_blocks(data, blocks, steps)
    complete = is_picture & (end <= tf.size(data, tf.int64) - 16)
    return _header(height * tf.cast(complete, tf.int64), width, end=end)


def _skip_gif_blocks(
    data: tf.Tensor, pos: tf.Tensor, steps: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The offset after a chain of blocks; each tells its length, the last is empty."""
    pos, steps = tf.while_loop(
        lambda pos, steps: (_uint(data, pos, 1) > 0) & (steps < _MAX_GIF_BLOCKS),
        lambda pos, steps: (pos + 1 + _uint(data, pos, 1), steps + 1),
        (pos, steps),
    )
    return pos + 1, steps


def _colour_table_bytes(flags: tf.Tensor) -> tf.Tensor:
    size = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return tf.where(flags >= 128, size, 0)


def _jpeg(data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Walks the markers as libjpeg does: to the frame, past an EXIF segment."""
    actions = tf.constant(_jpeg_actions())
    exif_start = tf.constant(list(b"\xff\xe1Exif\0\0"), tf.uint8)

    def step(
        pos: tf.Tensor, action: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        window = data[pos : pos + 10]
        marker, length = tf.cast(window[1], tf.int32), _uint(window, 2, 2)
        # Between the segments, bytes that are no marker are skipped as dirt.
        action = tf.where(window[0] == 0xFF, actions[marker], _SKIP_ONE)
        action = tf.where((action == _SKIP_SEGMENT) & (length < 2), _STOP, action)
        is_exif = tf.reduce_all(tf.concat([window[:2], window[4:]], 0) == exif_start)
        exif = tf.where(is_exif & (exif == 0), pos, exif)
        alone = tf.cast(action + 1, tf.int64)  # _SKIP_ONE is 0, _SKIP_TWO is 1.
        jump = tf.where(action == _SKIP_SEGMENT, 2 + length, alone)
        return tf.where(action >= _STOP, pos, pos + jump), action, exif

    end = tf.size(data, tf.int64) - 16
    zero = tf.constant(0, tf.int64)
    pos, action, exif = tf.while_loop(
        lambda pos, action, exif: (pos < end) & (action < _STOP),
        step,
        (zero + 2, tf.constant(_SKIP_ONE), zero),
        maximum_iterations=_MAX_JPEG_SEGMENTS,
    )
    height, width = tf.unstack(_uint(data, pos + tf.constant([5, 7], tf.int64), 2))
    orientation = tf.cond(
        exif > 0,
        lambda: _exif_orientation(data, exif + 10),
        lambda: tf.constant(1, tf.int64),
    )
    return _header(height * tf.cast(action == _FRAME, tf.int64), width, orientation)


def _exif_orientation(data: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """The orientation, 1 to 8, in the TIFF structure at `tiff`; 1 if there is none."""
    little = _uint(data, tiff, 2) == int.from_bytes(b"II", "big")
    directory = tiff + _uint(data, tiff + 4, 4, little)
    entries = directory + 2 + 12 * tf.range(_uint(data, directory, 2, little))
    tags = _uint(data, entries, 2, little)
    types = _uint(data, entries + 2, 2, little)
    short, long = (_uint(data, entries + 8, size, little) for size in (2, 4))
    is_long = _is_one_of(types, _EXIF_TYPES_OF_FOUR_BYTES)
    values = tf.where(is_long, long, short)
    valid = (tags == _EXIF_ORIENTATION) & (_uint(data, entries + 4, 4, little) == 1)
    valid &= is_long | _is_one_of(types, _EXIF_TYPES_OF_TWO_BYTES)
    valid &= (values >= 1) & (values <= 8)
    # The first wins; 1 follows for the case that there is none.
    return tf.concat([tf.boolean_mask(values, valid), [1]], 0)[0]


def _is_one_of(values: tf.Tensor, choices: tuple[int, ...]) -> tf.Tensor:
    choices = tf.constant(choices, tf.int64)
    return tf.reduce_any(values[..., None] == choices, -1)
