"""Random changes that make training images for detectors look as users' images do.

Images are float32 RGB in [0, 255] on the way in and out, and boxes `[num_heads, 4]` in
the format of `dfdetect.boxes`. A seed is an int32 `[2]` of the stateless random ops.
TensorFlow ops only, cheap enough for 100 images a second on two cores: what costs more
than a copy of the image is for some images only, see `apply_sometimes`.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from dfdetect.data import augment
from dfdetect.media import resize

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601.
_NOISE_TILE = 128


def apply_sometimes(
    chance: float,
    change: Callable[[tf.Tensor], tf.Tensor],
    image: tf.Tensor,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Changes an image by `change(image)` with this chance, else leaves it."""
    drawn = tf.random.stateless_uniform([], seed)
    changed = tf.cond(drawn < chance, lambda: change(image), lambda: image)
    return tf.ensure_shape(changed, image.shape)


def adjust_colors(
    image: tf.Tensor, seed: tf.Tensor, strength: float = 0.2, gray_share: float = 0.1
) -> tf.Tensor:
    """Changes brightness, contrast, saturation and the balance of the colors.

    All are linear in the pixels, so that one product of matrices does for them.

    Args:
        image: `[height, width, 3]`.
        seed: int32 `[2]`.
        strength: Bound of each change, relative; of the balance a quarter of it.
        gray_share: Chance that no color is left.

    Returns:
        `[height, width, 3]` float32 in [0, 255].
    """
    drawn = tf.random.stateless_uniform([7], seed, -1.0, 1.0)
    brightness, contrast, saturation = tf.unstack(drawn[:3] * strength)
    gray = drawn[3] < 2 * gray_share - 1
    saturation = tf.where(gray, 0.0, 1 + saturation)
    # Each color is mixed with the gray of its pixel, then scaled around mid-gray.
    mixed = saturation * tf.eye(3) + (1 - saturation) * tf.tile(
        tf.constant(_LUMA)[:, None], [1, 3]
    )
    balance = tf.where(gray, 0.0, drawn[4:] * strength / 4)
    mixed *= (1 + contrast) * (1 + balance)
    shift = 255 * brightness - 127.5 * contrast
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    pixels = tf.clip_by_value(tf.matmul(pixels, mixed) + shift, 0.0, 255.0)
    return tf.ensure_shape(tf.reshape(pixels, tf.shape(image)), image.shape)


def blur(image: tf.Tensor, seed: tf.Tensor, most: float = 2.0) -> tf.Tensor:
    """Blurs by a Gaussian of a standard deviation of .5 to `most` pixels."""
    deviation = tf.random.stateless_uniform([], seed, 0.5, most)
    places = tf.range(-math.ceil(2 * most), math.ceil(2 * most) + 1, dtype=tf.float32)
    weights = tf.nn.softmax(-0.5 * (places / deviation) ** 2)
    kernel = tf.tile(weights[:, None, None, None], [1, 1, 3, 1])
    edge = math.ceil(2 * most)
    padded = tf.pad(image, [[edge, edge], [edge, edge], [0, 0]], "SYMMETRIC")[None]
    ones = [1, 1, 1, 1]
    padded = tf.nn.depthwise_conv2d(padded, kernel, ones, "VALID")
    sideways = tf.transpose(kernel, [1, 0, 2, 3])
    blurred = tf.nn.depthwise_conv2d(padded, sideways, ones, "VALID")[0]
    return tf.ensure_shape(blurred, image.shape)


