"""From encoded bytes to pixels, and from pixels to what the models see.

Outside a model a picture is RGB in [0, 255]: uint8 as decoded, float32 once resized.
Models normalise in their first layer. Everything here is TensorFlow ops, so that
training and the exported graph run the same code: the traces of forgery are as small
as the differences between two decoders or two ways to resize.
"""

import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect import files
from dfdetect.media import exif, headers, jpeg, webp_headers

OK, NO_HEAD, UNREADABLE, TOO_LARGE, HEAD_TOO_SMALL = range(5)
STATUS_NAMES = ("ok", "no_head", "unreadable", "too_large", "head_too_small")

MAX_PIXELS = files.MAX_PIXELS
MEAN_PIXEL = (123.675, 116.28, 103.53)  # Of ImageNet; zero after normalisation.

# A head that is enlarged more than that to fill a crop is too blurred to be judged, or
# to be learnt from: the default classifier called one real head in twelve fake where it
# was enlarged by 4 to 5.6, and one in five beyond; of larger ones, one in twenty.
MOST_ENLARGED = 4

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
        tf.errors.InvalidArgumentError: The bytes are no such picture, or cut short.
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
        The picture, uint8 `[height, width, 3]`, and the height and width of the
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
    image_bytes: tf.Tensor, max_pixels: int = MAX_PIXELS
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch in which any file may be broken.

    Pixels equal those of `decode_image`. Only what the header promises is looked at
    before a picture of more than `max_pixels` is turned away. A JPEG that is damaged
    in the middle decodes, as it does in other programs.

    Args:
        image_bytes: string `[B]`, `B` may be 0.
        max_pixels: Most pixels (height times width) of a picture.

    Returns:
        The pictures, string `[B]`, for `unpack` (pictures of different sizes without
        any padding; it passes through graphs, data sets and signatures alike), and
        their statuses, int32 `[B]`: `OK`, `UNREADABLE` or `TOO_LARGE`. A picture that
        is not `OK` is an empty string.
    """
    header = headers.read_batch(image_bytes)
    return decode_by_header(image_bytes, header, None, max_pixels)


def decode_by_header(
    image_bytes: tf.Tensor,
    header: tf.Tensor,
    halvings: tf.Tensor | None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """As `decode`, of files whose headers are known.

    Args:
        image_bytes: string `[B]`.
        header: Of `headers.read_batch`.
        halvings: int32 `[B]` of `jpeg.halvings`: of those above 0 the pixels equal
            those of `decode_for`. None for all pictures as they are.
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
    status = tf.where(readable & ~small, TOO_LARGE, UNREADABLE)
    ok = tf.fill(tf.shape(packed), OK)
    return images, tf.tensor_scatter_nd_update(status, places, ok)


def pack(image: tf.Tensor) -> tf.Tensor:
    """The scalar string that stands for uint8 `[height, width, 3]`; see `decode`."""
    return tf.io.serialize_tensor(image)


def unpack(packed: tf.Tensor) -> tf.Tensor:
    """The picture, uint8 `[height, width, 3]`, out of a scalar string of `pack`."""
    image = tf.io.parse_tensor(packed, tf.uint8)
    return tf.ensure_shape(image, [None, None, 3])


def _raw_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    # Always 3 channels: with 0, TensorFlow 2.20 writes past its memory on an animated
    # WebP; with 3 it refuses.
    return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)


