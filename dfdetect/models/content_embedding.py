"""Describes the content of an image and its place, to find copies and sources.

Maps of two stages of a network, averaged over the cells of a 3 x 3 and of a 2 x 2 grid,
each of unit length; the mean over an image and its mirror image. The network is the
lower part of an EfficientNet-Lite0 with the weights of ImageNet. A classifier's own
maps will not do: the longer it learns to tell fakes, the less they show who is seen.
And an index stays valid when the classifier is replaced.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from dfdetect.models import efficientnet_lite

# Among all stages of an EfficientNet-Lite0, as means, deviations, generalized means and
# 2 x 2 to 4 x 4 grids, these two together did best on faces of DFDC: the stage of
# stride 16 finds the source of altered copies and fakes more often (.95 in the first
# ten, the other .77), the stage of stride 32 an altered copy (1.00 and .97 first).
_STAGES = ("block4", "block6")
_GRIDS = (3, 2)


def build_network(image_size: int) -> keras.Model:
    """Builds the network whose maps are described, with random weights.

    Args:
        image_size: Side of its input in pixels.

    Returns:
        A model from images `[B, image_size, image_size, 3]`, RGB in [0, 255], to the
        maps of a stage of stride 16 and of one of stride 32.
    """
    images = keras.Input((image_size, image_size, 3), name="images")
    x = efficientnet_lite.build_normalization("normalise")(images)
    backbone = efficientnet_lite.build("lite0", image_size, stages=_STAGES)
    return keras.Model(images, backbone(x), name="content_network")


def load_pytorch(network: keras.Model, path: str) -> None:
    """Loads ImageNet weights into a network.

    Args:
        network: As `build_network` returns it.
        path: See `efficientnet_lite.load_pytorch`.

    Raises:
        ValueError: The file holds another network.
    """
    backbone = network.get_layer("backbone")
    # The reader wants all stages: a file of another size is told by their number.
    whole = efficientnet_lite.build("lite0", network.input_shape[1])
    efficientnet_lite.load_pytorch(whole, path)
    for layer in backbone.layers:
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())


def build_embedder(
    network: keras.Model,
) -> tuple[Callable[[tf.Tensor], tf.Tensor], int]:
    """Builds the function that embeds crops by content.

    Args:
        network: From images to two maps, as `build_network` returns it.

    Returns:
        A function from crops `[B, S, S, 3]`, RGB in [0, 255], to float32 `[B, D]` of
        unit length, which scales crops to the input of the network; and D.
    """
    side = network.input_shape[1]
    dimension = sum(
        grid**2 * output.shape[-1]
        for grid, output in zip(_GRIDS, network.outputs, strict=True)
    )

    def describe(crops: tf.Tensor) -> tf.Tensor:
        if crops.shape[1] != side:
            crops = tf.image.resize(crops, [side, side], antialias=True)
        both = tf.concat([crops, tf.image.flip_left_right(crops)], 0)
        parts = []
        for grid, maps in zip(_GRIDS, network(both, training=False), strict=True):
            cells = tf.image.resize(tf.cast(maps, tf.float32), [grid, grid], "area")
            mean = sum(tf.split(cells, 2)) / 2
            size = grid**2 * mean.shape[-1]
            parts.append(tf.math.l2_normalize(tf.reshape(mean, [-1, size]), -1))
        return tf.math.l2_normalize(tf.concat(parts, -1), -1)

    return describe, dimension
