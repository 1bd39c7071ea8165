"""A chain of two small networks that finds three heads in every image."""

import types

import keras
import numpy as np

from dfdetect.pipeline import deepfake_pipeline

DETECTOR_SIZE, CROP_SIZE = 64, 40

_ANCHORS = np.float32(
    [[0.1, 0.0, 0.6, 0.4], [0.2, 0.5, 0.7, 0.9], [0.3, 0.3, 0.5, 0.5]]
)


@keras.saving.register_keras_serializable(package="test")
class _Split(keras.layers.Layer):
    """A detector of three logits and boxes near their anchors."""

    def call(self, features):
        logits, offsets = features[:, :3], features[:, 3:]
        return (
            keras.ops.reshape(keras.ops.tanh(logits) + 3.0, (-1, 3, 1)),
            keras.ops.reshape(keras.ops.tanh(offsets) / 10, (-1, 3, 4)),
        )


def _features(size):
    """Returns images and the last of two convolutions' maps."""
    random = keras.initializers.RandomNormal
    images = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(images)
    for filters in (8, 12):
        kernels = random(stddev=0.3, seed=filters)
        x = keras.layers.Conv2D(filters, 5, strides=3, kernel_initializer=kernels)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation("silu")(x)
    return images, x


def _network(size, num_outputs, name):
    images, x = _features(size)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    kernels = keras.initializers.RandomNormal(stddev=2.0, seed=1)
    return images, keras.layers.Dense(
        num_outputs, kernel_initializer=kernels, name=name
    )(x)


def content_network(size):
    """Builds a network of maps, for embeddings of content: the same maps twice."""
    images, maps = _features(size)
    return keras.Model(images, [maps, maps])


def build(**changes):
    """Builds the `DeepfakePipeline`; `changes` apply to the classifier's manifest."""
    images, features = _network(DETECTOR_SIZE, 15, "features")
    detector = keras.Model(images, _Split()(features))
    detector.anchors = types.SimpleNamespace(boxes=_ANCHORS)
    classifier = keras.Model(*_network(CROP_SIZE, 1, "logits"))
    description = {
        "kind": "pipeline",
        "format": 1,
        "detector": {
            "kind": "detector",
            "phi": 0,
            "image_size": DETECTOR_SIZE,
            "anchor_scale": 4.0,
            "num_classes": 1,
            "score_threshold": 0.5,
            "iou_threshold": 0.5,
            "max_detections": 5,
            "labels": ["head"],
        },
        "classifier": {
            "kind": "classifier",
            "model": "efficientnet_b0",
            "image_size": CROP_SIZE,
            "crop_margin": 1.3,
            "temperature": 2.0,
            "thresholds": {"real_below": 0.5, "fake_from": 0.5},
            "labels": ["real", "fake"],
            **changes,
        },
        "max_detections": 5,
        "min_head_size": 10,
        "versions": {},
    }
    return deepfake_pipeline.DeepfakePipeline(
        detector, classifier, content_network(CROP_SIZE), description
    )
