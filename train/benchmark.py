"""Measures how fast the training loop is, for both models at their usual sizes.

    python train/benchmark.py --data_dir=prepared [--models=classifier]

Prints a table: images per second of the loop, the share of its time that it waits for
input, and how much longer one of its steps takes than a bare training step in a Python
loop on a ready batch (without the wait for input).

`--models=detector_input` prints another one: images per second of the detector's input
alone, and of images that are only decoded and padded, measured in turns.
"""

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import keras
import tensorflow as tf
from absl import flags

from dfdetect import script
from dfdetect.data import classifier_input, detector_input, prepared
from dfdetect.data.batches import Batches
from dfdetect.media import decode, resize
from dfdetect.models import anchors, classifier, efficientdet
from dfdetect.training import loop, objectives, train_step
from dfdetect.training.settings import Settings

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_MODELS = flags.DEFINE_multi_enum(
    "models",
    ["classifier", "detector"],
    ["classifier", "detector", "detector_input"],
    "Models to train, or detector_input for the detector's input alone.",
)
_PRECISIONS = flags.DEFINE_multi_enum(
    "precisions",
    ["float32", "mixed_bfloat16"],
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Number formats to train in.",
)
_AUGMENTATIONS = flags.DEFINE_multi_enum(
    "augmentations",
    ["light", "ordinary"],
    detector_input.AUGMENTATIONS,
    "Augmentations of --models=detector_input.",
)
_FACES = flags.DEFINE_string("faces", "labeled_faces", "Data set of the classifier.")
_HEADS = flags.DEFINE_list(
    "heads", ["hollywood_heads"], "Data sets of the detector, separated by commas."
)
_CROP_SIZE = flags.DEFINE_integer("crop_size", 299, "Input of the classifier, px.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 512, "Input of the detector, px.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images per step.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 12, "Steps to measure.", lower_bound=2)

Parts = tuple[Callable[[], keras.Model], train_step.LossFunction, Batches]


def main(argv: list[str]) -> None:
    models = [name for name in _MODELS.value if name != "detector_input"]
    if len(models) < len(_MODELS.value):
        _print_input_speeds()
    if not models:
        return
    print("| model | precision | images/s | waits for input | loop over bare step |")
    print("|---|---|---|---|---|")
    for name in models:
        for precision in _PRECISIONS.value:
            keras.mixed_precision.set_global_policy(precision)
            parts = _build_classifier() if name == "classifier" else _build_detector()
            speed, wait, overhead = _measure(*parts, precision)
            print(
                f"| {name} | {precision} | {speed:.2f} | {100 * wait:.1f} % | "
                f"{100 * overhead:+.1f} % |",
                flush=True,
            )


def _build_classifier() -> Parts:
    batches = classifier_input.build_training_batches(
        [prepared.open_builder(_DATA_DIR.value, _FACES.value)],
        "train",
        image_size=_CROP_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        seed=0,
    )
    build = functools.partial(classifier.build, "xception", _CROP_SIZE.value)
    return build, objectives.classification, batches


def _build_detector() -> Parts:
    build = functools.partial(efficientdet.EfficientDet, 0, 1, _IMAGE_SIZE.value)
    batches = _build_detector_batches("light", (0.5, 2.0))
    loss = functools.partial(objectives.detection, batch_size=_BATCH_SIZE.value)
    return build, loss, batches


def _build_detector_batches(augmentation: str, scales: tuple[float, float]) -> Batches:
    return detector_input.build_training_batches(
        [prepared.open_builder(_DATA_DIR.value, name) for name in _HEADS.value],
        "train",
        grid=anchors.Anchors(_IMAGE_SIZE.value),
        image_size=_IMAGE_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        seed=0,
        scales=scales,
        augmentation=augmentation,
    )


