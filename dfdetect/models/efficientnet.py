"""EfficientNet B0 to B7, the backbones of EfficientDet, from keras-cv."""

import math
import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np

PRESETS = {  # EfficientNet, section 3.3: width and depth of each size.
    "b0": {"width_coefficient": 1.0, "depth_coefficient": 1.0},
    "b1": {"width_coefficient": 1.0, "depth_coefficient": 1.1},
    "b2": {"width_coefficient": 1.1, "depth_coefficient": 1.2},
    "b3": {"width_coefficient": 1.2, "depth_coefficient": 1.4},
    "b4": {"width_coefficient": 1.4, "depth_coefficient": 1.8},
    "b5": {"width_coefficient": 1.6, "depth_coefficient": 2.2},
    "b6": {"width_coefficient": 1.8, "depth_coefficient": 2.6},
    "b7": {"width_coefficient": 2.0, "depth_coefficient": 3.1},
}
STACKS: dict[str, list[int]] = {  # EfficientNet, table 1.
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
}
_SQUEEZE_RATIOS = [0.25] * 7
_TAPPED_BLOCKS = (3, 5, 7)  # Strides 8, 16 and 32.
_MEAN = (123.675, 116.28, 103.53)  # ImageNet, RGB in [0, 255].
_STDDEV = (58.395, 57.12, 57.375)


def build_normalization(name: str = "normalization") -> keras.layers.Layer:
    """Layer from RGB in [0, 255] to ImageNet's zero mean and unit deviation.

    It stays in float32 under mixed precision: bfloat16 cannot tell gray levels apart.
    """
    return keras.layers.Rescaling(
        scale=[1.0 / stddev for stddev in _STDDEV],
        offset=[-mean / stddev for mean, stddev in zip(_MEAN, _STDDEV, strict=True)],
        dtype="float32",
        name=name,
    )


def build(
    variant: str,
    image_size: int | None = None,
    *,
    drop_connect_rate: float = 0.2,
    bn_momentum: float = 0.99,
    name: str = "backbone",
) -> keras.Model:
    """Builds a backbone without its top convolution.

    Args:
        variant: A key of `PRESETS`.
        image_size: Side of the input in pixels, a multiple of 32; free by default.
        drop_connect_rate: Chance to skip the last residual block in training; the
            earlier ones have proportionally less.
        bn_momentum: Momentum of the batch norms' moving statistics.
        name: Name of the model.

    Returns:
        A model from normalized images `[batch, size, size, 3]` to the list of features
        at strides 8, 16 and 32.

    Raises:
        ValueError: `variant` is unknown.
    """
    if variant not in PRESETS:
        raise ValueError(f"variant must be one of {list(PRESETS)}, got {variant!r}.")
    import keras_cv  # Imports TensorFlow; the rest of this file needs Keras only.

    repeats = STACKS["stackwise_num_repeats"]
    depth = PRESETS[variant]["depth_coefficient"]
    num_blocks = sum(math.ceil(depth * repeat) for repeat in repeats)
    network = keras_cv.models.EfficientNetV1Backbone(
        include_rescaling=False,
        input_shape=(image_size, image_size, 3),
        # keras-cv 0.9.0 divides by the number of blocks of B0 in every size.
        drop_connect_rate=drop_connect_rate * sum(repeats) / num_blocks,
        stackwise_squeeze_and_excite_ratios=_SQUEEZE_RATIOS,
        **PRESETS[variant],
        **STACKS,
    )
    for layer in network.layers:
        if layer.name.endswith("_project_activation"):
            # The published bottleneck is linear; keras-cv 0.9.0 puts a swish here.
            layer.activation = keras.activations.linear
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = bn_momentum
    features = []
    for block in _TAPPED_BLOCKS:
        layers = [x for x in network.layers if x.name.startswith(f"block{block}")]
        features.append(layers[-1].output)
    return keras.Model(network.input, features, name=name)


def copy_applications_weights(backbone: keras.Model, source: keras.Model) -> None:
    """Copies the weights of a `keras.applications` EfficientNet into a backbone.

    Args:
        backbone: As `build` returns it.
        source: `keras.applications.EfficientNetB0` to `B7` of the same size, with
            or without top.

    Raises:
        ValueError: The two differ in size, or the source normalizes its images in
            another way than `build_normalization` (as with `weights=None`).
    """
    preprocessing = keras.Model(source.input, source.get_layer("stem_conv_pad").input)
    side = source.input_shape[1] or 32
    probe = np.zeros((2, side, side, 3), "float32")
    probe[1] = 255.0
    if not np.allclose(preprocessing(probe), build_normalization()(probe), atol=1e-3):
        raise ValueError("source must normalize by the mean and deviation of ImageNet.")
    for layer in backbone.layers:
        if not layer.weights:
            continue
        weights = source.get_layer(_applications_name(layer.name)).get_weights()
        shapes = [array.shape for array in weights]
        expected = [tuple(weight.shape) for weight in layer.weights]
        if shapes != expected:
            raise ValueError(f"{layer.name} must have {expected}, source has {shapes}.")
        layer.set_weights(weights)


def convert_applications(
    backbone: keras.Model, layers: Mapping[str, Sequence[np.ndarray]]
) -> dict[tuple[str, str], np.ndarray]:
    """Finds the weights of a backbone in a file of a `keras.applications` EfficientNet.

    Args:
        backbone: As `build` returns it.
        layers: Arrays by layer, see `keras_weights`; layers of a top may follow.

    Returns:
        The arrays of the file by the names of our layer and its weight; those that the
        file lacks are left out.

    Raises:
        ValueError: The file is not of an EfficientNet, or normalizes its images in
            another way than `build_normalization`.
    """
    if "block7a_project_conv" not in layers:
        raise ValueError(
            "it must be an EfficientNet of keras.applications, with layers from "
            f"stem_conv to block7a_project_conv, got {', '.join(list(layers)[:3])}, ..."
        )
    for name, arrays in layers.items():
        if re.fullmatch(r"normalization(_\d+)?", name) and len(arrays) == 3:
            _check_normalization(*arrays[:2])
    found = {}
    for layer in backbone.layers:
        arrays = layers.get(_applications_name(layer.name), ())
        for weight, array in zip(layer.weights, arrays, strict=False):
            found[layer.name, weight.name] = array
    return found


def _check_normalization(mean: np.ndarray, variance: np.ndarray) -> None:
    """Compares the values of a layer `Normalization` with ImageNet's, in [0, 1].

    Its variances are the squares of the deviations, or in the published files the
    deviations, which a layer behind it corrects.
    """
    wanted = np.array(_MEAN) / 255, np.array(_STDDEV) / 255
    is_usual = np.allclose(np.ravel(mean), wanted[0], atol=1e-3) and any(
        np.allclose(np.ravel(variance), wanted[1] ** power, atol=1e-3)
        for power in (1, 2)
    )
    if not is_usual:
        raise ValueError(
            "its images must be normalized by the mean and deviation of ImageNet, "
            f"got a mean of {np.ravel(mean)} and variances of {np.ravel(variance)}"
        )


def _applications_name(name: str) -> str:
    """Returns the name of one of our layers in `keras.applications`."""
    name = name.replace("_dwconv_bn", "_bn")
    return f"{name}_conv" if name.endswith("_project") else name
