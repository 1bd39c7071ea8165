"""Trains a head detector and keeps the weights that validate best.

    python train/detector.py --data_dir=prepared --dataset=hollywood_heads \
      --model_dir=runs/d0 --phi=0 --image_size=512 --steps=5000 --batch_size=8
"""

import functools
import itertools
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
from dfdetect.data.batches import Batches, Share
from dfdetect.evaluation import detectors, validation_size
from dfdetect.media import resize
from dfdetect.metrics import detection, detection_sets
from dfdetect.models import anchors, efficientdet, weights
from dfdetect.training import (
    detector_flags,
    distribute,
    held_out,
    loop,
    objectives,
    run_flags,
    tensorboard,
)

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(detector_flags)


_SCORE_THRESHOLD = 0.3  # For a detector without validation.
_SHOWN = 16  # Number of validation images in TensorBoard, over all data sets.


def main(argv: list[str]) -> None:
    losses = detectors.DETECTOR_LOSSES if FLAGS.compute_val_loss else ()
    builders = [prepared.open_builder(FLAGS.data_dir, name) for name in FLAGS.dataset]
    metrics = (*detection.METRICS, *losses)
    settings, strategy, record = run_flags.start_run(argv, metrics)
    run_flags.check_data(builders, strategy, record)
    _check_leaks(builders, strategy)
    # Two models of the same weights: for training windows, and for whole images.
    evaluation_model = _build_model(FLAGS.image_size)
    with strategy.scope():
        model = _build_model(FLAGS.window_size or evaluation_model.image_size)
    report = _load_weights(model)
    print(report)
    model.backbone.trainable = not FLAGS.freeze_backbone
    run_flags.adapt_batch_norms(model, strategy)
    run_flags.warn_of_frozen_random(model, report)
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
        return detection_sets.evaluate(findings, FLAGS.max_false_boxes) | losses

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
        batches=_build_batches(model, builders, evaluation_model.image_size),
        evaluate=evaluate if validation else None,
        keep_best=keep_best,
        settings=settings,
        strategy=strategy,
        record=record,
        describe=describe,
        evaluate_start=report.is_complete,
    ).train()


def _trained_on() -> list[conditions.Condition]:
    texts = held_out.training_conditions()
    return [conditions.parse_condition(text) for text in texts]


def _check_leaks(
    builders: Sequence[tfds.core.DatasetBuilder], strategy: tf.distribute.Strategy
) -> None:
    """Checks the data sets that are validated on."""
    split = held_out.validation_split()
    run_flags.check_leaks(
        [builder for builder in builders if split in builder.info.splits],
        split,
        strategy,
        where=_trained_on(),
        validated_on=held_out.validation_conditions(),
    )


def _load_weights(model: efficientdet.EfficientDet) -> weights.LoadReport:
    if FLAGS.init_from:
        start = run_flags.find_starting_weights(FLAGS.init_from)
        return weights.load(model, start)
    start = run_flags.find_starting_weights(FLAGS.snapshot)
    return weights.load_snapshot(model, start)


def _build_batches(
    model: efficientdet.EfficientDet,
    builders: Sequence[tfds.core.DatasetBuilder],
    whole_size: int,
) -> Batches:
    """Builds training windows, in which heads are as large as at `whole_size`."""
    low, high = (float(s) * whole_size / model.image_size for s in FLAGS.scales)
    jpeg_quality = None
    if FLAGS.jpeg_quality:
        least, most = map(int, FLAGS.jpeg_quality)
        jpeg_quality = (least, most)
    return detector_input.build_training_batches(
        builders,
        "train",
        grid=model.anchors,
        image_size=model.image_size,
        batch_size=FLAGS.batch_size,
        seed=FLAGS.seed,
        scales=(low, high),
        augmentation=FLAGS.augmentation if FLAGS.random_transform else "none",
        mosaic=FLAGS.mosaic,
        jpeg_quality=jpeg_quality,
        gray_share=FLAGS.gray_share,
        weights=[float(weight) for weight in FLAGS.dataset_weights] or None,
        where=_trained_on(),
    )


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
    if not FLAGS.compute_val_loss:
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
        phi=FLAGS.phi,
        num_classes=1,
        image_size=image_size,
        anchor_scale=FLAGS.anchor_scale,
        weighted_bifpn=FLAGS.weighted_bifpn,
        bn_momentum=FLAGS.bn_momentum,
        drop_connect_rate=FLAGS.drop_connect_rate,
        lite=FLAGS.lite,
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
    if not found and where:
        raise ValueError(
            "--dataset must name a set with groups to hold out (the field group), got "
            f"{FLAGS.dataset}."
        )
    if not found:
        raise ValueError(
            f"--dataset must name a set with a {wanted} split, got {FLAGS.dataset}; "
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
