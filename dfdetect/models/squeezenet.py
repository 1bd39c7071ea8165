"""SqueezeNet 1.1 without its top: a small ImageNet network to learn features from.

Only a teacher for distillation: no published model of dfdetect contains it.

Source: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
< 0.5 MB model size, 2016; version 1.1 of the authors' repository.
"""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

# Squeeze and expand channels; version 1.1 pools before fire2, fire4 and fire6.
_FIRES = {
    "fire2": (16, 64),
    "fire3": (16, 64),
    "fire4": (32, 128),
    "fire5": (32, 128),
    "fire6": (48, 192),
    "fire7": (48, 192),
    "fire8": (64, 256),
    "fire9": (64, 256),
}
_POOL_BEFORE = {"fire2": "pool1", "fire4": "pool3", "fire6": "pool5"}
_RGB_MEANS = (123.7, 116.8, 103.9)


@keras.saving.register_keras_serializable(package="dfdetect")
class SqueezeNet(keras.Model):
    """Feature maps of an image, RGB in [0, 255].

    Input `[B, image_size, image_size, 3]`, output a list of feature maps. Names with
    channels and stride: `fire2`, `fire3` (128, 4), `fire4`, `fire5` (256, 8), `fire6`,
    `fire7` (384, 16), `fire8`, `fire9` (512, 16). Nothing is padded before the
    strides, so a map is a cell or so smaller than image_size / stride: 27 and 13 at 224
    pixels.

    Args:
        image_size: Side of the input in pixels, at least 32.
        features: Names of the layers to output, in this order.
        name: Name of the model.

    Raises:
        ValueError: The image is too small or a layer is unknown.
    """

    def __init__(
        self,
        image_size: int = 224,
        features: Sequence[str] = ("fire5", "fire9"),
        name: str = "squeezenet",
        **kwargs: Any,
    ) -> None:
        if image_size < 32:
            raise ValueError(f"image_size must be at least 32, got {image_size}.")
        unknown = set(features) - _FIRES.keys()
        if unknown or not features:
            raise ValueError(
                f"features must be some of {list(_FIRES)}, got {list(features)}."
            )
        images = keras.Input((image_size, image_size, 3), name="images")
        x = keras.layers.Rescaling(
            1.0, [-mean for mean in _RGB_MEANS], dtype="float32", name="normalise"
        )(images)
        x = keras.layers.Conv2D(64, 3, strides=2, activation="relu", name="conv1")(x)
        maps = {}
        for fire, (squeeze, expand) in _FIRES.items():
            if fire in _POOL_BEFORE:
                x = keras.layers.MaxPooling2D(3, 2, name=_POOL_BEFORE[fire])(x)
            x = maps[fire] = _fire(x, squeeze, expand, fire)
        super().__init__(images, [maps[f] for f in features], name=name, **kwargs)
        self.image_size = image_size
        self.features = tuple(features)

    def get_config(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "features": list(self.features),
            "name": self.name,
            "trainable": self.trainable,
        }


def build(
    path: str | os.PathLike[str],
    features: Sequence[str] = ("fire5", "fire9"),
    image_size: int = 224,
) -> SqueezeNet:
    """Builds the teacher with the weights of `path`, see `load_h5`; it is frozen."""
    model = SqueezeNet(image_size, features)
    load_h5(model, path)
    model.trainable = False
    return model


def load_h5(model: SqueezeNet, path: str | os.PathLike[str]) -> None:
    """Loads the public `squeezenet1.1_imagenet_notop.h5`.

    Args:
        model: Gets the weights of all its layers.
        path: The file; DeepCognition/keras-squeezenet on GitHub, MIT license.

    Raises:
        ImportError: h5py is not installed.
        ValueError: A layer is missing in the file or has another shape there.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("Reading .h5 files needs h5py: pip install h5py") from error
    arrays: dict[str, dict[str, np.ndarray]] = {}
    with h5py.File(path, "r") as file:

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                # fire2/expand1x1/uniform3 and fire2/expand1x1/fire2/expand1x1_b are the
                # kernel and the bias of fire2/expand1x1.
                parts = name.split("/")
                layer = "_".join(parts[: 2 if parts[0] != "conv1" else 1])
                kind = "bias" if name.endswith("_b") else "kernel"
                arrays.setdefault(layer, {})[kind] = np.array(item)

        file.visititems(collect)
    for layer in [layer for layer in model.layers if layer.weights]:
        found = arrays.get(layer.name, {})
        for variable in layer.weights:
            array = found.get(variable.name)
            if array is None or array.shape != tuple(variable.shape):
                raise ValueError(
                    f"{layer.name} must have a {variable.name} "
                    f"{tuple(variable.shape)}, {path} has "
                    f"{None if array is None else array.shape}."
                )
            # The file takes BGR, as Caffe does.
            is_first = layer.name == "conv1" and variable.name == "kernel"
            variable.assign(array[:, :, ::-1] if is_first else array)


def _fire(x: Any, squeeze: int, expand: int, name: str) -> Any:
    def conv(inputs: Any, channels: int, size: int, kind: str) -> Any:
        layer = keras.layers.Conv2D(
            channels, size, padding="same", activation="relu", name=f"{name}_{kind}"
        )
        return layer(inputs)

    x = conv(x, squeeze, 1, "squeeze1x1")
    pair = [conv(x, expand, 1, "expand1x1"), conv(x, expand, 3, "expand3x3")]
    return keras.layers.Concatenate(name=name)(pair)
