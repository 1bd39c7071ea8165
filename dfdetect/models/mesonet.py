"""MesoNet: two classifiers of some 28,000 weights.

Source: Afchar et al., MesoNet: a Compact Facial Video Forgery Detection Network, WIFS
2018, figures 3 to 5. The paper's sigmoid is the probability of a real face; the logit
here is that of a fake.
"""

from typing import Any

import keras

# Filters of the branches of an inception module: 1x1; 1x1 and 3x3; the same with
# dilations 2 and 3.
_INCEPTION = ((1, 4, 4, 2), (2, 4, 4, 2))
_POOLS = (2, 2, 2, 4)
_NUM_FEATURES = 16
_MIN_IMAGE_SIZE = 32  # below, the last map would be less than a pixel


@keras.saving.register_keras_serializable(package="dfdetect")
class MesoNet(keras.Model):
    """Meso-4 or MesoInception-4, from RGB in [0, 255] to logits.

    Input `[B, image_size, image_size, 3]`, output `[B, 1]` float32. Stages, by the
    names of their layers, with channels and stride: `block1` (8, 2; MesoInception-4
    11), `block2` (8, 4; 12), `block3` (16, 8), `block4` (16, 32), and `pool`, the 16
    features under the logit, `[B, 16]`.

    Args:
        image_size: Side of the input in pixels, at least 32; 256 in the paper.
        inception: Whether the first two blocks are inception modules.
        dropout: Share of the flattened maps and of the features dropped in training.
        bn_momentum: Momentum of the batch norms' moving statistics.
        name: Name of the model.

    Raises:
        ValueError: The image is too small.
    """

    def __init__(
        self,
        image_size: int = 256,
        inception: bool = False,
        dropout: float = 0.5,
        bn_momentum: float = 0.99,
        name: str = "mesonet",
        **kwargs: Any,
    ) -> None:
        if image_size < _MIN_IMAGE_SIZE:
            raise ValueError(
                f"image_size must be at least {_MIN_IMAGE_SIZE}, got {image_size}."
            )
        images = keras.Input((image_size, image_size, 3), name="images")
        x = keras.layers.Rescaling(1 / 255, dtype="float32", name="normalise")(images)
        for index, pool in enumerate(_POOLS):
            block = f"block{index + 1}"
            if inception and index < len(_INCEPTION):
                x = _inception(x, _INCEPTION[index], block)
            else:
                filters, size = ((8, 3), (8, 5), (16, 5), (16, 5))[index]
                x = _convolution(x, filters, size, f"{block}_conv")
            x = keras.layers.BatchNormalization(
                momentum=bn_momentum, epsilon=1e-3, name=f"{block}_bn"
            )(x)
            x = keras.layers.MaxPooling2D(pool, padding="same", name=block)(x)
        x = keras.layers.Flatten(name="flat")(x)
        x = keras.layers.Dropout(dropout, name="flat_dropout")(x)
        x = keras.layers.Dense(_NUM_FEATURES, name="features")(x)
        x = keras.layers.LeakyReLU(0.1, dtype="float32", name="pool")(x)
        x = keras.layers.Dropout(dropout, dtype="float32", name="dropout")(x)
        x = keras.layers.Dense(1, dtype="float32", name="logits")(x)
        super().__init__(inputs=images, outputs=x, name=name, **kwargs)
        self.image_size = image_size
        self.inception = inception
        self.dropout = dropout
        self.bn_momentum = bn_momentum

    def get_config(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "inception": self.inception,
            "dropout": self.dropout,
            "bn_momentum": self.bn_momentum,
            "name": self.name,
            "trainable": self.trainable,
        }


def _convolution(x: Any, filters: int, size: int, name: str, dilation: int = 1) -> Any:
    return keras.layers.Conv2D(
        filters,
        size,
        padding="same",
        dilation_rate=dilation,
        activation="relu",
        name=name,
    )(x)


def _inception(x: Any, filters: tuple[int, ...], name: str) -> Any:
    """Four branches, joined along the channels (figure 5)."""
    branches = [_convolution(x, filters[0], 1, f"{name}_branch1")]
    for dilation, width in enumerate(filters[1:], 1):
        branch = f"{name}_branch{dilation + 1}"
        reduced = _convolution(x, width, 1, f"{branch}_reduce")
        branches.append(_convolution(reduced, width, 3, branch, dilation))
    return keras.layers.Concatenate(name=f"{name}_join")(branches)
