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
        branches.append(functools.partial(reader, data))
    return tf.ensure_shape(tf.switch_case(kind, branches), [NUM_FIELDS])


def read_batch(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads the headers of a batch: string `[B]` -> int64 `[B, NUM_FIELDS]`."""
    spec = tf.TensorSpec([NUM_FIELDS], tf.int64)
    return tf.map_fn(read, image_bytes, fn_output_signature=spec)


def first_frame(image_bytes: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """The bytes of the first picture alone; only those of a GIF ever change.

    The decoder would unpack all frames of a GIF, of any size, to return the first.
    """
    end = tf.cast(header[END], tf.int32)
    return tf.cond(
        end > 0,
        lambda: tf.strings.substr(image_bytes, 0, end) + b";",
        lambda: image_bytes,
    )


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
) -> tf.Tensor:
    fields = (height, width, orientation, end, palette)
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


def _png(data: tf.Tensor) -> tf.Tensor:
    return _header(_uint(data, 20, 4), _uint(data, 16, 4))


def _bmp(data: tf.Tensor) -> tf.Tensor:
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


def _webp(data: tf.Tensor) -> tf.Tensor:
    chunk = _uint(data, 12, 4)
    # Height and width of each kind of chunk, of which the file has one at byte 12.
    lossy = _uint(data, tf.constant([28, 26]), 2, little=True) % 2**14
    bits = _uint(data, 21, 4, little=True)
    lossless = tf.stack([bits // 2**14, bits]) % 2**14 + 1
    extended = _uint(data, tf.constant([27, 24]), 3, little=True) + 1
    sides = tf.zeros([2], tf.int64)
    for name, value in ((b"VP8 ", lossy), (b"VP8L", lossless), (b"VP8X", extended)):
        sides = tf.where(chunk == int.from_bytes(name, "big"), value, sides)
    return _header(sides[0], sides[1])


def _gif(data: tf.Tensor) -> tf.Tensor:
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


def _jpeg(data: tf.Tensor) -> tf.Tensor:
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
    values = _uint(data, entries + 8, 2, little)
    valid = (tags == _EXIF_ORIENTATION) & (types == _EXIF_SHORT)
    valid &= (values >= 1) & (values <= 8)
    # The first wins; 1 follows for the case that there is none.
    return tf.concat([tf.boolean_mask(values, valid), [1]], 0)[0]
