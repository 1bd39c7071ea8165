"""Pools texture: mean and deviation of the feature maps of many stages.

Traces of a forgery lie in textures of every scale rather than in the content. In an
ImageNet network that never saw a fake, these numbers separate fakes from reals better
than the features that it pools for its thousand classes.
"""

from collections.abc import Mapping
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="dfdetect")
class Moments(keras.layers.Layer):
    """Mean and standard deviation over space: `[B, H, W, C]` to `[B, 2 * C]`."""

    def call(self, features: Any) -> Any:
        mean = keras.ops.mean(features, axis=(1, 2))
        deviation = keras.ops.sqrt(keras.ops.var(features, axis=(1, 2)) + 1e-3)
        return keras.ops.concatenate([mean, deviation], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape[0], 2 * input_shape[-1]


def pool_moments(maps: Mapping[str, Any], bn_momentum: float) -> Any:
    """Pools the moments of some stages, standardized by the layer `pool`.

    Args:
        maps: Feature maps `[B, H, W, C]` by the names of the stages.
        bn_momentum: Momentum of the batch norms' moving statistics.

    Returns:
        `[B, D]` float32, D twice the sum of the channels.
    """
    pooled = [
        Moments(dtype="float32", name=f"{stage}_moments")(features)
        for stage, features in maps.items()
    ]
    x = keras.layers.Concatenate(dtype="float32", name="moments")(pooled)
    return keras.layers.BatchNormalization(
        momentum=bn_momentum, center=False, scale=False, dtype="float32", name="pool"
    )(x)