def add_noise(image: tf.Tensor, seed: tf.Tensor, most: float = 12.0) -> tf.Tensor:
    """Adds Gaussian noise of a standard deviation of up to `most`.

    It repeats every 128 pixels: to draw it costs more than all else.
    """
    seeds = tf.random.split(seed, 2)
    deviation = tf.random.stateless_uniform([], seeds[0], 0.0, most)
    tile = tf.random.stateless_normal([_NOISE_TILE, _NOISE_TILE, 3], seeds[1])
    height, width = tf.unstack(tf.shape(image)[:2])
    times = [-(-height // _NOISE_TILE), -(-width // _NOISE_TILE), 1]
    noise = tf.tile(deviation * tile, times)[:height, :width]
    return tf.clip_by_value(image + noise, 0.0, 255.0)


def rotate_with_boxes(
    image: tf.Tensor,
    boxes: tf.Tensor,
    seed: tf.Tensor,
    most: float = 15.0,
    min_visible: float = 0.4,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Turns an image around its center by an angle up to `most` degrees.

    A head is taken for the ellipse within its box, and its new box is that of the
    turned ellipse: around the turned corners it would be up to a third too wide.

    Args:
        image: `[height, width, 3]`.
        boxes: `[num_heads, 4]`.
        seed: int32 `[2]`.
        most: Bound of the angle, drawn evenly to either side.
        min_visible: Boxes that keep a smaller share of their area are dropped.

    Returns:
        The image, with `resize.MEAN_PIXEL` where nothing came; the boxes, clipped; and
        which of them stay, `[num_heads]` bool. None stays that is thinner than a pixel.
    """
    bound = most * math.pi / 180
    angle = tf.random.stateless_uniform([], seed, -bound, bound)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    extent = tf.cast(tf.shape(image)[:2], tf.float32)
    # Pixels of the result look up where they come from; index 0 is at .5 from the edge.
    y, x = tf.unstack((extent - 1) / 2)
    row = [cosine, -sine, x - cosine * x + sine * y]
    column = [sine, cosine, y - sine * x - cosine * y]
    turned = tf.raw_ops.ImageProjectiveTransformV3(
        images=(tf.cast(image, tf.float32) - resize.MEAN_PIXEL)[None],
        transforms=tf.stack([*row, *column, 0.0, 0.0])[None],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]
    turned = tf.ensure_shape(turned + resize.MEAN_PIXEL, image.shape)

    pixels = boxes * tf.tile(extent, [2])
    centers = (pixels[:, :2] + pixels[:, 2:] - extent) / 2
    halves = (pixels[:, 2:] - pixels[:, :2]) / 2
    # The inverse of the above, of the image's center.
    y = cosine * centers[:, 0] - sine * centers[:, 1]
    x = sine * centers[:, 0] + cosine * centers[:, 1]
    center = tf.stack([y, x], -1) + extent / 2
    along, across = (halves * cosine) ** 2, (halves[:, ::-1] * sine) ** 2
    reach = tf.sqrt(along + across)
    moved = tf.concat([center - reach, center + reach], -1)
    clipped = tf.clip_by_value(moved, 0.0, tf.tile(extent, [2]))
    return (
        turned,
        clipped / tf.tile(extent, [2]),
        augment.find_visible(clipped, moved, min_visible),
    )


def place_on_canvas(
    image: tf.Tensor, boxes: tf.Tensor, size: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gives an image a border up to a square: it stands anywhere, on any ground.

    A head that fills an image is then whole, as it is where users' images are smaller
    than their page. The ground is `resize.MEAN_PIXEL`, another color, the image much
    blurred, or its edges drawn out; not its reflection, which would hold heads that
    nobody has marked.

    Args:
        image: `[height, width, 3]`, neither side longer than `size`.
        boxes: `[num_heads, 4]` in pixels of the image.
        size: Side of the result.
        seed: int32 `[2]`.

    Returns:
        The image, `[size, size, 3]`, and the boxes in pixels of it.
    """
    image = tf.cast(image, tf.float32)
    seeds = tf.random.split(seed, 3)
    extent = tf.shape(image)[:2]
    free = tf.cast(size - extent, tf.float32)
    offset = tf.random.stateless_uniform([2], seeds[0]) * (free + 1)
    offset = tf.minimum(tf.cast(offset, tf.int32), size - extent)
    moved = boxes + tf.cast(tf.tile(offset, [2]), tf.float32)

    def fill(color: tf.Tensor) -> tf.Tensor:
        after = size - extent - offset
        inside = [[offset[0], after[0]], [offset[1], after[1]], [0, 0]]
        return tf.pad(image - color, inside) + color

    def fill_blurred() -> tf.Tensor:
        ground = tf.image.resize(resize.resize_to(image, [6, 6]), [size, size])
        rows, columns = (tf.range(size) - offset[axis] for axis in (0, 1))
        within = ((rows >= 0) & (rows < extent[0]))[:, None] & (
            (columns >= 0) & (columns < extent[1])
        )
        return tf.where(within[..., None], draw_out(), ground)

    def draw_out() -> tf.Tensor:
        rows, columns = (
            tf.clip_by_value(tf.range(size) - offset[axis], 0, extent[axis] - 1)
            for axis in (0, 1)
        )
        return tf.gather(tf.gather(image, rows, axis=0), columns, axis=1)

    color = tf.random.stateless_uniform([3], seeds[1], 0.0, 255.0)
    ground = tf.random.stateless_uniform([], seeds[2], 0, 4, tf.int32)
    canvas = tf.switch_case(
        ground,
        [
            lambda: fill(tf.constant(resize.MEAN_PIXEL)),
            lambda: fill(color),
            fill_blurred,
            draw_out,
        ],
    )
    return tf.ensure_shape(canvas, [size, size, 3]), moved


def paste_image(
    image: tf.Tensor,
    pasted: tf.Tensor,
    boxes: tf.Tensor,
    seed: tf.Tensor,
    shares: tuple[float, float] = (0.06, 0.6),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes an image, small, anywhere onto another one that shows no heads.

    Args:
        image: `[height, width, 3]`, what lies below.
        pasted: `[height, width, 3]`, any numeric dtype.
        boxes: `[num_heads, 4]` of the pasted image.
        seed: int32 `[2]`.
        shares: Bounds of the longer side of the pasted image over the shorter side of
            that below, drawn evenly in its logarithm.

    Returns:
        The image, and the boxes in it.
    """
    seeds = tf.random.split(seed, 2)
    extent = tf.shape(image)[:2]
    low, high = (math.log(share) for share in shares)
    share = tf.exp(tf.random.stateless_uniform([], seeds[0], low, high))
    longer = share * tf.cast(tf.reduce_min(extent), tf.float32)
    sides = tf.cast(tf.shape(pasted)[:2], tf.float32)
    small = tf.maximum(tf.cast(sides * longer / tf.reduce_max(sides), tf.int32), 1)
    free = tf.cast(extent - small + 1, tf.float32)
    offset = tf.cast(tf.random.stateless_uniform([2], seeds[1]) * free, tf.int32)
    offset = tf.minimum(offset, extent - small)
    resized = resize.resize_to(pasted, small)
    top, left = tf.unstack(offset)
    bottom, right = tf.unstack(offset + small)
    middle = image[top:bottom]
    middle = tf.concat([middle[:, :left], resized, middle[:, right:]], 1)
    joined = tf.concat([image[:top], middle, image[bottom:]], 0)
    scale, shift = (tf.cast(tf.tile(x, [2]), tf.float32) for x in (small, offset))
    moved = (boxes * scale + shift) / tf.cast(tf.tile(extent, [2]), tf.float32)
    return tf.ensure_shape(joined, image.shape), moved
