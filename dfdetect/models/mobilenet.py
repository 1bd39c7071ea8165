"""MobileNetV2 as a teacher: a small ImageNet network to learn features from.

No published model of dfdetect contains it. Fine-tuned as a classifier it is also a
reference: its middle layers alone separate fakes from reals better than random weights
learn to within hours.

Source: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018.
"""

import os
from typing import Any

import keras
import numpy as np

from dfdetect.models import moment_pooling

# Residual sums, with channels and stride; moments of these are pooled.
STAGES = {
    "block_2_add": (24, 4),
    "block_5_add": (32, 8),
    "block_9_add": (64, 16),
    "block_12_add": (96, 16),
    "block_15_add": (160, 32),
}
_EPSILON = 1e-3  # Of the batch norms in keras.applications.


@keras.saving.register_keras_serializable(package="dfdetect")
class MobileNetV2(keras.Model):
    """MobileNetV2 1.0 from RGB in [0, 255] to logits.

    Input `[B, image_size, image_size, 3]`, output `[B, num_outputs]` float32. The
    logits are linear in `pool`: the mean and the standard deviation over space of each
    of `STAGES`, standardized, 752 numbers.

    Args:
        image_size: Side of the input in pixels, at least 32.
        num_outputs: Number of logits.
        dropout: Share of the pooled features dropped in training.
        bn_momentum: Momentum of the batch norms' moving statistics.
        name: Name of the model.

    Raises:
        ValueError: The image is too small.
    """

    def __init__(
        self,
        image_size: int = 224,
        num_outputs: int = 1,
        dropout: float = 0.3,
        bn_momentum: float = 0.99,
        name: str = "mobilenet_v2",
        **kwargs: Any,
    ) -> None:
        if image_size < 32:
            raise ValueError(f"image_size must be at least 32, got {image_size}.")
        images = keras.Input((image_size, image_size, 3), name="images")
        x = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="normalise")(
            images
        )
        backbone = keras.applications.MobileNetV2(
            input_shape=(image_size, image_size, 3),
            input_tensor=x,
            include_top=False,
            weights=None,
        )
        maps = {stage: backbone.get_layer(stage).output for stage in STAGES}
        x = moment_pooling.pool_moments(maps, bn_momentum)
        x = keras.layers.Dropout(dropout, dtype="float32", name="dropout")(x)
        x = keras.layers.Dense(num_outputs, dtype="float32", name="logits")(x)
        super().__init__(inputs=images, outputs=x, name=name, **kwargs)
        for layer in self.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = bn_momentum
        self.image_size = image_size
        self.num_outputs = num_outputs
        self.dropout = dropout
        self.bn_momentum = bn_momentum

    def get_config(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "num_outputs": self.num_outputs,
            "dropout": self.dropout,
            "bn_momentum": self.bn_momentum,
            "name": self.name,
            "trainable": self.trainable,
        }


def load_tflite(
    model: MobileNetV2, path: str | os.PathLike[str], images: np.ndarray
) -> None:
    """Loads the public `tf2_mobilenet_v2_1.0_224_ptq.tflite`, int8 and without top.

    Its batch norms are folded into the convolutions. Ours get the statistics of
    `images`, and scales and offsets that undo these, so that training can start from
    the published features, at the 8-bit precision of the file.

    Args:
        model: Gets the weights of all but its logits.
        path: The file; google-coral/test_data on GitHub, Apache-2.0.
        images: `[N, image_size, image_size, 3]`, RGB in [0, 255]; some dozens.

    Raises:
        ValueError: The file holds another network.
    """
    arrays = iter(_read_dequantized(path))
    norms = []
    bias = None
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            kernel, bias = next(arrays, None), next(arrays, None)
            shape = tuple(layer.kernel.shape)
            # [out, y, x, in] and, of depthwise ones, [1, y, x, channel].
            found = None if kernel is None else kernel.transpose(1, 2, 3, 0)
            if found is None or bias is None or found.shape != shape:
                raise ValueError(
                    f"{layer.name} must have a kernel {shape}, {path} has "
                    f"{None if found is None else found.shape}."
                )
            layer.set_weights([found])
        elif layer.name != "pool" and isinstance(
            layer, keras.layers.BatchNormalization
        ):
            assert bias is not None  # Each follows a convolution.
            size = len(bias)
            scale = np.full(size, np.sqrt(1 + _EPSILON))
            layer.set_weights([scale, bias, np.zeros(size), np.ones(size)])
            norms.append(layer)
    _restore_statistics(model, norms, images)


def _read_dequantized(path: str | os.PathLike[str]) -> list[np.ndarray]:
    """Reads kernels and biases of the convolutions in order, float32."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(os.fspath(path))
    interpreter.allocate_tensors()
    found = {}
    for tensor in interpreter.get_tensor_details():
        quantized = tensor["quantization_parameters"]
        scales = quantized["scales"]
        if len(scales) < 2:  # Activations have one for all channels.
            continue
        array = interpreter.get_tensor(tensor["index"]).astype(np.float32)
        shape = [1] * array.ndim
        shape[quantized["quantized_dimension"]] = len(scales)
        found[tensor["index"]] = array * scales.reshape(shape)
    return [found[index] for index in sorted(found)]


def _restore_statistics(
    model: MobileNetV2,
    norms: list[keras.layers.BatchNormalization],
    images: np.ndarray,
) -> None:
    """Sets the batch norms' statistics and keeps their outputs as they are."""
    probe = keras.Model(model.input, [norm.input for norm in norms])
    sums = [np.zeros((2, norm.gamma.shape[0])) for norm in norms]
    parts = np.array_split(images, max(1, len(images) // 16))
    for part in parts:
        for total, features in zip(sums, probe(part, training=False), strict=True):
            values = np.asarray(features, np.float64)
            total += [values.mean((0, 1, 2)), np.square(values).mean((0, 1, 2))]
    for norm, total in zip(norms, sums, strict=True):
        mean, square = total / len(parts)
        variance = np.maximum(square - mean**2, 1e-4)
        offset = norm.get_weights()[1] + mean
        norm.set_weights([np.sqrt(variance + _EPSILON), offset, mean, variance])
