"""The Xception family: three classifiers of one head each.

Every spatial convolution is followed by a 1x1 convolution, and the presets differ in
how far they take the spatial one apart: one filter a channel (`xception`,
`lightxception`) or groups of two channels (`midwayxception`).

Source: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, 2017,
figure 5; padding and batch norm as in `keras.applications.Xception`, so that its
weights fit, or as in PyTorch's ports (`xception_pytorch`). `xception_weights` converts
both.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from dfdetect.models import xception_weights

# xception: figure 5 of the paper. lightxception halves the middle flow; midwayxception
# relaxes the full separation of channels and space, and its middle blocks have a
# convolution in place of the identity skip.
PRESETS: dict[str, dict[str, Any]] = {
    "xception": {"spatial": "depthwise", "middle_blocks": 8, "middle_skip": "identity"},
    "midwayxception": {"spatial": "pairs", "middle_blocks": 8, "middle_skip": "conv"},
    "lightxception": {
        "spatial": "depthwise",
        "middle_blocks": 4,
        "middle_skip": "identity",
    },
    # As FaceForensics++ and DeepfakeBench train it: their weights give their outputs.
    "xception_pytorch": {
        "spatial": "depthwise",
        "middle_blocks": 8,
        "middle_skip": "identity",
        "pool_padding": "both",
        "bn_epsilon": 1e-5,
    },
}
_ENTRY_CHANNELS = (128, 256, 728)
_EXIT_CHANNELS = (1536, 2048)
_MIN_IMAGE_SIZE = 71  # as keras.applications: below it the last map would be empty


@keras.saving.register_keras_serializable(package="dfdetect")
class Xception(keras.Model):
    """An Xception, from RGB in [0, 255] to logits.

    Input `[B, image_size, image_size, 3]`, output `[B, num_outputs]` float32, or
    without a top the feature map `[B, S, S, 2048]` (S is 10 at 299 pixels). Stages, by
    the names of their layers, with channels and stride: `stem` (64, 2), `entry1` (128,
    4), `entry2` (256, 8), `entry3` (728, 16), `middle1` to `middle8` (728, 16), `exit`
    (2048, 32), and `pool`, the mean of `exit` over space.

    Args:
        image_size: Side of the input in pixels, at least 71.
        num_outputs: Number of logits; None or 0 leaves the top out.
        dropout: Share of the pooled features dropped in training.
        spatial: `"depthwise"`, or `"pairs"` for 3x3 convolutions in groups of two
            channels.
        middle_blocks: Number of blocks in the middle flow.
        middle_skip: `"identity"`, or `"conv"` for a 1x1 convolution and batch norm.
        bn_momentum: Momentum of the batch norms' moving statistics. .99 needs some
            hundred steps to settle; take .9 for a short run from random weights.
        pool_padding: Where maps are padded before they are halved: `"same"`, as
            TensorFlow does, or equally on `"both"` sides, as PyTorch does.
        bn_epsilon: Number added to the variances of the batch norms.
        name: Name of the model.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        image_size: int = 299,
        num_outputs: int | None = 1,
        dropout: float = 0.5,
        spatial: str = "depthwise",
        middle_blocks: int = 8,
        middle_skip: str = "identity",
        bn_momentum: float = 0.99,
        pool_padding: str = "same",
        bn_epsilon: float = 1e-3,
        name: str = "xception",
        **kwargs: Any,
    ) -> None:
        if image_size < _MIN_IMAGE_SIZE:
            raise ValueError(
                f"image_size must be at least {_MIN_IMAGE_SIZE}, got {image_size}."
            )
        if spatial not in ("depthwise", "pairs"):
            raise ValueError(f"spatial must be depthwise or pairs, got {spatial!r}.")
        if middle_skip not in ("identity", "conv"):
            raise ValueError(
                f"middle_skip must be identity or conv, got {middle_skip!r}."
            )
        if pool_padding not in ("same", "both"):
            raise ValueError(
                f"pool_padding must be same or both, got {pool_padding!r}."
            )
        build = _Builder(spatial, bn_momentum, pool_padding, bn_epsilon)
        images = keras.Input((image_size, image_size, 3), name="images")
        # In float32 also under mixed precision: bfloat16 would round pixels, and with
        # them the traces of a forgery.
        x = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="normalise")(
            images
        )
        x = build.conv(x, 32, 3, "stem_conv1", strides=2, padding="valid")
        x = build.relu(x, "stem_conv1_relu")
        x = build.conv(x, 64, 3, "stem_conv2", padding="valid")
        x = build.relu(x, "stem")
        for index, channels in enumerate(_ENTRY_CHANNELS, start=1):
            plan = [channels, channels]
            x = build.block(x, plan, f"entry{index}", 2, start_with_relu=index > 1)
        for index in range(1, middle_blocks + 1):
            plan = [_ENTRY_CHANNELS[-1]] * 3
            x = build.block(x, plan, f"middle{index}", conv_skip=middle_skip == "conv")
        x = build.block(x, [_ENTRY_CHANNELS[-1], 1024], "exit1", 2)
        x = build.separable(x, _EXIT_CHANNELS[0], "exit2")
        x = build.relu(x, "exit2_relu")
        x = build.separable(x, _EXIT_CHANNELS[1], "exit3")
        x = build.relu(x, "exit")
        if num_outputs:
            x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
            x = keras.layers.Dropout(dropout, name="dropout")(x)
            x = keras.layers.Dense(num_outputs, dtype="float32", name="logits")(x)
        super().__init__(inputs=images, outputs=x, name=name, **kwargs)
        self.image_size = image_size
        self.num_outputs = num_outputs
        self.dropout = dropout
        self.spatial = spatial
        self.middle_blocks = middle_blocks
        self.middle_skip = middle_skip
        self.bn_momentum = bn_momentum
        self.pool_padding = pool_padding
        self.bn_epsilon = bn_epsilon

    def get_config(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "num_outputs": self.num_outputs,
            "dropout": self.dropout,
            "spatial": self.spatial,
            "middle_blocks": self.middle_blocks,
            "middle_skip": self.middle_skip,
            "bn_momentum": self.bn_momentum,
            "pool_padding": self.pool_padding,
            "bn_epsilon": self.bn_epsilon,
            "name": self.name,
            "trainable": self.trainable,
        }

    def load_imagenet(self) -> None:
        """Loads the ImageNet weights of `keras.applications`; needs the network.

        Raises:
            ValueError: The padding is that of PyTorch.
        """
        if self.pool_padding != "same":
            raise ValueError(
                f"Keras has no ImageNet weights for {self.name}; name PyTorch's file "
                "xception-b5690688.pth."
            )
        source = keras.applications.Xception(weights="imagenet", include_top=False)
        xception_weights.copy_applications(self, source)