def _decode_good(
    image_bytes: tf.Tensor, header: tf.Tensor, halvings: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes files with sound headers: packed pictures, and which files they are."""
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


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes `[height, width, 3]` to float32 `[size, size, 3]`, antialiased.

    For pictures that are one head each; `crop_heads` ends with it.
    """
    return tf.ensure_shape(resize_to(image, [size, size]), [size, size, 3])


def resize_to(image: tf.Tensor, extent: tf.Tensor | list[int]) -> tf.Tensor:
    """What `tf.image.resize` gives with antialiasing, to the bit, in half of its time.

    That moves three numbers at a time along rows. Here each axis has its turn to be the
    first one, with all that lies along the other as channels.

    Args:
        image: `[height, width, 3]`, any numeric dtype.
        extent: Height and width of the result in pixels.

    Returns:
        float32 `[*extent, 3]`.
    """
    for side in (extent[0], extent[1]):
        rows, columns = tf.unstack(tf.shape(image)[:2])
        strips = tf.reshape(image, [rows, 1, columns * 3])
        strips = tf.image.resize(strips, [side, 1], antialias=True)
        image = tf.transpose(tf.reshape(strips, [side, columns, 3]), [1, 0, 2])
    return tf.cast(image, tf.float32)


def letterbox(
    image: tf.Tensor, size: int, extent: tf.Tensor | None = None
) -> tf.Tensor:
    """Scales a picture so that its longer side is `size`, and pads it to a square.

    The picture stands at the top left; the rest is `MEAN_PIXEL`.

    Args:
        image: `[height, width, 3]`, RGB in [0, 255], any numeric dtype.
        size: Side of the result in pixels.
        extent: Height and width of the original, where the picture is a reduced one of
            `decode_for`: they decide the proportions.

    Returns:
        float32 `[size, size, 3]` in [0, 255].
    """
    extent = tf.shape(image)[:2] if extent is None else extent
    # In integers, rounded to the nearest, never 0.
    longer = tf.reduce_max(extent)
    scaled = tf.maximum((2 * extent * size + longer) // (2 * longer), 1)
    return pad_to_square(resize_to(image, scaled), size)


def pad_to_square(image: tf.Tensor, size: int) -> tf.Tensor:
    """Pads `[height, width, 3]` at the bottom and right with `MEAN_PIXEL`.

    Returns:
        float32 `[size, size, 3]`; neither side of `image` may be longer than `size`.
    """
    return tf.ensure_shape(pad(image, size, size), [size, size, 3])


def pad(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Pads a picture that is no larger at the bottom and right with `MEAN_PIXEL`.

    Returns:
        float32 `[height, width, 3]`.
    """
    image = tf.cast(image, tf.float32)
    extent = tf.shape(image)
    right = [extent[0], width - extent[1], 3]
    bottom = [height - extent[0], width, 3]
    image = tf.concat([image, tf.broadcast_to(MEAN_PIXEL, right)], axis=1)
    return tf.concat([image, tf.broadcast_to(MEAN_PIXEL, bottom)], axis=0)


def letterbox_boxes(
    boxes: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """Boxes of a `height` x `width` picture, relative to its letterbox.

    Args:
        boxes: `[..., 4]`.
        height: Pixels; a scalar, or `[...]` to broadcast against the boxes.
        width: Alike.
    """
    return boxes * _share_of_square(height, width)


def unletterbox_boxes(
    boxes: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """The inverse of `letterbox_boxes`, clipped to the picture."""
    return box_format.clip(boxes / _share_of_square(height, width))


def _share_of_square(height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    sides = [tf.cast(height, tf.float32), tf.cast(width, tf.float32)]
    extent = tf.stack(sides * 2, axis=-1)
    return extent / tf.reduce_max(extent, axis=-1, keepdims=True)


def crop_heads(
    image: tf.Tensor, boxes: tf.Tensor, size: int, margin: float = 1.3
) -> tf.Tensor:
    """Cuts heads out of one image and resizes them to squares.

    Args:
        image: `[height, width, 3]`, RGB in [0, 255], any numeric dtype.
        boxes: `[num_heads, 4]` in the format of `dfdetect.boxes`; empty is fine.
        size: Side of the crops in pixels.
        margin: See `boxes.square_crops`.

    Returns:
        `[num_heads, size, size, 3]` float32 in [0, 255].

    Raises:
        ValueError: `boxes` is not `[num_heads, 4]`.
    """
    if boxes.shape.rank != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be [num_heads, 4], got {boxes.shape}.")
    extent = tf.shape(image)
    squares = box_format.square_crops(boxes, extent[0], extent[1], margin)
    return cut(image, squares, size)


def cut(image: tf.Tensor, squares: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes squares of an image; what `crop_heads` ends with.

    Args:
        image: `[height, width, 3]`, RGB in [0, 255], any numeric dtype.
        squares: int32 `[num_heads, 3]`, y, x and side in pixels.
        size: Side of the crops in pixels.

    Returns:
        `[num_heads, size, size, 3]` float32 in [0, 255].
    """

    def crop(square: tf.Tensor) -> tf.Tensor:
        y, x, side = tf.unstack(square)
        return resize(image[y : y + side, x : x + side], size)

    return tf.map_fn(
        crop, squares, fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32)
    )
