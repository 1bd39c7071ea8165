"""A chain of two small networks that finds drawn heads wherever they are.

A head is a colored square on black. The reddish are fake, the bluish real.
"""

import functools
import types

import cv2
import keras
import numpy as np

import tiny_pipeline
from dfdetect.pipeline import deepfake_pipeline, interfaces

SIZE, HEAD, STEP = 64, 16, 4  # Pixels of the detector's input; of clips, times SCALE.
SCALE = 2

RED, BLUE = (255, 60, 60), (60, 60, 255)
FAKE, REAL = 0.904651, 0.095349  # Sigmoids of +-(255 - 60) / 86.67, of RED and BLUE.


def _detector():
    images = keras.Input((SIZE, SIZE, 3))
    means = keras.layers.AveragePooling2D(HEAD, strides=STEP)(images)
    cells = (SIZE - HEAD) // STEP + 1
    logit = keras.layers.Conv2D(1, 1)
    offsets = keras.layers.Conv2D(4, 1)
    outputs = [
        keras.layers.Reshape((cells**2, 1))(logit(means)),
        keras.layers.Reshape((cells**2, 4))(offsets(means)),
    ]
    # 0 where two thirds of a head are seen.
    logit.set_weights([np.full((1, 1, 3, 1), 0.2 / 3), np.array([-17.0])])
    offsets.set_weights([np.zeros((1, 1, 3, 4)), np.zeros(4)])
    model = keras.Model(images, outputs)
    starts = np.arange(cells) * STEP / SIZE
    top, left = np.meshgrid(starts, starts, indexing="ij")
    side = HEAD / SIZE
    boxes = np.stack([top, left, top + side, left + side], -1).reshape(-1, 4)
    model.anchors = types.SimpleNamespace(boxes=np.float32(boxes))
    return model


def _classifier():
    crops = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(crops)
    logits = keras.layers.Dense(1)
    model = keras.Model(crops, logits(pooled))
    logits.set_weights([np.array([[1], [0], [-1]]) / 86.67, np.zeros(1)])
    return model


@functools.cache
def build():
    """Builds the `DeepfakePipeline`, once for all tests, as tracing is slow."""
    description = {
        "kind": "pipeline",
        "format": interfaces.FORMAT,
        "detector": {
            "kind": "detector",
            "phi": 0,
            "image_size": SIZE,
            "anchor_scale": 4.0,
            "num_classes": 1,
            "score_threshold": 0.5,
            "iou_threshold": 0.1,
            "max_detections": 5,
            "labels": ["head"],
        },
        "classifier": {
            "kind": "classifier",
            "model": "xception",
            "image_size": 32,
            "crop_margin": 1.0,
            "temperature": 1.0,
            "thresholds": {"real_below": 0.3, "fake_from": 0.7},
            "labels": ["real", "fake"],
        },
        "max_detections": 5,
        "min_head_size": 1,
        "versions": {},
    }
    return deepfake_pipeline.DeepfakePipeline(
        _detector(), _classifier(), tiny_pipeline.content_network(32), description
    )


def frame(*heads, ground=0):
    """Draws an RGB image with heads: (left, top, color) in the detector's pixels."""
    image = np.full((SIZE * SCALE, SIZE * SCALE, 3), ground, np.uint8)
    for left, top, color in heads:
        y, x, side = top * SCALE, left * SCALE, HEAD * SCALE
        image[y : y + side, x : x + side] = color
    return image


def write_clip(path, frames, rate=10):
    """Writes images as a clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, rate, (width, height))
    for image in frames:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return str(path)


def crossing(path, num_frames=25):
    """Writes a clip of a red head moving right and a blue one moving left before it."""
    return write_clip(
        path,
        [frame((2 * i, 24, RED), (48 - 2 * i, 24, BLUE)) for i in range(num_frames)],
    )