def _print_input_speeds() -> None:
    """Prints images per second of the detector's input, and of decoding and padding."""
    kinds = {
        name: _build_detector_batches(name, (0.25, 1.3))
        for name in _AUGMENTATIONS.value
    }
    plain = dataclasses.replace(next(iter(kinds.values())), prepare=_decode_and_pad)
    streams = {
        name: iter(batches.from_step(0))
        for name, batches in (("decode and pad", plain), *kinds.items())
    }
    for stream in streams.values():
        for _ in range(4):  # Prefetched ones, and the first of a stream.
            next(stream)
    seconds, cpu_seconds = dict.fromkeys(streams, 0.0), dict.fromkeys(streams, 0.0)
    for _ in range(_STEPS.value):  # In turns: the machine may be busy at times.
        for name, stream in streams.items():
            # Batches prefetched while another stream was measured do not count.
            cpu_since = time.process_time()
            for _ in range(3):
                next(stream)
            since = time.perf_counter()
            for _ in range(4):
                next(stream)
            seconds[name] += time.perf_counter() - since
            cpu_seconds[name] += time.process_time() - cpu_since
    num_images = _STEPS.value * _BATCH_SIZE.value
    speeds = {name: 4 * num_images / took for name, took in seconds.items()}
    print("| detector input | images/s | of decode and pad | CPU ms an image |")
    print("|---|---|---|---|")
    for name, speed in speeds.items():
        share = speed / speeds["decode and pad"]
        cost = 1000 * cpu_seconds[name] / (7 * num_images)
        print(f"| {name} | {speed:.1f} | {share:.2f} | {cost:.1f} |", flush=True)


def _decode_and_pad(seed: tf.Tensor, example: dict, *_: dict) -> tf.Tensor:
    """Does the least that any input does, without a resize."""
    size = _IMAGE_SIZE.value
    image = decode.decode_image(example["image"])[:size, :size]
    return resize.pad_to_square(image, size)


def _measure(
    build: Callable[[], keras.Model],
    loss: train_step.LossFunction,
    batches: Batches,
    precision: str,
) -> tuple[float, float, float]:
    """Measures images per second of the loop, share of waiting, and overhead."""
    logged: dict[str, list[float]] = {
        "training/images_per_second": [],
        "training/input_wait_share": [],
    }
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
        model = build()
        loop.Run(
            model,
            build(),
            loss=loss,
            batches=batches,
            evaluate=lambda: {"none": 0.0},
            keep_best=lambda figures: figures,
            settings=settings,
        ).train()
        for path in tf.io.gfile.glob(f"{model_dir}/*tfevents*"):
            for event in tf.compat.v1.train.summary_iterator(path):
                for value in event.summary.value:
                    if value.tag in logged:
                        logged[value.tag].append(float(tf.make_ndarray(value.tensor)))
    # The first steps trace, and fill the buffers.
    seconds = [_BATCH_SIZE.value / s for s in logged["training/images_per_second"][3:]]
    waited = [
        share * took
        for share, took in zip(
            logged["training/input_wait_share"][3:], seconds, strict=True
        )
    ]
    computed = statistics.median(
        took - wait for took, wait in zip(seconds, waited, strict=True)
    )
    bare = statistics.median(_time_bare_steps(model, loss, batches, settings))
    return (
        _BATCH_SIZE.value * len(seconds) / sum(seconds),
        sum(waited) / sum(seconds),
        computed / bare - 1.0,
    )


def _time_bare_steps(
    model: keras.Model,
    loss: train_step.LossFunction,
    batches: Batches,
    settings: Settings,
) -> list[float]:
    """Measures the seconds of each step of a loop that does nothing else."""
    strategy = tf.distribute.get_strategy()
    state = train_step.State(model, settings)
    take_step = train_step.build_train_step(strategy, state, loss, settings)
    batch = next(iter(batches.from_step(0)))
    took = []
    for step in range(3 + _STEPS.value):
        since = time.perf_counter()
        scalars = take_step(batch, tf.constant(step, tf.int64), tf.constant(0.0))
        float(scalars["loss"])
        took.append(time.perf_counter() - since)
    return took[3:]


if __name__ == "__main__":
    script.run_main(main)
