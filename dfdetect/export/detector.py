"""Exports the detector alone, with its post-processing, for use in other programs.

Both formats take letterboxed images (see `resize.letterbox`), float32 `[B, S, S, 3]` in
[0, 255], as `images`, and give `boxes` float32 `[B, N, 4]` relative to the letterbox,
`scores` float32 `[B, N]` and `num_heads` int32 `[B]`, padded with zeros.
"""

import os
from typing import Any

import keras
import tensorflow as tf

from dfdetect import manifest
from dfdetect.pipeline import detector_settings, head_detection


def save(detector: keras.Model, described: dict[str, Any], directory: str) -> None:
    """Writes a SavedModel of one signature, for any B, with the manifest in its assets.

    Args:
        detector: An `EfficientDet`.
        described: Manifest of the detector.
        directory: A new or empty folder.
    """
    module = _build_module(detector, described, None)
    tf.saved_model.save(module, directory, {"serving_default": module.detect})
    manifest.write(os.path.join(directory, "assets"), described)


def convert_to_tflite(
    detector: keras.Model, described: dict[str, Any], int8: bool = False
) -> bytes:
    """Converts the detector to TFLite (LiteRT), B = 1, of built-in operations only.

    Args:
        detector: An `EfficientDet`.
        described: Manifest of the detector.
        int8: Whether to store kernels in 8 bits with a scale for each channel, and to
            compute with 8 bits where that is faster (dynamic-range quantization).
    """
    module = _build_module(detector, described, 1)
    concrete = module.detect.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _build_module(
    detector: keras.Model, described: dict[str, Any], batch_size: int | None
) -> tf.Module:
    settings = detector_settings.DetectorSettings.from_manifest(described)
    detect = head_detection.build_detector_function(detector, settings)
    size = settings.image_size
    spec = tf.TensorSpec([batch_size, size, size, 3], tf.float32, "images")
    module = tf.Module()
    # The variables alone: see `DeepfakePipeline`.
    module.weights = [variable.value for variable in detector.variables]
    module.detect = tf.function(
        lambda images: detect(images), input_signature=[spec], autograph=False
    )
    return module
