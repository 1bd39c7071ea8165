"""Times the detector alone, post-processing included, and its peak memory.

    python serve/benchmark_detector.py [--detector=DIR | --phi=0 --image_size=512]

Prints a table in Markdown with the machine and its load: milliseconds a picture, the
median of the calls and the best of them, for each precision and batch size, each in a
process of its own.
`bfloat16` is Keras's policy mixed_bfloat16. Without a model directory, the weights are
random, and the pictures are noise: suppression has next to nothing to do.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from absl import flags

from dfdetect import machine, script

_DETECTOR = flags.DEFINE_string(
    "detector", None, "Model directory; 'default' for our weights."
)
_PHI = flags.DEFINE_integer("phi", 0, "Of a detector of random weights.", 0, 7)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Alike; that of phi.")
_BATCH_SIZES = flags.DEFINE_multi_integer("batch_sizes", [1, 8], "Pictures at once.")
_PRECISIONS = flags.DEFINE_multi_enum(
    "precisions",
    ["float32", "bfloat16"],
    ["float32", "bfloat16"],
    "Number formats of the convolutions.",
)
_REPEATS = flags.DEFINE_integer("repeats", 10, "Calls to measure.", lower_bound=1)
_CASE = flags.DEFINE_string("case", None, "One precision and batch size; internal.")


def main(argv: list[str]) -> None:
    if _CASE.value is not None:
        precision, batch_size = _CASE.value.split(":")
        print(json.dumps(_measure(precision, int(batch_size))))
        return
    print(f"{machine.description()}; load {os.getloadavg()[0]:.1f}\n")
    print("| precision | batch | ms a picture | at best | peak memory, MiB |")
    print("|---|---|---|---|---|")
    for precision in _PRECISIONS.value:
        for batch_size in _BATCH_SIZES.value:
            case = [*sys.argv, f"--case={precision}:{batch_size}"]
            done = subprocess.run(
                [sys.executable, *case], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise ValueError(done.stderr.strip().splitlines()[-1])
            figures = json.loads(done.stdout.splitlines()[-1])
            shown = " | ".join(f"{figure:.0f}" for figure in figures)
            print(f"| {precision} | {batch_size} | {shown} |", flush=True)


def _measure(precision: str, batch_size: int) -> tuple[float, float, float]:
    """Milliseconds a picture, median and best; peak memory of this process in MiB."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    from dfdetect import heads, model_directory
    from dfdetect.models import efficientdet

    if precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    described = {"iou_threshold": 0.5, "max_detections": 100, "score_threshold": 0.05}
    if _DETECTOR.value is None:
        model = efficientdet.EfficientDet(_PHI.value, 1, _IMAGE_SIZE.value)
        described["image_size"] = model.image_size
    else:
        directory = None if _DETECTOR.value == "default" else _DETECTOR.value
        model, described = model_directory.load_detector(directory)
    detect = heads.detector_function(model, described, described["score_threshold"])
    side = described["image_size"]
    noise = np.random.default_rng(0).integers(0, 256, (batch_size, side, side, 3))
    pictures = tf.constant(noise, tf.float32)
    took = []
    for _ in range(2 + _REPEATS.value):
        since = time.perf_counter()
        detect(pictures)["num_heads"].numpy()
        took.append(1000 * (time.perf_counter() - since) / batch_size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak /= 1024 * (1024 if sys.platform == "darwin" else 1)
    return statistics.median(took[2:]), min(took[2:]), peak


if __name__ == "__main__":
    script.run(main)
