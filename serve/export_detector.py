"""Exports the detector alone, as a SavedModel or for TFLite (LiteRT).

    python serve/export_detector.py --output=DIR [--detector=DIR] [--format=tflite]

Writes the SavedModel itself, or `detector.tflite` and `manifest.json`, into a new
folder. Both take letterboxed images and give boxes, scores and their number: see
`dfdetect/export/detector.py`.
"""

import os
import secrets
import shutil
from typing import Any

from absl import app, flags

from dfdetect import files, manifest, script

_OUTPUT = flags.DEFINE_string("output", None, "A new folder.", required=True)
_DETECTOR = flags.DEFINE_string(
    "detector", None, "Model directory of the detector; by default our weights."
)
_STEP = flags.DEFINE_integer(
    "step",
    None,
    "Step of its training, one that the checkpoints keep; by default the best.",
    lower_bound=1,
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "saved_model",
    ["saved_model", "tflite", "tflite_int8"],
    "tflite_int8 keeps kernels in 8 bits: a third of the size.",
)
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold",
    None,
    "Heads score above it; the model's by default, .01 to measure average precision.",
    0.0,
    1.0,
)
_SOFT_NMS_SIGMA = flags.DEFINE_float(
    "soft_nms_sigma", 0.0, "Of soft suppression, .5 in the paper; 0 for hard.", 0.0
)


def main(argv: list[str]) -> None:
    output = os.path.abspath(_OUTPUT.value)
    if os.path.exists(output):
        raise app.UsageError(f"{output} is there already.")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from dfdetect.export import writing
    from dfdetect.models import model_directory

    detector, described = model_directory.load_detector(
        _DETECTOR.value, step=_STEP.value
    )
    if _SCORE_THRESHOLD.value is not None:
        described["score_threshold"] = _SCORE_THRESHOLD.value
    described["soft_nms_sigma"] = _SOFT_NMS_SIGMA.value
    aside = f"{output}.{secrets.token_hex(4)}.tmp"
    try:
        with writing.errors_told(output):
            os.makedirs(aside)
            _write(detector, described, aside)
            os.rename(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(output)


def _write(detector: Any, described: dict[str, Any], directory: str) -> None:
    """Writes the detector into a new folder, in the format of --format."""
    from dfdetect.export import detector as detector_export

    if _FORMAT.value == "saved_model":
        detector_export.save(detector, described, directory)
    else:
        int8 = _FORMAT.value == "tflite_int8"
        content = detector_export.convert_to_tflite(detector, described, int8)
        files.write(os.path.join(directory, "detector.tflite"), content)
        manifest.write(directory, described)


if __name__ == "__main__":
    script.run_main(main)
