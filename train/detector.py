"""Trains a head detector and keeps the weights that validate best.

    python train/detector.py --data_dir=prepared --dataset=hollywood_heads \
      --model_dir=runs/d0 --phi=0 --image_size=512 --steps=5000 --batch_size=8
"""

import functools
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags

from dfdetect import manifest, script
from dfdetect.data import (
    conditions,
    detector_input,
    prepared,
    record_columns,
    record_fields,
    records,
)
from dfdetect.data.batches import Share
from dfdetect.evaluation import detectors, validation_size
from dfdetect.media import resize
from dfdetect.metrics import detection, detection_sets
from dfdetect.models import anchors, efficientdet, weights
from dfdetect.training import (
    distribute,
    held_out,
    loop,
    objectives,
    run_flags,
    tensorboard,
)

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(held_out)

_DATASET = flags.DEFINE_list(
    "dataset",
    ["hollywood_heads"],
    "Prepared data sets, by commas, such as hollywood_heads,labeled_heads/portraits. "
    "Each that has a validation split is validated on by itself; --best_metric is the "
    "mean over those with heads.",
)
_WEIGHTS = flags.DEFINE_list(
    "dataset_weights",
    [],
    "Weights of the data sets in training; by default their sizes.",
)
_MAX_FALSE_BOXES = flags.DEFINE_float(
    "max_false_boxes",
    0.05,
    "Most boxes per image that the score threshold may let pass on validation images "
    "of a data set without heads.",
    lower_bound=0.0,
)
_PHI = flags.DEFINE_integer("phi", 0, "Compound coefficient, 0 to 7.", 0, 7)
_LITE = flags.DEFINE_bool(
    "lite",
    False,
    "Use EfficientDet-Lite of that phi, 0 to 4: no squeeze-and-excitation, ReLU6 for "
    "swish, plain sums.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the input in px, a multiple of 32; by default that of --phi.",
)
_WINDOW_SIZE = flags.DEFINE_integer(
    "window_size",
    None,
    "Train on random windows of this side in px, a multiple of 32: heads are as large "
    "as at --image_size, but steps are cheaper. By default --image_size.",
)
_RANDOM_TRANSFORM = flags.DEFINE_bool(
    "random_transform",
    True,
    "Change training images at random; else they are letterboxed as for evaluation.",
)
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation",
    "light",
    ["light", "ordinary"],
    "light scales, crops, mirrors and colors training images at random. ordinary also "
    "adds borders, rotates by up to 15 degrees, makes one in ten gray, blurs, adds "
    "noise, compresses as JPEG, and pastes closeups onto images without heads.",
)
_SCALES = flags.DEFINE_list(
    "scales", ["0.1", "2.0"], "Bounds of the scale jitter; 1 fills image_size."
)
_MOSAIC = flags.DEFINE_float(
    "mosaic", 0.0, "Chance to join an image with the next three.", 0.0, 1.0
)
_JPEG_QUALITY = flags.DEFINE_list(
    "jpeg_quality",
    [],
    "Bounds of JPEG compression, such as 30,95. By default none, or with "
    "--augmentation=ordinary 30,95 for half of the images.",
)
_ANCHOR_SCALE = flags.DEFINE_float(
    "anchor_scale", None, "Side of the smallest anchor in strides; 4, or 5 for D7."
)
_WEIGHTED_BIFPN = flags.DEFINE_bool(
    "weighted_bifpn", None, "Learned fusion weights; by default up to phi 5."
)
_DROP_CONNECT = flags.DEFINE_float(
    "drop_connect_rate", 0.2, "Chance to skip the last residual block of the backbone."
)
_BN_MOMENTUM = flags.DEFINE_float(
    "bn_momentum", 0.99, "Momentum of the batch norms; lower for short runs."
)
_INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Model folder of an earlier run to start from: its weights must be those of the "
    "model, none missing and none left over. --snapshot is not read.",
)