@keras.saving.register_keras_serializable(package="dfdetect")
class PairConv2D(keras.layers.Layer):
    """A 3x3 convolution of each pair of channels: C channels to C, in C / 2 groups.

    It gives the same numbers, with the same kernel, as
    `Conv2D(C, 3, groups=C // 2, padding="same", use_bias=False)`, which on a CPU Keras
    has XLA compile: a gradient at 728 channels then takes 43 s instead of .02 s.
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        channels = input_shape[-1]
        if channels is None or channels % 2:
            raise ValueError(f"The channels must be even, got {channels}.")
        self.kernel = self.add_weight(
            shape=(3, 3, 2, channels), initializer="glorot_uniform", name="kernel"
        )
        self.built = True

    def call(self, features: Any) -> Any:
        ops = keras.ops
        batch, height, width, channels = ops.shape(features)
        # The output 2g + o sums over i the input 2g + i with the kernel [i, 2g + o]:
        # its own channel (i = o) and, with the pairs swapped, the other one.
        kernel = ops.reshape(self.kernel, (3, 3, 2, channels // 2, 2))
        own = ops.stack([kernel[:, :, 0, :, 0], kernel[:, :, 1, :, 1]], axis=-1)
        other = ops.stack([kernel[:, :, 1, :, 0], kernel[:, :, 0, :, 1]], axis=-1)
        swapped = ops.flip(
            ops.reshape(features, (batch, height, width, channels // 2, 2)), axis=-1
        )
        swapped = ops.reshape(swapped, (batch, height, width, channels))
        shape = (3, 3, channels, 1)
        return ops.depthwise_conv(
            features, ops.reshape(own, shape), padding="same"
        ) + ops.depthwise_conv(swapped, ops.reshape(other, shape), padding="same")

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> Sequence[int | None]:
        return input_shape


@keras.saving.register_keras_serializable(package="dfdetect")
class HalvingMaxPool(keras.layers.Layer):
    """Max pooling of 3x3 at stride 2, with a border on all sides.

    It equals PyTorch's `MaxPool2d(3, stride=2, padding=1)`; TensorFlow's "same" pads
    maps of an even side at their end only.
    """

    def call(self, features: Any) -> Any:
        # Rounded to bfloat16 it is infinite, which works as well.
        is_half = keras.backend.standardize_dtype(features.dtype) == "float16"
        lowest = float(np.finfo(np.float16 if is_half else np.float32).min)
        border = ((0, 0), (1, 1), (1, 1), (0, 0))
        padded = keras.ops.pad(features, border, constant_values=lowest)
        return keras.ops.max_pool(padded, 3, 2, padding="valid")

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> Sequence[int | None]:
        batch, height, width, channels = input_shape
        sides = [side and (side + 1) // 2 for side in (height, width)]
        return (batch, *sides, channels)


class _Builder:
    """Adds layers with names that do not depend on what was built before."""

    def __init__(
        self,
        spatial: str,
        bn_momentum: float,
        pool_padding: str = "same",
        bn_epsilon: float = 1e-3,
    ) -> None:
        self._spatial = spatial
        self._bn_momentum = bn_momentum
        self._pool_padding = pool_padding
        self._bn_epsilon = bn_epsilon

    def relu(self, x: Any, name: str) -> Any:
        return keras.layers.ReLU(name=name)(x)

    def batch_norm(self, x: Any, name: str) -> Any:
        layer = keras.layers.BatchNormalization(
            momentum=self._bn_momentum, epsilon=self._bn_epsilon, name=f"{name}_bn"
        )
        return layer(x)

    def conv(
        self,
        x: Any,
        channels: int,
        size: int,
        name: str,
        strides: int = 1,
        padding: str = "same",
    ) -> Any:
        layer = keras.layers.Conv2D(
            channels, size, strides=strides, padding=padding, use_bias=False, name=name
        )
        return self.batch_norm(layer(x), name)

    def separable(self, x: Any, channels: int, name: str) -> Any:
        """A spatial 3x3 convolution, directly a 1x1 convolution, then batch norm."""
        if self._spatial == "depthwise":
            layer = keras.layers.SeparableConv2D(
                channels, 3, padding="same", use_bias=False, name=name
            )
            return self.batch_norm(layer(x), name)
        return self.conv(PairConv2D(name=f"{name}_spatial")(x), channels, 1, name)

    def halve(self, x: Any, name: str) -> Any:
        if self._pool_padding == "both":
            return HalvingMaxPool(name=name)(x)
        return keras.layers.MaxPooling2D(3, 2, padding="same", name=name)(x)

    def block(
        self,
        x: Any,
        channels: Sequence[int],
        name: str,
        strides: int = 1,
        start_with_relu: bool = True,
        conv_skip: bool = False,
    ) -> Any:
        """Separable convolutions with these numbers of channels, added to a skip."""
        skip = x
        if strides != 1 or conv_skip:
            skip = self.conv(x, channels[-1], 1, f"{name}_skip", strides=strides)
        for index, width in enumerate(channels, start=1):
            if index > 1 or start_with_relu:
                x = self.relu(x, f"{name}_relu{index}")
            x = self.separable(x, width, f"{name}_conv{index}")
        if strides != 1:
            x = self.halve(x, f"{name}_pool")
        return keras.layers.Add(name=name)([x, skip])


def feature_maps(model: Xception, names: Sequence[str]) -> keras.Model:
    """Builds a model of some stages that shares the weights.

    Its output is a list, or with one name the map itself, as Keras does.

    Raises:
        ValueError: A name is not that of a layer.
    """
    return keras.Model(model.input, [model.get_layer(name).output for name in names])
