"""Converts published weights of Xception, of Keras and of PyTorch's ports.

PyTorch's ports are those of FaceForensics++ (`model.conv1.weight`, ...,
`model.last_linear.1.weight`), of DeepfakeBench (`backbone.conv1.weight`) and of
ImageNet (`conv1.weight`, ..., `fc.weight`), all of one code.

Source: classification/network/xception.py and models.py of ondyari/FaceForensics;
training/networks/xception.py of SCLBD/DeepfakeBench.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_PYTORCH_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_PREFIXES = ("model.", "backbone.")
_LOGITS = ("last_linear", "last_linear.1", "fc")  # .1: behind a dropout.
# Convolutions of a block in their order, by the place in its `rep`: without a ReLU
# before the first one, all stand one place earlier.
_STAGES = {
    1: ("entry1", (0, 3)),
    2: ("entry2", (1, 4)),
    3: ("entry3", (1, 4)),
    **{block: (f"middle{block - 3}", (1, 4, 7)) for block in range(4, 12)},
    12: ("exit1", (1, 4)),
}

Arrays = dict[str, np.ndarray]


def convert_pytorch(arrays: Mapping[str, np.ndarray], num_outputs: int) -> Arrays:
    """Renames and transposes the arrays of a state dict.

    Args:
        arrays: Arrays by PyTorch's names.
        num_outputs: Number of logits of the model. Where it is 1 and the file has two
            classes, real and fake, the logit is their difference.

    Returns:
        Arrays by our names, see `weights.variables`; arrays that are not of an Xception
        keep their names.

    Raises:
        ValueError: The arrays are not of an Xception.
    """
    prefix = next((p for p in _PREFIXES if f"{p}conv1.weight" in arrays), "")
    rest = {name.removeprefix(prefix): array for name, array in arrays.items()}
    if "block12.rep.1.pointwise.weight" not in rest:
        shown = ", ".join(list(arrays)[:3])
        raise ValueError(
            "it must be an Xception, with the names conv1.weight to block12 and "
            f"last_linear, got {len(arrays)} tensors ({shown}, ...)"
        )
    rest = {n: x for n, x in rest.items() if not n.endswith(".num_batches_tracked")}
    found: Arrays = {}
    for theirs, ours in _pytorch_layers():
        if f"{theirs}.conv1.weight" in rest:
            found[f"{ours}/depthwise_kernel"] = _transpose_kernel(
                rest.pop(f"{theirs}.conv1.weight"), (2, 3, 0, 1)
            )
            found[f"{ours}/pointwise_kernel"] = _transpose_kernel(
                rest.pop(f"{theirs}.pointwise.weight"), (2, 3, 1, 0)
            )
        elif ours.endswith("_bn"):
            for part, name in zip(_PYTORCH_BATCH_NORM, _BATCH_NORM, strict=True):
                if f"{theirs}.{part}" in rest:
                    found[f"{ours}/{name}"] = rest.pop(f"{theirs}.{part}")
        elif f"{theirs}.weight" in rest:
            found[f"{ours}/kernel"] = _transpose_kernel(
                rest.pop(f"{theirs}.weight"), (2, 3, 1, 0)
            )
    for theirs in _LOGITS:
        if f"{theirs}.weight" in rest:
            kernel, bias = rest.pop(f"{theirs}.weight").T, rest.pop(f"{theirs}.bias")
            if (num_outputs, kernel.shape[1]) == (1, 2):
                kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
            found |= {"logits/kernel": kernel, "logits/bias": bias}
    return found | rest


def _transpose_kernel(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    # Before PyTorch 0.4 a 1x1 kernel was kept with two axes.
    return array.reshape(array.shape + (1,) * (4 - array.ndim)).transpose(order)


def _pytorch_layers() -> Iterable[tuple[str, str]]:
    """Yields names of layers in PyTorch, and ours."""
    for number, name in enumerate(("stem_conv1", "stem_conv2", "exit2", "exit3"), 1):
        yield f"conv{number}", name
        yield f"bn{number}", f"{name}_bn"
    for block, (stage, places) in _STAGES.items():
        for number, place in enumerate(places, 1):
            yield f"block{block}.rep.{place}", f"{stage}_conv{number}"
            yield f"block{block}.rep.{place + 1}", f"{stage}_conv{number}_bn"
        yield f"block{block}.skip", f"{stage}_skip"
        yield f"block{block}.skipbn", f"{stage}_skip_bn"


def copy_applications(model: keras.Model, source: keras.Model) -> None:
    """Copies a `keras.applications.Xception` into `model`, layer by layer.

    Args:
        model: An `Xception` of the preset `xception`; its top is kept.
        source: `keras.applications.Xception(include_top=False)`, any input size.

    Raises:
        ValueError: The layers are not the same, in number, kind or shape.
    """
    targets = {x.name: x for x in model.layers if x.weights and x.name != "logits"}
    layers = [layer for layer in source.layers if layer.weights]
    names = _from_applications([layer.name for layer in layers])
    origins = dict(zip(names, layers, strict=True))
    difference = targets.keys() ^ origins.keys()
    if difference:
        raise ValueError(f"Layers of one of the two models only: {sorted(difference)}.")
    for name, target in targets.items():
        origin = origins[name]
        wanted = [tuple(weight.shape) for weight in target.weights]
        found = [tuple(weight.shape) for weight in origin.weights]
        if type(target) is not type(origin) or wanted != found:
            raise ValueError(
                f"{target.name} is {type(target).__name__} {wanted}, "
                f"{origin.name} is {type(origin).__name__} {found}."
            )
    for name, target in targets.items():
        target.set_weights(origins[name].get_weights())


def convert_applications(
    model: keras.Model, layers: Mapping[str, Sequence[np.ndarray]]
) -> Arrays:
    """Renames the arrays of a file of `keras.applications.Xception`.

    Args:
        model: The target `Xception`; logits are not taken.
        layers: Arrays by layer, see `keras_weights`; layers of a top may follow.

    Returns:
        Arrays by our names; arrays that are not of an Xception keep their own.

    Raises:
        ValueError: The arrays are not of an Xception.
    """
    if "block14_sepconv2" not in layers:
        raise ValueError(
            "it must be an Xception of keras.applications, with layers from "
            f"block1_conv1 to block14_sepconv2, got {', '.join(list(layers)[:3])}, ..."
        )
    found: Arrays = {}
    names = _from_applications(list(layers))
    for ours, (theirs, arrays) in zip(names, layers.items(), strict=True):
        has_layer = any(x.name == ours and ours != "logits" for x in model.layers)
        weights = model.get_layer(ours).weights if has_layer else []
        for index, array in enumerate(arrays):
            if index < len(weights):
                found[f"{ours}/{weights[index].name}"] = array
            else:
                found[f"{theirs}/{index}"] = array
    return found


def _from_applications(names: Sequence[str]) -> list[str]:
    """Renames layers of `keras.applications.Xception`; others keep their names.

    The skips have automatic names there; only their order identifies them.
    """
    skips = ("entry1_skip", "entry2_skip", "entry3_skip", "exit1_skip")
    automatic: dict[str, str] = {}
    for kind, ending in (("conv2d", ""), ("batch_normalization", "_bn")):
        some = [n for n in names if re.fullmatch(rf"{kind}(_\d+)?", n)]
        some.sort(key=lambda name: int(name.removeprefix(kind).lstrip("_") or 0))
        automatic |= {n: f"{s}{ending}" for n, s in zip(some, skips, strict=False)}
    return [automatic.get(name) or _from_application(name) or name for name in names]


def _from_application(name: str) -> str | None:
    match = re.fullmatch(r"block(\d+)_(?:sep)?conv(\d)(_bn)?", name)
    if match is None:
        return None
    block, conv, suffix = int(match[1]), match[2], match[3] or ""
    if block == 1:
        return f"stem_conv{conv}{suffix}"
    if block <= 4:
        return f"entry{block - 1}_conv{conv}{suffix}"
    if block <= 12:
        return f"middle{block - 4}_conv{conv}{suffix}"
    if block == 13:
        return f"exit1_conv{conv}{suffix}"
    return f"exit{int(conv) + 1}{suffix}"
