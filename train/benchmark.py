"""Measures how fast the training loop is, for both models at their usual sizes.

    python train/benchmark.py --data_dir=prepared [--models=classifier]

Prints a table: images per second of the loop, the share of its time that it waits for
input, and how much longer one of its steps takes than a bare `train_step` in a Python
loop on a batch that lies ready (the wait for input is not counted).
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable

import keras
import tensorflow as tf
from absl import flags

from dfdetect import (
    classifier_data,
    data,
    detector_data,
    objectives,
    script,
    train_step,
    training,
)
from dfdetect.batches import Batches
from dfdetect.models import classifier, efficientdet
from dfdetect.settings import Settings

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_MODELS = flags.DEFINE_multi_enum(
    "models", ["classifier", "detector"], ["classifier", "detector"], "What to train."
)
_PRECISIONS = flags.DEFINE_multi_enum(
    "precisions",
    ["float32", "mixed_bfloat16"],
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Number formats to train in.",
)
_FACES = flags.DEFINE_string("faces", "labeled_faces", "Data set of the classifier.")
_HEADS = flags.DEFINE_string("heads", "hollywood_heads", "Data set of the detector.")
_CROP_SIZE = flags.DEFINE_integer("crop_size", 299, "Input of the classifier, px.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 512, "Input of the detector, px.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Pictures a step.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 12, "Steps to measure.", lower_bound=2)

Parts = tuple[Callable[[], keras.Model], train_step.LossFunction, Batches]


def main(argv: list[str]) -> None:
    print("| model | precision | images/s | waits for input | loop over bare step |")
    print("|---|---|---|---|---|")
    for name in _MODELS.value:
        for precision in _PRECISIONS.value:
            keras.mixed_precision.set_global_policy(precision)
            parts = _classifier() if name == "classifier" else _detector()
            speed, wait, overhead = _measure(*parts, precision)
            print(
                f"| {name} | {precision} | {speed:.2f} | {100 * wait:.1f} % | "
                f"{100 * overhead:+.1f} % |",
                flush=True,
            )


def _classifier() -> Parts:
    batches = classifier_data.training(
        [data.open_builder(_DATA_DIR.value, _FACES.value)],
        "train",
        _CROP_SIZE.value,
        _BATCH_SIZE.value,
        seed=0,
    )
    build = functools.partial(classifier.build, "xception", _CROP_SIZE.value)
    return build, objectives.classification, batches


def _detector() -> Parts:
    build = functools.partial(efficientdet.EfficientDet, 0, 1, _IMAGE_SIZE.value)
    batches = detector_data.training(
        [data.open_builder(_DATA_DIR.value, _HEADS.value)],
        "train",
        build().anchors,
        _IMAGE_SIZE.value,
        _BATCH_SIZE.value,
        seed=0,
        scales=(0.5, 2.0),
    )
    loss = functools.partial(objectives.detection, batch_size=_BATCH_SIZE.value)
    return build, loss, batches


def _measure(
    build: Callable[[], keras.Model],
    loss: train_step.LossFunction,
    batches: Batches,
    precision: str,
) -> tuple[float, float, float]:
    """Images per second of the loop, share of waiting, and overhead."""
    loop: dict[str, list[float]] = {"training/images_per_second": []}
    loop["training/input_wait_share"] = []
    with tempfile.TemporaryDirectory() as model_dir:
        settings = Settings(
            model_dir,
            steps=3 + _STEPS.value,
            best_metric="none",
            loss_scaling=precision == "mixed_float16",
            eval_every=10**6,
            checkpoint_every=10**6,
            log_every=1,
        )
        model, judged = build(), build()
        training.train(
            model,
            judged,
            loss,
            batches,
            lambda: {"none": 0.0},
            lambda figures: figures,
            settings,
        )
        for path in tf.io.gfile.glob(f"{model_dir}/*tfevents*"):
            for event in tf.compat.v1.train.summary_iterator(path):
                for value in event.summary.value:
                    if value.tag in loop:
                        loop[value.tag].append(float(tf.make_ndarray(value.tensor)))
    # The first steps trace, and fill the buffers.
    seconds = [_BATCH_SIZE.value / s for s in loop["training/images_per_second"][3:]]
    waited = [
        share * took
        for share, took in zip(
            loop["training/input_wait_share"][3:], seconds, strict=True
        )
    ]
    computed = statistics.median(
        took - wait for took, wait in zip(seconds, waited, strict=True)
    )
    bare = statistics.median(_bare_steps(model, loss, batches, settings))
    return (
        _BATCH_SIZE.value * len(seconds) / sum(seconds),
        sum(waited) / sum(seconds),
        computed / bare - 1.0,
    )


def _bare_steps(
    model: keras.Model,
    loss: train_step.LossFunction,
    batches: Batches,
    settings: Settings,
) -> list[float]:
    """Seconds of each step of a loop that does nothing else."""
    strategy = tf.distribute.get_strategy()
    state = train_step.State(model, settings)
    take_step = train_step.make(strategy, state, loss, settings)
    batch = next(iter(batches.from_step(0)))
    took = []
    for step in range(3 + _STEPS.value):
        since = time.perf_counter()
        scalars = take_step(batch, tf.constant(step, tf.int64), tf.constant(0.0))
        float(scalars["loss"])
        took.append(time.perf_counter() - since)
    return took[3:]


if __name__ == "__main__":
    script.run(main)
