"""Measures a training: its loop, and its input beside plain ones.

    python train/benchmark.py --data_dir=prepared [--parts=classifier_input]

Prints a table for each of `--parts`:

* `classifier`, `detector`: images per second of the loop at their usual sizes, the
  share of its time that it waits for input, and how much longer one of its steps takes
  than a bare training step in a Python loop on a ready batch (without the wait).
* `classifier_input`: seconds to the first batch, and images a second, of ours with each
  augmentation, and beside them of a plain pipeline of `tf.data` and `tf.image` that
  shuffles, decodes and resizes, without and with random crops, mirroring and colors.
* `detector_input`: images per second of the detector's input, and of images that are
  only decoded and padded.

Inputs are measured in turns; CPU time counts where a machine has other work. The start
on many records is measured by `train/benchmark_starts.py`.
"""

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import cv2
import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags

from dfdetect import script
from dfdetect.data import classifier_input, detector_input, prepared, record_columns
from dfdetect.data.batches import Batches
from dfdetect.media import decode, resize
from dfdetect.models import anchors, classifier, efficientdet
from dfdetect.training import fused_batch_norm, loop, objectives, train_step
from dfdetect.training.settings import Settings

_ALL_PARTS = ["classifier", "detector", "classifier_input", "detector_input"]

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_PARTS = flags.DEFINE_list(
    "parts", _ALL_PARTS, f"What to measure, of {', '.join(_ALL_PARTS)}."
)
_PRECISIONS = flags.DEFINE_multi_enum(
    "precisions",
    ["float32", "mixed_bfloat16"],
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Number formats to train in.",
)
_AUGMENTATIONS = flags.DEFINE_list(
    "augmentations",
    [],
    "Augmentations of an input; by default none, light and forensic of the "
    "classifier's, light and ordinary of the detector's.",
)
_FACES = flags.DEFINE_string("faces", "labeled_faces", "Data set of the classifier.")
_HEADS = flags.DEFINE_list(
    "heads", ["hollywood_heads"], "Data sets of the detector, separated by commas."
)
_MODEL = flags.DEFINE_enum(
    "model", "xception", classifier.NAMES, "Architecture of the classifier."
)
_CROP_SIZE = flags.DEFINE_integer("crop_size", 299, "Input of the classifier, px.", 16)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 512, "Input of the detector, px.")
_LITE = flags.DEFINE_bool(
    "lite", False, "Measure EfficientDet-Lite0 instead of EfficientDet-D0."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images per step; by default 8, of classifier_input 32.", 1
)
_STEPS = flags.DEFINE_integer("steps", 12, "Steps to measure.", lower_bound=2)

_ROUNDS = 3

Setup = tuple[Callable[[], keras.Model], train_step.LossFunction, Batches]


@flags.validator(_PARTS, f"must be of {', '.join(_ALL_PARTS)}")
def _are_parts(names: list[str]) -> bool:
    return {*names} <= {*_ALL_PARTS}


def main(argv: list[str]) -> None:
    cv2.setNumThreads(0)  # As in a training, see `run_flags.start_run`.
    tf.constant(1.0) + 1.0  # Starts TensorFlow.
    loops = [name for name in ("classifier", "detector") if name in _PARTS.value]
    if loops:
        _print_loops(loops)
    if "classifier_input" in _PARTS.value:
        _print_classifier_input()
    if "detector_input" in _PARTS.value:
        _print_detector_input()


def _batch_size(default: int) -> int:
    return _BATCH_SIZE.value or default


# --- The loop ---


def _print_loops(models: Sequence[str]) -> None:
    print("| model | precision | images/s | waits for input | loop over bare step |")
    print("|---|---|---|---|---|")
    for name in models:
        for precision in _PRECISIONS.value:
            keras.mixed_precision.set_global_policy(precision)
            setup = _build_classifier() if name == "classifier" else _build_detector()
            speed, wait, overhead = _measure(*setup, precision)
            print(
                f"| {name} | {precision} | {speed:.2f} | {100 * wait:.1f} % | "
                f"{100 * overhead:+.1f} % |",
                flush=True,
            )


def _build_classifier() -> Setup:
    batches = classifier_input.build_training_batches(
        [prepared.open_builder(_DATA_DIR.value, _FACES.value)],
        "train",
        image_size=_CROP_SIZE.value,
        batch_size=_batch_size(8),
        seed=0,
    )
    build = functools.partial(classifier.build, _MODEL.value, _CROP_SIZE.value)
    return build, objectives.classification, batches


