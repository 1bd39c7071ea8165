"""Weights that others trained: kinds of files, and conversion to our names.

* PyTorch's Xception of FaceForensics++, DeepfakeBench or ImageNet: `xception_pytorch`.
* PyTorch's EfficientNet-Lite of ImageNet: `efficientnet_lite*` and EfficientDet-Lite.
* Xception of `keras.applications`, with any top: `xception`.
* EfficientNet of `keras.applications`, with any top: `efficientnet_b*`, EfficientDet.
* xuannianz/EfficientDet: EfficientDet D0 to D6.
"""

import os
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import keras
import numpy as np

from dfdetect.models import (
    efficientdet,
    efficientdet_weights,
    efficientnet,
    keras_weights,
    pytorch_weights,
    xception,
    xception_weights,
)
from dfdetect.models.classifier import EfficientNet

Arrays = dict[str, np.ndarray]

_PYTORCH_MODELS = "xception_pytorch, efficientnet_lite0 to _lite4 and EfficientDet-Lite"
_NO_KERAS = (
    "it takes no file of Keras; such files are read for xception, lightxception, "
    "efficientnet_b0 to _b4 and EfficientDet D0 to D6"
)


def identify(path: str | os.PathLike[str]) -> str:
    """Identifies the kind of a file of weights by its content.

    Returns:
        "ours", "pytorch" or "keras".

    Raises:
        ValueError: It is a file of another kind; the message names the kind.
    """
    with open(path, "rb") as stream:
        start = stream.read(16)
        names = _members(stream)
    if start[:8] == b"\x89HDF\r\n\x1a\n" or "model.weights.h5" in names:
        return "keras"
    if start[:1] == b"\x80" or any(n.split("/")[1:] == ["data.pkl"] for n in names):
        return "pytorch"
    if start[:2] == b"PK" or not start:
        return "ours"  # Its reader says whether it is damaged.
    other = (
        ("a TensorFlow Lite model", start[4:8] == b"TFL3"),
        ("a safetensors file", start[8:9] == b"{"),
        ("an ONNX model or another protocol buffer", start[:1] == b"\x08"),
        ("text", start.isascii() and start.decode("ascii").isprintable()),
    )
    kind = next((name for name, is_it in other if is_it), f"begins with {start[:8]!r}")
    raise ValueError(
        f"{path} must be weights of dfdetect (.npz), PyTorch (.pth, .pkl) or Keras "
        f"(.h5, .keras), but is {kind}."
    )


def _members(stream: BinaryIO) -> list[str]:
    try:
        with zipfile.ZipFile(stream) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def read(
    model: keras.Model, path: str, kind: str, keys: Mapping[int, str]
) -> Arrays | None:
    """Reads a file that others wrote as weights of a model.

    Args:
        model: A built classifier or detector.
        path: The file.
        kind: "pytorch" or "keras", see `identify`.
        keys: Keys of the model's weights by the `id` of the variable.

    Returns:
        Arrays by our names where they are the model's, and the rest of the file by its
        own names. None where the model's own method `load_pytorch` must read it.

    Raises:
        ValueError: The file is damaged or of another network.
    """
    if kind == "pytorch":
        if isinstance(model, xception.Xception):
            return _read_xception(model, path)
        if hasattr(model, "load_pytorch"):
            return None
        raise ValueError(
            f"{model.name} takes no .pth file, got {path}; such files are read for "
            f"{_PYTORCH_MODELS}."
        )
    layers = keras_weights.read(path)
    try:
        return _from_keras(model, layers, keys)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {model.name}: {error}.") from error


def _read_xception(model: xception.Xception, path: str) -> Arrays:
    try:
        arrays = xception_weights.convert_pytorch(
            pytorch_weights.read(path), model.num_outputs or 0
        )
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} does not fit {model.name}: {error}.") from error
    if model.pool_padding != "both":
        raise ValueError(
            f"{path} is an Xception of PyTorch, which pads as xception_pytorch does: "
            f"its weights would give other outputs in {model.name}."
        )
    return arrays


def _from_keras(
    model: keras.Model, layers: keras_weights.Layers, keys: Mapping[int, str]
) -> Arrays:
    if isinstance(model, xception.Xception):
        if model.pool_padding != "same" or model.spatial != "depthwise":
            raise ValueError(_NO_KERAS)
        return xception_weights.convert_applications(model, layers)
    if isinstance(model, efficientdet.EfficientDet) and not model.lite:
        if efficientdet_weights.is_published(layers):
            found = efficientdet_weights.convert_layers(model, layers)
        else:
            found = efficientnet.convert_applications(model.backbone, layers)
        owners = [model, model.backbone]
        return _by_key(found, owners, keys) | _list_rest(found, layers)
    if isinstance(model, EfficientNet):
        backbone = model.get_layer("backbone")
        found = efficientnet.convert_applications(backbone, layers)
        for name in ("top_conv", "top_bn"):
            weights = model.get_layer(name).weights
            pairs = zip(weights, layers.get(name, ()), strict=False)
            found |= {(name, weight.name): array for weight, array in pairs}
        return _by_key(found, [model, backbone], keys) | _list_rest(found, layers)
    raise ValueError(_NO_KERAS)


def _list_rest(
    found: Mapping[tuple[str, str], np.ndarray], layers: keras_weights.Layers
) -> Arrays:
    """Lists the arrays of layers that were not taken, except normalization."""
    taken = {id(array) for array in found.values()}
    return {
        f"{name}/{index}": array
        for name, arrays in layers.items()
        if not any(id(array) in taken for array in arrays)
        and not name.startswith("normalization")
        for index, array in enumerate(arrays)
    }


def _by_key(
    found: Mapping[tuple[str, str], np.ndarray],
    owners: list[keras.Model],
    keys: Mapping[int, str],
) -> Arrays:
    known = {
        (layer.name, weight.name): keys[id(weight)]
        for owner in owners
        for layer in owner.layers
        if not isinstance(layer, keras.Model)
        for weight in layer.weights
    }
    return {known[place]: array for place, array in found.items()}
