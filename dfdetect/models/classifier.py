"""Classifiers of one head crop: real or fake."""

from collections.abc import Sequence
from typing import Any

import keras

from dfdetect.models import (
    efficientnet,
    efficientnet_lite,
    mesonet,
    mobilenet,
    xception,
)

_MESONETS = ("mesonet4", "mesoinception4")
# Channels of the last convolution: EfficientNet, table 1, stage 9, times the width.
_TOP_CHANNELS = {"b0": 1280, "b1": 1280, "b2": 1408, "b3": 1536, "b4": 1792}
_EFFICIENTNETS = {f"efficientnet_{variant}": variant for variant in _TOP_CHANNELS}
_LITES = {f"efficientnet_{variant}": variant for variant in efficientnet_lite.PRESETS}
NAMES = (*xception.PRESETS, *_MESONETS, *_EFFICIENTNETS, *_LITES)
# Pretrained networks to distill from; no published model is one.
TEACHERS = ("mobilenet_v2",)
_BACKBONE_STAGES = ("block3", "block5", "block7")


def build(
    name: str,
    image_size: int,
    *,
    dropout: float = 0.5,
    bn_momentum: float = 0.99,
    drop_connect_rate: float = 0.2,
) -> keras.Model:
    """Builds a classifier with random weights.

    Args:
        name: One of `NAMES` or `TEACHERS`.
        image_size: Side of the crops in pixels.
        dropout: Share of the pooled features dropped in training.
        bn_momentum: Momentum of the batch norms; .9 for a short run from random
            weights.
        drop_connect_rate: Rate for EfficientNets, see `efficientnet.build`.

    Returns:
        A model from RGB `[B, image_size, image_size, 3]` float32 in [0, 255] to the
        logit of fake, `[B, 1]` float32. B must not be 0: TensorFlow's convolutions on
        a CPU (oneDNN, 2.20) give an empty batch a wrong shape.

    Raises:
        ValueError: The name is unknown, or the size is too small.
    """
    if name not in (*NAMES, *TEACHERS):
        raise ValueError(f"name must be one of {NAMES + TEACHERS}, got {name!r}.")
    options: dict[str, Any] = {"dropout": dropout, "bn_momentum": bn_momentum}
    if name in TEACHERS:
        return mobilenet.MobileNetV2(image_size, name=name, **options)
    if name in _EFFICIENTNETS:
        options["drop_connect_rate"] = drop_connect_rate
        return EfficientNet(image_size, _EFFICIENTNETS[name], name=name, **options)
    if name in _LITES:
        options["drop_connect_rate"] = drop_connect_rate
        return efficientnet_lite.EfficientNetLite(
            image_size, _LITES[name], name=name, **options
        )
    if name in _MESONETS:
        inception = name == "mesoinception4"
        return mesonet.MesoNet(image_size, inception, name=name, **options)
    return xception.Xception(image_size, name=name, **options, **xception.PRESETS[name])


def build_embedding_model(model: keras.Model) -> keras.Model:
    """Builds a model of a classifier's pooled features that shares its weights.

    Returns:
        A model from the classifier's input to `[B, D]` float32, before dropout and not
        normalized.
    """
    pooled = feature_maps(model, ["pool"])
    return keras.Model(pooled.input, pooled.outputs[0])


def explained_stage(model: keras.Model) -> str:
    """Name of the stage of stride 8 whose maps explain a classifier best.

    On drawn fakes with one forged spot, the peak of Grad-CAM on a lightxception was on
    the spot in all of them at this stage and in one of four at `exit`, where a map is
    a few pixels wide.

    Returns:
        The name; of another model, that of its last layer that outputs maps.
    """
    if isinstance(model, xception.Xception):
        return "entry2"
    if isinstance(model, (*_NESTED, mesonet.MesoNet)):
        return "block3"
    return [x.name for x in model.layers if len(x.output.shape) == 4][-1]


def feature_maps(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """Builds a model of some stages, or `logits`, that shares a classifier's weights.

    Its output is a list, or with one name the map itself, as Keras does.

    Raises:
        ValueError: The classifier lacks a stage of that name.
    """
    if isinstance(model, _NESTED):
        return model.feature_maps(names)
    return xception.feature_maps(model, names)


@keras.saving.register_keras_serializable(package="dfdetect")
class EfficientNet(keras.Model):
    """EfficientNet-B0 to B4 with a top, from RGB in [0, 255] to logits.

    Input `[B, image_size, image_size, 3]`, output `[B, num_outputs]` float32. Stages,
    by the names of their layers, with channels of B0 and stride: `block3` (40, 8),
    `block5` (112, 16), `block7` (320, 32), `exit` (1280, 32), and `pool`, the mean of
    `exit`.

    Source: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks, 2019.

    Args:
        image_size: Side of the input in pixels, at least 32.
        variant: "b0" to "b4".
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
        variant: str = "b0",
        num_outputs: int = 1,
        dropout: float = 0.2,
        bn_momentum: float = 0.99,
        drop_connect_rate: float = 0.2,
        name: str = "efficientnet",
        **kwargs: Any,
    ) -> None:
        if image_size < 32:
            raise ValueError(f"image_size must be at least 32, got {image_size}.")
        if variant not in _TOP_CHANNELS:
            raise ValueError(
                f"variant must be one of {list(_TOP_CHANNELS)}, got {variant!r}."
            )
        images = keras.Input((image_size, image_size, 3), name="images")
        # The backbone's own size stays free: it takes any, its strides pad.
        backbone = efficientnet.build(
            variant, bn_momentum=bn_momentum, drop_connect_rate=drop_connect_rate
        )
        x = backbone(efficientnet.build_normalization("normalise")(images))[-1]
        x = keras.layers.Conv2D(
            _TOP_CHANNELS[variant], 1, use_bias=False, name="top_conv"
        )(x)
        x = keras.layers.BatchNormalization(
            momentum=bn_momentum, epsilon=1e-3, name="top_bn"
        )(x)
        x = keras.layers.Activation("swish", name="exit")(x)
        x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
        x = keras.layers.Dropout(dropout, name="dropout")(x)
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
        """See the function `feature_maps`.

        Raises:
            ValueError: A name is not that of a stage.
        """
        images = keras.Input(self.input_shape[1:], name="images")
        # The inner maps of a nested model are out of reach: call the layers again.
        maps = self.get_layer("backbone")(self.get_layer("normalise")(images))
        stages = dict(zip(_BACKBONE_STAGES, maps, strict=True))
        x = maps[-1]
        for layer in ("top_conv", "top_bn", "exit", "pool", "dropout", "logits"):
            x = stages[layer] = self.get_layer(layer)(x)
        if not stages.keys() >= set(names):
            raise ValueError(f"names must be of {list(stages)}, got {list(names)}.")
        return keras.Model(images, [stages[name] for name in names])

    def load_imagenet(self) -> None:
        """Loads the ImageNet weights of `keras.applications`; needs the network."""
        build_source = getattr(
            keras.applications, f"EfficientNet{self.variant.upper()}"
        )
        source = build_source(weights="imagenet", include_top=False)
        self.copy_applications_weights(source)

    def copy_applications_weights(self, source: keras.Model) -> None:
        """Copies all but the logits from the same size in `keras.applications`.

        Raises:
            ValueError: The layers differ.
        """
        efficientnet.copy_applications_weights(self.get_layer("backbone"), source)
        for name in ("top_conv", "top_bn"):
            self.get_layer(name).set_weights(source.get_layer(name).get_weights())


# Classifiers whose stages are inside a nested model.
_NESTED = (EfficientNet, efficientnet_lite.EfficientNetLite)
