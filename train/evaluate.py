"""Measures a trained model on a split of a prepared data set.

    python train/evaluate.py --task=detect --model_dir=runs/d0 \
      --data_dir=prepared --dataset=hollywood_heads --split=test --output=measured

A detector needs `pip install dfdetect[evaluate]`.
"""

import functools
import json
import math
import os
from typing import Any

import tensorflow_datasets as tfds
from absl import flags

from dfdetect import (
    data,
    detection_report,
    evaluation,
    files,
    manifest,
    model_directory,
    script,
)
from dfdetect.metrics import coco, protocol

FLAGS = flags.FLAGS

_TASK = flags.DEFINE_enum(
    "task", None, ["detect", "classify"], "What the model does.", required=True
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of a trained model; the default weights without it."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_string("dataset", None, "A prepared data set.", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "A split of it.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Pictures at once.", lower_bound=1)
_TILE = flags.DEFINE_bool(
    "tile", False, "Let a detector look at tiles of large pictures, too."
)
_SOFT_NMS_SIGMA = flags.DEFINE_float(
    "soft_nms_sigma", 0.0, "Of soft suppression, .5 in the paper; 0 for hard.", 0.0
)
_TFLITE = flags.DEFINE_string(
    "tflite", None, "A folder of serve/export_detector.py: measure that instead."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for metrics.json and, for a detector, report.md, precision_recall.png and "
    "worst_images.jpg; or a file ending in .json for the figures alone.",
)


def main(argv: list[str]) -> None:
    output = _OUTPUT.value or ""
    folder = "" if output.endswith(".json") else output
    if folder:
        os.makedirs(folder, exist_ok=True)
        output = os.path.join(folder, "metrics.json")
    builder = data.open_builder(_DATA_DIR.value, _DATASET.value)
    measure = {"detect": _measure_detector, "classify": _measure_classifier}
    figures = {
        "task": _TASK.value,
        "model": _MODEL_DIR.value or "default weights",
        "split": _SPLIT.value,
        "data": data.describe(builder),
    }
    measure[_TASK.value](builder, figures, folder)
    text = json.dumps(_without_nan(figures), indent=2, allow_nan=False)
    print(text)
    if output:
        files.write(output, f"{text}\n".encode())


def _measure_classifier(
    builder: tfds.core.DatasetBuilder, figures: dict[str, Any], folder: str
) -> None:
    model, described = model_directory.load_classifier(_MODEL_DIR.value)
    figures["metrics"] = evaluation.measure(
        model, described, builder, _SPLIT.value, _BATCH_SIZE.value
    )


def _measure_detector(
    builder: tfds.core.DatasetBuilder, figures: dict[str, Any], folder: str
) -> None:
    coco.import_pycocotools()  # Before minutes have gone by.
    if _TFLITE.value:
        described = manifest.read(_TFLITE.value, "detector")
        path = os.path.join(_TFLITE.value, "detector.tflite")
        detect = evaluation.tflite_function(path)
        figures["model"] = path
    else:
        model, described = model_directory.load_detector(_MODEL_DIR.value)
        detect = evaluation.detect_function(model, _TILE.value, _SOFT_NMS_SIGMA.value)
    batches = data.detector_evaluation(
        builder, _SPLIT.value, described["image_size"], _BATCH_SIZE.value
    )
    measured = evaluation.detections(detect, batches)
    figures["metrics"] = {
        **protocol.summary(*measured),
        "coco": coco.summary(*measured),
    }
    if folder:
        pictures = functools.partial(data.pictures, builder, _SPLIT.value)
        detection_report.write(folder, figures, *measured, pictures)


def _without_nan(figures: Any) -> Any:
    """The same for JSON, which has no NaN: null instead."""
    if isinstance(figures, dict):
        return {name: _without_nan(value) for name, value in figures.items()}
    if isinstance(figures, (list, tuple)):
        return [_without_nan(value) for value in figures]
    return None if isinstance(figures, float) and math.isnan(figures) else figures


if __name__ == "__main__":
    script.run(main)
