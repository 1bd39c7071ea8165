"""Trains a classifier of head crops and keeps the weights that validate best.

    python train/classifier.py --data_dir=prepared --dataset=labeled_faces \
      --model_dir=runs/xception --model=xception --image_size=150 --steps=5000
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags

from dfdetect import labels, manifest, script
from dfdetect.data import (
    classifier_input,
    conditions,
    prepared,
    record_fields,
    self_blending,
)
from dfdetect.data.batches import Batches
from dfdetect.evaluation import classifier_validation, classifiers
from dfdetect.metrics import calibration, classification
from dfdetect.models import classifier, grad_cam, mobilenet, model_directory, weights
from dfdetect.training import (
    classifier_flags,
    distillation,
    distribute,
    held_out,
    label_counts,
    loop,
    objectives,
    run_flags,
    train_step,
)

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(classifier_flags)


_CALIBRATION_CROPS = 128  # Crops that a .tflite snapshot's batch norms are fitted to.


def main(argv: list[str]) -> None:
    builders = [prepared.open_builder(FLAGS.data_dir, name) for name in FLAGS.dataset]
    settings, strategy, record = run_flags.start_run(argv, classification.METRICS)
    run_flags.check_data(builders, strategy, record)

    trained_on = [*FLAGS.where, *held_out.training_conditions()]
    where = [conditions.parse_condition(text) for text in trained_on]
    split = held_out.validation_split()
    validated_on = [conditions.parse_condition(text) for text in FLAGS.where]
    validated_on += held_out.validation_conditions()
    record_fields.check_values(builders, sorted({"train", split} - {"none"}), where)
    natural = FLAGS.sampling == "natural" and not FLAGS.sample_by
    if FLAGS.balance and not (natural and not FLAGS.dataset_weights):
        raise app.UsageError(
            "--balance needs crops as they come, got --sampling, --sample_by or "
            "--dataset_weights, which weigh them already."
        )
    makes_fakes = bool(FLAGS.self_blended) and not natural
    label_counts.check_labels(builders, where, makes_fakes)
    validation = _load_validation(
        builders, split, strategy, where=where, validated_on=validated_on
    )
    if validation is not None and distribute.is_chief(strategy):
        for line in validation.describe_sizes():
            script.say(line)
    batches = _build_batches(builders, where)

    with strategy.scope():
        student, model = _build_models(FLAGS.training_size or FLAGS.image_size)
    report = _load_snapshot(student, batches)
    print(report)
    _freeze(student, report)
    run_flags.adapt_batch_norms(student, strategy)
    run_flags.warn_of_frozen_random(student, report)

    evaluated_student, evaluation_model = _build_models(FLAGS.image_size)
    logits_function = classifiers.build_logits_function(evaluated_student)
    embed = tf.function(classifier.build_embedding_model(evaluated_student))
    heat_maps = grad_cam.build_heat_maps_function(evaluated_student)
    origins = {
        name: _name_origins(builders, where, name) for name in classifier_flags.ORIGINS
    }

    def evaluate() -> Mapping[str, float]:
        assert validation is not None
        return validation.measure(logits_function)

    def describe(figures: Mapping[str, float]) -> dict[str, Any]:
        return {
            **_describe_model(validation),
            "data": [prepared.describe_dataset(builder) for builder in builders],
            "where": trained_on,
            "origins": origins,
            "validation_split": held_out.describe_validation(),
            "metrics": {"validation": figures},
            "versions": manifest.collect_versions(),
        }

    def keep_best(figures: Mapping[str, float]) -> dict[str, Any]:
        path = os.path.join(FLAGS.model_dir, weights.FILE_NAME)
        weights.save(evaluated_student, path)
        described = describe(figures)
        manifest.write(FLAGS.model_dir, described)
        if validation is not None:
            validation.write_embeddings(embed, FLAGS.model_dir, FLAGS.projected)
            validation.write_heat_maps(heat_maps, FLAGS.explained)
        return described

    loop.Run(
        model,
        evaluation_model,
        loss=_build_loss(builders, where),
        batches=batches,
        evaluate=None if validation is None else evaluate,
        keep_best=keep_best,
        settings=settings,
        strategy=strategy,
        record=record,
        describe=describe,
        evaluate_start=report.is_complete,
    ).train()


def _load_validation(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    strategy: tf.distribute.Strategy,
    *,
    where: Sequence[conditions.Condition],
    validated_on: Sequence[conditions.Condition],
) -> classifier_validation.ClassifierValidation | None:
    if split == "none":
        return None
    labeled = classifier_validation.select_labeled_sets(builders, split, validated_on)
    run_flags.check_leaks(
        labeled, split, strategy, where=where, validated_on=validated_on
    )
    return classifier_validation.ClassifierValidation(
        labeled,
        split,
        validated_on,
        image_size=FLAGS.image_size,
        batch_size=FLAGS.batch_size,
        crop_margin=FLAGS.crop_margin,
        strategy=strategy,
    )


def _build_batches(
    builders: Sequence[tfds.core.DatasetBuilder],
    where: Sequence[conditions.Condition],
) -> Batches:
    try:
        dataset_weights = [float(weight) for weight in FLAGS.dataset_weights] or None
    except ValueError as error:
        raise app.UsageError(f"--dataset_weights: {error}") from error
    return classifier_input.build_training_batches(
        builders,
        "train",
        image_size=FLAGS.training_size or FLAGS.image_size,
        batch_size=FLAGS.batch_size,
        seed=FLAGS.seed,
        augmentation=FLAGS.augmentation,
        sampling_mode=FLAGS.sampling,
        weights=dataset_weights,
        self_blended=FLAGS.self_blended,
        crop_margin=FLAGS.crop_margin,
        cache_bytes=FLAGS.cache_megabytes * 10**6,
        sample_by=FLAGS.sample_by,
        where=where,
        level_share=FLAGS.level_share,
        rotated_share=FLAGS.rotated_share,
        gamma_share=FLAGS.gamma_share,
        gray_share=FLAGS.gray_share,
        blending=self_blending.Blending(
            tuple(FLAGS.self_blending_masks), tuple(FLAGS.self_blending_mismatches)
        ),
    )


def _build_models(image_size: int) -> tuple[keras.Model, keras.Model]:
    """Builds the classifier, and the model to train: it alone or with its teacher."""
    student = classifier.build(
        FLAGS.model,
        image_size,
        dropout=FLAGS.dropout,
        bn_momentum=FLAGS.bn_momentum,
        drop_connect_rate=FLAGS.drop_connect_rate,
    )
    if not FLAGS.teacher:
        return student, student
    teacher, described = model_directory.load_classifier(FLAGS.teacher, image_size)
    return student, distillation.build_with_teacher(
        FLAGS.model, student, described["model"], teacher
    )


def _load_snapshot(student: keras.Model, batches: Batches) -> weights.LoadReport:
    if not FLAGS.snapshot.endswith(".tflite"):
        start = run_flags.find_starting_weights(FLAGS.snapshot)
        return weights.load_snapshot(student, start)
    if FLAGS.model not in classifier.TEACHERS:
        raise app.UsageError(f"--snapshot: {FLAGS.model} has no weights in .tflite.")
    first = batches.from_step(0).take(-(-_CALIBRATION_CROPS // FLAGS.batch_size))
    crops = np.concatenate([crops for crops, _ in first])
    mobilenet.load_tflite(student, FLAGS.snapshot, crops)
    keys = tuple(weights.variables(student))
    missing = tuple(key for key in keys if key.startswith(("logits", "pool/")))
    loaded = tuple(key for key in keys if key not in missing)
    return weights.LoadReport(loaded=loaded, missing=missing)


def _freeze(model: keras.Model, report: weights.LoadReport) -> None:
    """Freezes the layers that the flags name, from the input on."""
    last = FLAGS.freeze_through
    if FLAGS.freeze_backbone:
        last = train_step.name_backbone_end(model, report)
    if not last:
        return
    try:
        train_step.freeze_through(model, last)
    except ValueError as error:
        raise app.UsageError(f"--freeze_through: {error}") from error


def _build_loss(
    builders: Sequence[tfds.core.DatasetBuilder],
    where: Sequence[conditions.Condition],
) -> train_step.LossFunction:
    class_weights = [1.0, 1.0]
    if FLAGS.balance:
        class_weights = label_counts.balanced_class_weights(builders, where)
    options: dict[str, Any] = {
        "class_weights": class_weights,
        "label_smoothing": FLAGS.label_smoothing,
    }
    if not FLAGS.teacher:
        return functools.partial(objectives.classification, **options)
    return functools.partial(
        objectives.distilled_classification,
        teacher_weight=FLAGS.teacher_weight,
        **options,
    )


def _describe_model(
    validation: classifier_validation.ClassifierValidation | None,
) -> dict[str, Any]:
    """Builds the part of a manifest that tells how to use the classifier."""
    calibrated = calibration.default_calibration()
    if validation is not None:
        calibrated = validation.calibrate(
            FLAGS.max_false_positive_rate,
            FLAGS.max_false_negative_rate,
            FLAGS.max_source_false_negative_rate,
        )
    return {
        "kind": "classifier",
        "model": FLAGS.model,
        "image_size": FLAGS.image_size,
        "crop_margin": FLAGS.crop_margin,
        **calibrated,
        "labels": list(labels.NAMES),
    }


def _name_origins(
    builders: Sequence[tfds.core.DatasetBuilder],
    where: Sequence[conditions.Condition],
    field: str,
) -> dict[str, list[str]]:
    """Names the makers of fakes and sources of reals that are trained on, by label."""
    found = [record_fields.name_origins(b, "train", where, field) for b in builders]
    return {
        name: sorted({origin for origins in found for origin in origins[name]})
        for name in labels.NAMES
    }


if __name__ == "__main__":
    run_flags.run_script(main)
