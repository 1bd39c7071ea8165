"""From encoded bytes to pixels, and from pixels to what the models see.

Outside a model an image is RGB in [0, 255]: uint8 as decoded, float32 once resized.
Models normalise in their first layer. Everything here is TensorFlow ops, so that
training and the exported graph run the same code: the traces of forgery are as small
as the differences between two decoders or two ways to resize.
"""

import tensorflow as tf

from dfdetect.media import exif, headers, image_status, jpeg, webp_headers

_PARALLEL_DECODES = 4


def decode_image(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes one file.

    JPEG (progressive, grey and CMYK too), PNG, BMP (8, 24 and 32 bits), GIF and WebP;
    of animated ones, the first frame. Alpha is dropped: the colours below it stay as
    they are stored. 16 bits become 8. The EXIF orientation of JPEG, PNG and WebP is
    applied.

    Args:
        image_bytes: Scalar string.

    Returns:
        uint8 `[height, width, 3]`, upright RGB.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are no such image, or cut short.
    """
    header = headers.read(image_bytes)
    tf.debugging.assert_positive(
        header[headers.HEIGHT] * header[headers.WIDTH],
        "The bytes are no JPEG, PNG, BMP, GIF or WebP, or are cut short.",
    )
    image = _raw_pixels(headers.first_frame(image_bytes, header))
    return _finish(image, image_bytes, header)


def decode_for(image_bytes: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes one file that is to be letterboxed: a large JPEG at a reduced scale.

    Args:
        image_bytes: Scalar string; see `decode_image`.
        size: See `letterbox`.

    Returns:
        The image, uint8 `[height, width, 3]`, and the height and width of the
        original, int32 `[2]`: what `letterbox` takes.

    Raises:
        tf.errors.InvalidArgumentError: As by `decode_image`.
    """
    header = headers.read(image_bytes)
    times = jpeg.halvings(image_bytes, header, size)
    turned = header[headers.ORIENTATION]

    def whole() -> tuple[tf.Tensor, tf.Tensor]:
        image = decode_image(image_bytes)
        return image, tf.shape(image)[:2]

    return tf.cond(
        times > 0,
        lambda: (
            exif.turn(jpeg.reduced(image_bytes, header, times), turned),
            exif.upright_extent(header),
        ),
        whole,
    )


def decode(
    image_bytes: tf.Tensor, max_pixels: int = image_status.MAX_PIXELS
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch in which any file may be broken.

    Pixels equal those of `decode_image`. Only what the header promises is looked at
    before an image of more than `max_pixels` is turned away. A JPEG that is damaged
    in the middle decodes, as it does in other programs.

    Args:
        image_bytes: string `[B]`, `B` may be 0.
        max_pixels: Most pixels (height times width) of an image.

    Returns:
        The images, string `[B]`, for `unpack` (images of different sizes without
        any padding; it passes through graphs, data sets and signatures alike), and
        their statuses, int32 `[B]`: `OK`, `UNREADABLE` or `TOO_LARGE`. An image that
        is not `OK` is an empty string.
    """
    header = headers.read_batch(image_bytes)
    return decode_by_header(image_bytes, header, None, max_pixels)


def decode_by_header(
    image_bytes: tf.Tensor,
    header: tf.Tensor,
    halvings: tf.Tensor | None,
    max_pixels: int = image_status.MAX_PIXELS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """As `decode`, of files whose headers are known.

    Args:
        image_bytes: string `[B]`.
        header: Of `headers.read_batch`.
        halvings: int32 `[B]` of `jpeg.halvings`: of those above 0 the pixels equal
            those of `decode_for`. None for all images as they are.
        max_pixels: See `decode`.
    """
    pixels = header[:, headers.HEIGHT] * header[:, headers.WIDTH]
    readable, small = pixels > 0, pixels <= max_pixels
    good = tf.where(readable & small)[:, 0]
    packed, which = _decode_good(
        tf.gather(image_bytes, good),
        tf.gather(header, good),
        None if halvings is None else tf.gather(halvings, good),
    )
    places = tf.gather(good, which)[:, None]
    nothing = tf.fill(tf.shape(image_bytes), "")
    images = tf.tensor_scatter_nd_update(nothing, places, packed)
    status = tf.where(
        readable & ~small, image_status.TOO_LARGE, image_status.UNREADABLE
    )
    ok = tf.fill(tf.shape(packed), image_status.OK)
    return images, tf.tensor_scatter_nd_update(status, places, ok)


def pack(image: tf.Tensor) -> tf.Tensor:
    """The scalar string that stands for uint8 `[height, width, 3]`; see `decode`."""
    return tf.io.serialize_tensor(image)


def unpack(packed: tf.Tensor) -> tf.Tensor:
    """The image, uint8 `[height, width, 3]`, out of a scalar string of `pack`."""
    image = tf.io.parse_tensor(packed, tf.uint8)
    return tf.ensure_shape(image, [None, None, 3])


def _raw_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    # Always 3 channels: with 0, TensorFlow 2.20 writes past its memory on an animated
    # WebP; with 3 it refuses.
    return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)


def _decode_good(
    image_bytes: tf.Tensor, header: tf.Tensor, halvings: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes files with sound headers: packed images, and which files they are."""
    count = tf.shape(image_bytes, tf.int64)[0]
    frames = tf.map_fn(
        lambda pair: headers.first_frame(*pair),
        (image_bytes, header),
        fn_output_signature=tf.TensorSpec([], tf.string),
    )

    elements = [tf.range(count), frames]
    if halvings is not None:
        elements += [header, halvings]

    def decode_one(
        index: tf.Tensor, frame: tf.Tensor, *known: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not known:
            return index, pack(_raw_pixels(frame))
        header, times = known
        image = tf.cond(
            times > 0,
            lambda: jpeg.reduced(frame, header, times),
            lambda: _raw_pixels(frame),
        )
        return index, pack(image)

    # A data set is the one place in a graph where an op may fail without failing all.
    # It is built anew for each batch, so it holds the decoder and nothing more.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    survivors = (
        tf.data.Dataset.from_tensor_slices(tuple(elements))
        .map(decode_one, num_parallel_calls=_PARALLEL_DECODES)
        .ignore_errors()
        # One element more, as a batch of nothing would be no batch at all.
        .concatenate(tf.data.Dataset.from_tensors((count, "")))
        .batch(count + 1)
        .with_options(options)
    )
    index, packed = survivors.get_single_element()
    index, packed = index[:-1], packed[:-1]
    header = tf.gather(header, index)
    finished = tf.cond(
        tf.reduce_any(_is_unfinished(header)),
        lambda: tf.map_fn(
            lambda triple: _finish_packed(*triple),
            (packed, tf.gather(image_bytes, index), header),
            fn_output_signature=tf.TensorSpec([], tf.string),
        ),
        # Most often: to pass through the loop would copy all of them.
        lambda: packed,
    )
    return finished, index


def _finish_packed(
    packed: tf.Tensor, image_bytes: tf.Tensor, header: tf.Tensor
) -> tf.Tensor:
    return tf.cond(
        _is_unfinished(header),
        lambda: pack(_finish(unpack(packed), image_bytes, header)),
        lambda: packed,
    )


def _is_unfinished(header: tf.Tensor) -> tf.Tensor:
    """Whether the decoder leaves something undone, by `[..., NUM_FIELDS]`."""
    turned = header[..., headers.ORIENTATION] > 1
    has_palette = header[..., headers.PALETTE] > 0
    return turned | has_palette | (header[..., headers.START] > 0)


def _finish(image: tf.Tensor, image_bytes: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Does what the decoder leaves undone, a BMP's palette and the orientation say."""
    image = tf.cond(
        header[headers.PALETTE] > 0,
        lambda: headers.apply_palette(image_bytes, header, image[..., 0]),
        lambda: image,
    )
    image = tf.cond(
        header[headers.START] > 0,
        lambda: webp_headers.place_frame(image, header),
        lambda: image,
    )
    image = exif.turn(image, header[headers.ORIENTATION])
    return tf.ensure_shape(image, [None, None, 3])
