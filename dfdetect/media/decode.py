"""Decodes image files in TensorFlow ops.

Outside a model an image is RGB in [0, 255]: uint8 as decoded, float32 once resized.
Models normalize in their first layer. Everything here is TensorFlow ops, so that
training and the exported graph run the same code: the traces of forgery are as small
as the differences between two decoders or two ways to resize.
"""

from collections.abc import Sequence

import tensorflow as tf

from dfdetect.media import exif, headers, image_status, jpeg, webp_headers

_PARALLEL_DECODES = 4


def decode_image(
    image_bytes: tf.Tensor, kinds: Sequence[str] | None = None
) -> tf.Tensor:
    """Decodes one file.

    Formats are JPEG (including progressive, gray and CMYK), PNG, BMP (8, 24 and 32
    bits), GIF and WebP; of an animated file, the first frame. Alpha is dropped, and the
    colors below it stay as stored. 16 bits become 8. The EXIF orientation of JPEG, PNG
    and WebP is applied.

    Args:
        image_bytes: Scalar string.
        kinds: Kinds of files that there may be, of `headers.SIGNATURES`; all by
            default. Fewer make a graph that is built several times as fast, and the
            same pixels.

    Returns:
        uint8 `[height, width, 3]`, upright RGB.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are not such an image, or truncated.
    """
    if kinds is None or not {*kinds} <= {"jpeg", "png"}:
        return _decode_with_header(image_bytes, headers.read(image_bytes))
    header = headers.read_of_kinds(image_bytes, kinds)
    _check_extent(header)
    # Neither has frames nor a palette that the decoder ignores.
    image = exif.turn_upright(_raw_pixels(image_bytes), header[headers.ORIENTATION])
    return tf.ensure_shape(image, [None, None, 3])


# `decode_image` outside of a graph: called as it is, each of its many operations would
# be dispatched by Python.
decode_at_once = tf.function(
    decode_image, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


def _decode_with_header(image_bytes: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    _check_extent(header)
    image = _raw_pixels(headers.extract_first_frame(image_bytes, header))
    return _finish(image, image_bytes, header)


def _check_extent(header: tf.Tensor) -> None:
    tf.debugging.assert_positive(
        header[headers.HEIGHT] * header[headers.WIDTH],
        "The bytes are not a JPEG, PNG, BMP, GIF or WebP, or are cut short.",
    )


def decode_for_letterbox(
    image_bytes: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes one file for `letterbox`, a large JPEG at a reduced scale.

    Args:
        image_bytes: Scalar string; see `decode_image`.
        size: See `letterbox`.

    Returns:
        The image, uint8 `[height, width, 3]`, and the height and width of the
        original, int32 `[2]`; both for `letterbox`.

    Raises:
        tf.errors.InvalidArgumentError: See `decode_image`.
    """
    header = headers.read(image_bytes)
    steps = jpeg.downscale_steps(image_bytes, header, size)
    turned = header[headers.ORIENTATION]

    def whole() -> tuple[tf.Tensor, tf.Tensor]:
        image = _decode_with_header(image_bytes, header)
        return image, tf.shape(image)[:2]

    return tf.cond(
        steps > 0,
        lambda: (
            exif.turn_upright(jpeg.decode_reduced(image_bytes, header, steps), turned),
            exif.upright_extent(header),
        ),
        whole,
    )


def decode(
    image_bytes: tf.Tensor, max_pixels: int = image_status.MAX_PIXELS
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch in which any file may be broken.

    Pixels equal those of `decode_image`. An image of more than `max_pixels` is rejected
    by its header alone. A JPEG that is damaged in the middle decodes, as it does in
    other programs.

    Args:
        image_bytes: string `[B]`, `B` may be 0.
        max_pixels: Most pixels (height times width) of an image.

    Returns:
        The images, string `[B]`, for `unpack`, and their statuses, int32 `[B]`: `OK`,
        `UNREADABLE` or `TOO_LARGE`. Packed images can have different sizes without
        padding, in graphs, data sets and signatures. An image that is not `OK` is an
        empty string.
    """
    header = headers.read_batch(image_bytes)
    return decode_with_headers(image_bytes, header, None, max_pixels)


def decode_with_headers(
    image_bytes: tf.Tensor,
    header: tf.Tensor,
    downscale_steps: tf.Tensor | None,
    max_pixels: int = image_status.MAX_PIXELS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch, like `decode`, given the headers of the files.

    Args:
        image_bytes: string `[B]`.
        header: Result of `headers.read_batch`.
        downscale_steps: int32 `[B]`, see `jpeg.downscale_steps`; where above 0 the
            pixels equal those of `decode_for_letterbox`. None decodes all at full
            scale.
        max_pixels: See `decode`.
    """
    pixels = header[:, headers.HEIGHT] * header[:, headers.WIDTH]
    readable, small = pixels > 0, pixels <= max_pixels
    good = tf.where(readable & small)[:, 0]
    packed, which = _decode_good(
        tf.gather(image_bytes, good),
        tf.gather(header, good),
        None if downscale_steps is None else tf.gather(downscale_steps, good),
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
    """Serializes an image, uint8 `[height, width, 3]`, to a scalar string."""
    return tf.io.serialize_tensor(image)


def unpack(packed: tf.Tensor) -> tf.Tensor:
    """Parses an image, uint8 `[height, width, 3]`, from a scalar string of `pack`."""
    image = tf.io.parse_tensor(packed, tf.uint8)
    return tf.ensure_shape(image, [None, None, 3])


def _raw_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    # Always 3 channels: with 0, TensorFlow 2.20 writes past its memory on an animated
    # WebP; with 3 it refuses.
    return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)


def _decode_good(
    image_bytes: tf.Tensor, header: tf.Tensor, downscale_steps: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes files with valid headers: packed images, and their positions."""
    count = tf.shape(image_bytes, tf.int64)[0]
    frames = tf.map_fn(
        lambda pair: headers.extract_first_frame(*pair),
        (image_bytes, header),
        fn_output_signature=tf.TensorSpec([], tf.string),
    )

    elements = [tf.range(count), frames]
    if downscale_steps is not None:
        elements += [header, downscale_steps]

    def decode_one(
        index: tf.Tensor, frame: tf.Tensor, *known: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not known:
            return index, pack(_raw_pixels(frame))
        header, steps = known
        image = tf.cond(
            steps > 0,
            lambda: jpeg.decode_reduced(frame, header, steps),
            lambda: _raw_pixels(frame),
        )
        return index, pack(image)

    # In a graph, only a data set lets an op fail without failing the whole graph. It is
    # built for each batch, so it contains the decoder and nothing more.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    survivors = (
        tf.data.Dataset.from_tensor_slices(tuple(elements))
        .map(decode_one, num_parallel_calls=_PARALLEL_DECODES)
        .ignore_errors()
        # One element more, because an empty data set would yield no batch.
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
        # The usual case; the loop would copy all images.
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
    """Whether images need `_finish`, by their headers `[..., NUM_FIELDS]`."""
    turned = header[..., headers.ORIENTATION] > 1
    has_palette = header[..., headers.PALETTE] > 0
    return turned | has_palette | (header[..., headers.START] > 0)


def _finish(image: tf.Tensor, image_bytes: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Applies what the decoder ignores: palette, place of a frame, orientation."""
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
    image = exif.turn_upright(image, header[headers.ORIENTATION])
    return tf.ensure_shape(image, [None, None, 3])