def _build_detector() -> Setup:
    build = functools.partial(
        efficientdet.EfficientDet, 0, 1, _IMAGE_SIZE.value, lite=_LITE.value
    )
    batches = _build_detector_batches("light", (0.5, 2.0))
    loss = functools.partial(objectives.detection, batch_size=_batch_size(8))
    return build, loss, batches


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
        fused_batch_norm.fuse_batch_norms(model)  # As all trainings do.
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
    # The first steps trace, and fill the buffers; the very first logs no speed.
    seconds = [_batch_size(8) / s for s in logged["training/images_per_second"][2:]]
    waited = [
        share * took
        for share, took in zip(
            logged["training/input_wait_share"][2:], seconds, strict=True
        )
    ]
    computed = statistics.median(
        took - wait for took, wait in zip(seconds, waited, strict=True)
    )
    bare = statistics.median(_time_bare_steps(model, loss, batches, settings))
    return (
        _batch_size(8) * len(seconds) / sum(seconds),
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


# --- The input ---


def _build_detector_batches(augmentation: str, scales: tuple[float, float]) -> Batches:
    return detector_input.build_training_batches(
        [prepared.open_builder(_DATA_DIR.value, name) for name in _HEADS.value],
        "train",
        grid=anchors.Anchors(_IMAGE_SIZE.value),
        image_size=_IMAGE_SIZE.value,
        batch_size=_batch_size(8),
        seed=0,
        scales=scales,
        augmentation=augmentation,
    )


def _print_detector_input() -> None:
    """Prints images per second of the detector's input, and of decoding and padding."""
    kinds = {
        name: _build_detector_batches(name, (0.25, 1.3))
        for name in _AUGMENTATIONS.value or ("light", "ordinary")
    }
    plain = dataclasses.replace(next(iter(kinds.values())), prepare=_decode_and_pad)
    streams = {
        name: batches.from_step(0)
        for name, batches in (("decode and pad", plain), *kinds.items())
    }
    _print_speeds("detector input", streams, "decode and pad", _batch_size(8))


def _decode_and_pad(seed: tf.Tensor, example: dict, *_: dict) -> tf.Tensor:
    """Does the least that any input does, without a resize."""
    size = _IMAGE_SIZE.value
    image = decode.decode_image(example["image"])[:size, :size]
    return resize.pad_to_square(image, size)


def _print_classifier_input() -> None:
    """Prints first batches and speeds of the classifier's input, and of plain ones."""
    builder = prepared.open_builder(_DATA_DIR.value, _FACES.value)
    kinds: dict[str, Callable[[], tf.data.Dataset]] = {
        "plain": lambda: _build_plain(builder, augmented=False),
        "plain, augmented": lambda: _build_plain(builder, augmented=True),
    }
    for name in _AUGMENTATIONS.value or ("none", "light", "forensic"):
        kinds[name] = functools.partial(_build_ours, builder, name)
    record_columns.write_columns(builder)  # As `prepare` does.
    streams = {}
    print("\n| classifier input | first batch, s | CPU s |\n|---|---|---|")
    for name, build in kinds.items():
        since, cpu_since = time.perf_counter(), time.process_time()
        streams[name] = build()
        next(iter(streams[name]))
        took, cost = time.perf_counter() - since, time.process_time() - cpu_since
        print(f"| {name} | {took:.2f} | {cost:.2f} |", flush=True)
    _print_speeds("classifier input", streams, "plain, augmented", _batch_size(32))


def _print_speeds(
    title: str,
    streams: Mapping[str, tf.data.Dataset],
    reference: str,
    batch_size: int,
) -> None:
    """Prints how fast streams of batches are, and what a reference costs over each."""
    seconds, cpu_seconds = dict.fromkeys(streams, 0.0), dict.fromkeys(streams, 0.0)
    for _ in range(_ROUNDS):  # In turns: the machine may be busy at times.
        for name, stream in streams.items():
            # Each by itself, as what is prefetched would count for the next one.
            iterator = iter(stream)
            for _ in range(4):
                next(iterator)
            since, cpu_since = time.perf_counter(), time.process_time()
            for _ in range(_STEPS.value):
                next(iterator)
            seconds[name] += time.perf_counter() - since
            cpu_seconds[name] += time.process_time() - cpu_since
            del iterator
    images = _ROUNDS * _STEPS.value * batch_size
    print(f"\n| {title} | images/s | CPU ms an image | {reference}, over it |")
    print("|---|---|---|---|")
    for name, took in seconds.items():
        cost = 1000 * cpu_seconds[name] / images
        share = cpu_seconds[reference] / cpu_seconds[name]
        print(f"| {name} | {images / took:.0f} | {cost:.2f} | {share:.2f} |")


def _build_ours(builder: tfds.core.DatasetBuilder, name: str) -> tf.data.Dataset:
    return classifier_input.build_training_batches(
        [builder],
        "train",
        image_size=_CROP_SIZE.value,
        batch_size=_batch_size(32),
        seed=0,
        augmentation=name,
    ).from_step(0)


def _build_plain(builder: tfds.core.DatasetBuilder, augmented: bool) -> tf.data.Dataset:
    """Builds what a user would write without this package."""
    size = _CROP_SIZE.value

    def prepare(example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(example["image"], 3, expand_animations=False)
        if augmented:
            start, extent, _ = tf.image.sample_distorted_bounding_box(
                tf.shape(image),
                tf.zeros([1, 0, 4]),
                aspect_ratio_range=(8 / 9, 9 / 8),
                area_range=(0.7, 1.0),
                use_image_if_no_bounding_boxes=True,
            )
            image = tf.slice(image, start, extent)
        image.set_shape([None, None, 3])
        image = tf.image.resize(image, [size, size], antialias=True)
        if augmented:
            image = tf.image.random_flip_left_right(image)
            image = tf.image.random_brightness(image, 51.0)
            image = tf.image.random_contrast(image, 0.8, 1.2)
            image = tf.clip_by_value(image, 0.0, 255.0)
            image = tf.image.random_saturation(image, 0.8, 1.2)
        return image, example["label"]

    examples = builder.as_dataset(
        split="train",
        shuffle_files=True,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    shuffled = examples.shuffle(4000).repeat().map(prepare, tf.data.AUTOTUNE)
    return shuffled.batch(_batch_size(32)).prefetch(2)


if __name__ == "__main__":
    script.run_main(main)