_COMPUTE_VAL_LOSS = flags.DEFINE_bool(
    "compute_val_loss",
    False,
    "At each evaluation, also compute the loss of the validation images and its parts: "
    "val_loss, val_class_loss and val_box_loss, in TensorBoard beside those of "
    "training. --best_metric=-val_loss then keeps the weights of the lowest.",
)

_SCORE_THRESHOLD = 0.3  # For a detector without validation.
_SHOWN = 16  # Number of validation images in TensorBoard, over all data sets.

flags.mark_flags_as_required(["model_dir", "data_dir"])


@flags.validator(_SCALES, "must be two numbers above 0 that ascend, as 0.1,2")
def _are_scales(texts: list[str]) -> bool:
    bounds = _parse_numbers(float, texts)
    return len(bounds) == 2 and 0 < bounds[0] <= bounds[1] < math.inf


@flags.validator(_JPEG_QUALITY, "must be two whole numbers that ascend within 0 to 100")
def _are_qualities(texts: list[str]) -> bool:
    bounds = _parse_numbers(int, texts)
    return not texts or len(bounds) == 2 and 0 <= bounds[0] <= bounds[1] <= 100


@flags.multi_flags_validator(
    [_DATASET, _WEIGHTS],
    "--dataset must be different names, --dataset_weights a number above 0 for each.",
)
def _are_weights(values: dict[str, Any]) -> bool:
    names, texts = values[_DATASET.name], values[_WEIGHTS.name]
    weights = _parse_numbers(float, texts)
    if not names or len({*names}) < len(names) or len(weights) < len(texts):
        return False
    return len(texts) in (0, len(names)) and all(0 < w < math.inf for w in weights)


@flags.multi_flags_validator(
    [_RANDOM_TRANSFORM, _MOSAIC, _JPEG_QUALITY, _WINDOW_SIZE, _AUGMENTATION],
    "--norandom_transform excludes --mosaic, --jpeg_quality, --window_size and "
    "--augmentation=ordinary.",
)
def _are_changes_wanted(values: dict[str, Any]) -> bool:
    values = {**values, _AUGMENTATION.name: values[_AUGMENTATION.name] != "light"}
    return values.pop(_RANDOM_TRANSFORM.name) or not any(values.values())


def _parse_numbers(kind: type, texts: list[str]) -> list:
    """Converts texts to numbers; nothing if one of them is not a number."""
    try:
        return [kind(text) for text in texts]
    except ValueError:
        return []


