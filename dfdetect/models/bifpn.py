"""Bidirectional feature pyramid with weighted fusion."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

LEVELS = (3, 4, 5, 6, 7)  # Strides 8 to 128.
BN_EPSILON = 1e-3  # google/automl, utils.py.

_FUSION_EPSILON = 1e-4  # EfficientDet, section 3.3.


@keras.saving.register_keras_serializable(package="dfdetect")
class FastFusion(keras.layers.Layer):
    """Weighted mean of equal-sized features; each weight is learned and not negative.

    Source: Tan et al., EfficientDet, 2020, section 3.3, "fast normalized fusion".
    """

    def build(self, input_shape: Sequence[Any]) -> None:
        # Kept from mixed precision: bfloat16 would lose the epsilon.
        self.fusion_weights = self.add_weight(
            name="fusion_weights",
            shape=(len(input_shape),),
            initializer="ones",
            autocast=False,
        )

    def call(self, inputs: Sequence[Any]) -> Any:
        weights = ops.relu(self.fusion_weights)
        weights = weights / (ops.sum(weights) + _FUSION_EPSILON)
        weights = ops.cast(weights, self.compute_dtype)
        fused = weights[0] * inputs[0]
        for index, features in enumerate(inputs[1:], start=1):
            fused = fused + weights[index] * features
        return fused

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Any:
        return input_shape[0]


def build_batch_norm(name: str, momentum: float) -> keras.layers.Layer:
    """Builds the batch normalization of the whole detector."""
    return keras.layers.BatchNormalization(
        momentum=momentum, epsilon=BN_EPSILON, name=name
    )


def build_pyramid(
    features: Sequence[Any],
    num_filters: int,
    num_cells: int,
    *,
    weighted: bool = True,
    bn_momentum: float = 0.99,
    activation: str = "swish",
) -> list[Any]:
    """Extends a backbone's features to five levels and fuses them down and up.

    Args:
        features: Symbolic features at strides 8, 16 and 32.
        num_filters: Channels of every level.
        num_cells: Number of cells: passes down and up the pyramid.
        weighted: Fuse with learned weights; otherwise plain sums.
        bn_momentum: Momentum of the batch norms' moving statistics.
        activation: Keras name of the activation after each sum.

    Returns:
        Five features of `num_filters` channels at strides 8 to 128: the last nodes of
        the bottom-up path, not those of the top-down one.

    Source: Tan et al., EfficientDet, 2020, figures 2 and 3; google/automl
    efficientdet, `fpn_configs.py` and `efficientdet_keras.py`.
    """

    def project(x: Any, name: str) -> Any:
        x = keras.layers.Conv2D(num_filters, 1, padding="same", name=f"{name}_conv")(x)
        return build_batch_norm(f"{name}_bn", bn_momentum)(x)

    def fuse(inputs: list[Any], name: str) -> Any:
        if weighted:
            x = FastFusion(name=f"{name}_fusion")(inputs)
        else:
            x = keras.layers.Add(name=f"{name}_fusion")(inputs)
        x = keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
        x = keras.layers.SeparableConv2D(
            num_filters, 3, padding="same", name=f"{name}_conv"
        )(x)
        return build_batch_norm(f"{name}_bn", bn_momentum)(x)

    def cell(down: list[Any], up: list[Any], name: str) -> list[Any]:
        """Builds a cell; `down` and `up`, the paths' inputs, differ in cell 0 only."""
        p3, p4, p5, p6, p7 = down
        p6_td = fuse([p6, _upsample(p7, p6, f"{name}_p7_up")], f"{name}_p6_td")
        p5_td = fuse([p5, _upsample(p6_td, p5, f"{name}_p6_up")], f"{name}_p5_td")
        p4_td = fuse([p4, _upsample(p5_td, p4, f"{name}_p5_up")], f"{name}_p4_td")
        p3_out = fuse([p3, _upsample(p4_td, p3, f"{name}_p4_up")], f"{name}_p3_out")
        _, p4, p5, p6, p7 = up
        p3_down = _downsample(p3_out, f"{name}_p3_down")
        p4_out = fuse([p4, p4_td, p3_down], f"{name}_p4_out")
        p4_down = _downsample(p4_out, f"{name}_p4_down")
        p5_out = fuse([p5, p5_td, p4_down], f"{name}_p5_out")
        p5_down = _downsample(p5_out, f"{name}_p5_down")
        p6_out = fuse([p6, p6_td, p5_down], f"{name}_p6_out")
        p6_down = _downsample(p6_out, f"{name}_p6_down")
        p7_out = fuse([p7, p6_down], f"{name}_p7_out")
        return [p3_out, p4_out, p5_out, p6_out, p7_out]

    c3, c4, c5 = features
    p6 = _downsample(project(c5, "p6_lateral"), "p6_pool")
    p7 = _downsample(p6, "p7_pool")
    down = [project(c, f"p{i}_lateral") for i, c in enumerate((c3, c4, c5), start=3)]
    down += [p6, p7]
    up = [down[0], project(c4, "p4_lateral_up"), project(c5, "p5_lateral_up"), p6, p7]
    for index in range(num_cells):
        down = up = cell(down, up, f"bifpn{index}")
    return down


def _upsample(x: Any, target: Any, name: str) -> Any:
    """Doubles `x` to the size of `target`, which may lack a last row and column."""
    x = keras.layers.UpSampling2D(2, interpolation="nearest", name=name)(x)
    # The level above one of odd size has half of it, rounded up. Without its last row
    # the doubled level equals nearest-neighbour resizing, as in google/automl.
    sides = zip(x.shape[1:3], target.shape[1:3], strict=True)
    extra = [have - want for have, want in sides]
    if any(extra):
        cropping = [(0, more) for more in extra]
        x = keras.layers.Cropping2D(cropping, name=f"{name}_crop")(x)
    return x


def _downsample(x: Any, name: str) -> Any:
    return keras.layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x)