def main(argv: list[str]) -> None:
    losses = detectors.DETECTOR_LOSSES if _COMPUTE_VAL_LOSS.value else ()
    builders = [prepared.open_builder(FLAGS.data_dir, name) for name in _DATASET.value]
    settings, strategy = run_flags.start_run(argv, (*detection.METRICS, *losses))
    run_flags.check_data(builders, strategy)
    # Two models of the same weights: for training windows, and for whole images.
    evaluation_model = _build_model(_IMAGE_SIZE.value)
    with strategy.scope():
        model = _build_model(_WINDOW_SIZE.value or evaluation_model.image_size)
    if _INIT_FROM.value:
        start = run_flags.find_starting_weights(_INIT_FROM.value)
        report = weights.load(model, start)
    else:
        start = run_flags.find_starting_weights(FLAGS.snapshot)
        report = weights.load_snapshot(model, start)
    print(report)
    model.backbone.trainable = not FLAGS.freeze_backbone
    run_flags.adapt_batch_norms(model, strategy)
    low, high = (
        float(s) * evaluation_model.image_size / model.image_size for s in _SCALES.value
    )
    jpeg_quality = None
    if _JPEG_QUALITY.value:
        least, most = map(int, _JPEG_QUALITY.value)
        jpeg_quality = (least, most)
    share = distribute.get_share(strategy)
    validation = _load_validation(builders, evaluation_model.image_size, share)
    if distribute.is_chief(strategy):
        _say_sizes([builder for builder, _ in validation.values()])
    detect_function = detectors.build_detect_function(evaluation_model)
    loss_function = detectors.build_loss_function(evaluation_model, FLAGS.batch_size)

    def evaluate() -> dict[str, float]:
        findings = {
            name: _find_heads(detect_function, *each, strategy)
            for name, each in validation.items()
        }
        losses = _measure_losses(
            loss_function, evaluation_model.anchors, builders, strategy
        )
        if not distribute.is_chief(strategy):
            return {}
        _show_detections(
            findings, {n: next(iter(batches)) for n, (_, batches) in validation.items()}
        )
        return detection_sets.evaluate(findings, _MAX_FALSE_BOXES.value) | losses

    def describe(figures: Mapping[str, float]) -> dict[str, Any]:
        return _describe(evaluation_model, builders, figures)

    def keep_best(figures: Mapping[str, float]) -> dict[str, Any]:
        weights.save(evaluation_model, os.path.join(FLAGS.model_dir, weights.FILE_NAME))
        described = describe(figures)
        manifest.write(FLAGS.model_dir, described)
        return described

    loop.Run(
        model,
        evaluation_model,
        loss=functools.partial(objectives.detection, batch_size=FLAGS.batch_size),
        batches=detector_input.build_training_batches(
            builders,
            "train",
            grid=model.anchors,
            image_size=model.image_size,
            batch_size=FLAGS.batch_size,
            seed=FLAGS.seed,
            scales=(low, high),
            augmentation=_AUGMENTATION.value if _RANDOM_TRANSFORM.value else "none",
            mosaic=_MOSAIC.value,
            jpeg_quality=jpeg_quality,
            weights=_parse_numbers(float, _WEIGHTS.value) or None,
            where=[
                conditions.parse_condition(text)
                for text in held_out.training_conditions()
            ],
        ),
        evaluate=evaluate if validation else None,
        keep_best=keep_best,
        settings=settings,
        strategy=strategy,
        describe=describe,
        evaluate_start=report.is_complete,
    ).train()


def _describe(
    model: efficientdet.EfficientDet,
    builders: Sequence[tfds.core.DatasetBuilder],
    figures: Mapping[str, float],
) -> dict[str, Any]:
    """Builds the manifest of the weights of an evaluation."""
    return {
        "kind": "detector",
        "phi": model.phi,
        "lite": model.lite,
        "image_size": model.image_size,
        "anchor_scale": model.anchor_scale,
        "weighted_bifpn": model.weighted_bifpn,
        "num_classes": model.num_classes,
        # The graph reports from this score on; AP counts lower scores as well.
        "score_threshold": figures.get("f1_score_threshold", _SCORE_THRESHOLD),
        "iou_threshold": 0.5,
        "max_detections": 100,
        "labels": ["head"],
        "data": [prepared.describe_dataset(builder) for builder in builders],
        "validation_split": held_out.describe_validation(),
        "metrics": {"validation": figures},
        "versions": manifest.collect_versions(),
    }


def _find_heads(
    detect_function: detectors.Function,
    builder: tfds.core.DatasetBuilder,
    batches: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
) -> detection_sets.Findings:
    """Finds the heads of a data set; each worker judges its share of the batches."""
    with records.naming_damage(builder, held_out.validation_split()):
        found, truth, _ = detectors.collect_detections(detect_function, batches)
    return detectors.gather_detections(strategy, found, truth)


def _measure_losses(
    loss_function: Callable,
    grid: anchors.Anchors,
    builders: Sequence[tfds.core.DatasetBuilder],
    strategy: tf.distribute.Strategy,
) -> dict[str, float]:
    """Computes and shows the validation losses if --compute_val_loss asks for them."""
    if not _COMPUTE_VAL_LOSS.value:
        return {}
    wanted = held_out.validation_split()
    batches = itertools.chain.from_iterable(
        detector_input.build_target_batches(
            builder,
            wanted,
            grid=grid,
            image_size=grid.image_size,
            batch_size=FLAGS.batch_size,
            where=held_out.validation_conditions(),
            share=distribute.get_share(strategy),
        )
        for builder in builders
        if wanted in builder.info.splits
    )
    found = detectors.measure_losses(loss_function, batches, strategy)
    for name, value in found.items():
        tf.summary.scalar(f"training/{name}", value)
    return found


def _build_model(image_size: int | None) -> efficientdet.EfficientDet:
    return efficientdet.EfficientDet(
        phi=_PHI.value,
        num_classes=1,
        image_size=image_size,
        anchor_scale=_ANCHOR_SCALE.value,
        weighted_bifpn=_WEIGHTED_BIFPN.value,
        bn_momentum=_BN_MOMENTUM.value,
        drop_connect_rate=_DROP_CONNECT.value,
        lite=_LITE.value,
    )


def _load_validation(
    builders: Sequence[tfds.core.DatasetBuilder], image_size: int, share: Share
) -> Mapping[str, tuple[tfds.core.DatasetBuilder, tf.data.Dataset]]:
    """Finds the data sets to validate on, by name, each with a worker's batches."""
    found: dict[str, tuple[tfds.core.DatasetBuilder, tf.data.Dataset]] = {}
    wanted = held_out.validation_split()
    where = held_out.validation_conditions()
    if wanted == "none":
        return found
    for builder in builders:
        name, split = prepared.name_dataset(builder), builder.info.splits.get(wanted)
        if split is None or not split.num_examples:
            print(f"{name} has no {wanted} split: it is not validated on.")
            continue
        if not record_fields.choose_records(builder, wanted, where).any():
            print(f"{name} has no group that is held out: it is not validated on.")
            continue
        # A file that is missing or cut short is named here; a changed byte when its
        # record is read.
        record_columns.open_columns(builder, wanted)
        batches = detector_input.build_evaluation_batches(
            builder,
            wanted,
            image_size=image_size,
            batch_size=FLAGS.batch_size,
            where=where,
            share=share,
        )
        found[name] = builder, batches
    if not found:
        raise ValueError(
            f"--dataset must name a set with a {wanted} split, got {_DATASET.value}; "
            "--validation_split takes another split, or none."
        )
    return found


def _say_sizes(builders: Sequence[tfds.core.DatasetBuilder]) -> None:
    """Says how much the validation of each data set can tell."""
    split, where = held_out.validation_split(), held_out.validation_conditions()
    for builder in builders:
        line = validation_size.describe_heads(builder, split, where)
        if line:
            script.say(line)


def _show_detections(
    findings: Mapping[str, detection_sets.Findings],
    firsts: Mapping[str, dict[str, tf.Tensor]],
) -> None:
    """Shows precision and recall, and detections in the first batch of each set."""
    every_found, every_truth = (
        list(itertools.chain.from_iterable(pairs))
        for pairs in zip(*findings.values(), strict=True)
    )
    scores, correct, ignored, num_true = detection.match_all(every_found, every_truth)
    tensorboard.write_detection_curve(scores[~ignored], correct[~ignored], num_true)
    shown, squared, true_boxes = [], [], []
    for name, first in firsts.items():
        found, truth = findings[name]
        count = max(1, _SHOWN // len(firsts))
        extents = first["extents"].numpy()[:count]
        shown.append(first["images"].numpy()[:count])
        squared += [
            (resize.letterbox_boxes(boxes, *extent).numpy(), box_scores)
            for (boxes, box_scores), extent in zip(found, extents, strict=False)
        ]
        true_boxes += [
            resize.letterbox_boxes(boxes, *extent).numpy()
            for (boxes, _), extent in zip(truth, extents, strict=False)
        ]
    tensorboard.write_detections(np.concatenate(shown), squared, true_boxes)


if __name__ == "__main__":
    run_flags.run_script(main)
