"""Trains a classifier of head crops and keeps the weights best on validation.

    python train/classifier.py --data_dir=prepared --dataset=labeled_faces \
      --model_dir=runs/xception --model=xception --image_size=150 --steps=5000
"""

import functools
import os

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags

from dfdetect import (
    calibration,
    data,
    evaluation,
    explain,
    labels,
    manifest,
    objectives,
    run_flags,
    summaries,
    training,
)
from dfdetect.metrics import classification
from dfdetect.models import classifier, weights

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_flags)

_DATASET = flags.DEFINE_string("dataset", "labeled_faces", "A prepared data set.")
_MODEL = flags.DEFINE_enum("model", "xception", classifier.NAMES, "Architecture.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 299, "Side of the crops, px.")
_DROPOUT = flags.DEFINE_float("dropout", 0.5, "Share of pooled features dropped.")
_CROP_MARGIN = flags.DEFINE_float(
    "crop_margin",
    1.3,
    "Side of a crop over the longer side of its head box, as the pictures of the data "
    "set were cut; the graph will cut the same way.",
)

_FREEZE_THROUGH = flags.DEFINE_string(
    "freeze_through",
    None,
    "Layer up to which weights and batch-norm statistics stay as they start.",
)
_BALANCE = flags.DEFINE_bool(
    "balance", False, "Let real and fake crops count the same in all, however many."
)
_AUGMENT = flags.DEFINE_bool("augment", True, "Change the crops at random.")
_PROJECTED = flags.DEFINE_integer(
    "projected", 256, "Validation crops in TensorBoard's projector.", lower_bound=0
)
_EXPLAINED = flags.DEFINE_integer(
    "explained", 64, "Validation crops in TensorBoard's heat maps.", lower_bound=0
)
_BN_MOMENTUM = flags.DEFINE_float(
    "bn_momentum", 0.99, "Of the batch norms' moving statistics; lower for short runs."
)
_MAX_FALSE_POSITIVE_RATE = flags.DEFINE_float(
    "max_false_positive_rate",
    0.1,
    "Most of the real validation crops that the verdict may call fake, in [0, 1).",
    lower_bound=0.0,
    upper_bound=0.999,
)
_MAX_FALSE_NEGATIVE_RATE = flags.DEFINE_float(
    "max_false_negative_rate",
    0.1,
    "Most of the fake validation crops that the verdict may call real, in [0, 1).",
    lower_bound=0.0,
    upper_bound=0.999,
)

flags.mark_flags_as_required(["model_dir", "data_dir"])


def main(argv: list[str]) -> None:
    settings, strategy = run_flags.start(argv, classification.METRICS)
    builder = data.open_builder(FLAGS.data_dir, _DATASET.value)
    with strategy.scope():
        model = _build()
    print(weights.load_snapshot(model, FLAGS.snapshot))
    freeze_through = "pool" if FLAGS.freeze_backbone else _FREEZE_THROUGH.value
    if freeze_through:
        _freeze(model, freeze_through)
    run_flags.adapt(model, strategy)
    judged = _build()
    logits_function = evaluation.logits_function(judged)
    embed = tf.function(classifier.embedding_model(judged))
    heat_maps = explain.heat_maps(judged)
    validation = data.classifier_evaluation(
        builder, "validation", _IMAGE_SIZE.value, FLAGS.batch_size
    )

    latest: list[np.ndarray] = []  # Logits and labels of the latest evaluation.

    def evaluate() -> dict[str, float]:
        latest[:] = logits, truths = evaluation.classifier_logits(
            logits_function, validation
        )
        probabilities = calibration.probability(logits)
        summaries.classification(truths, probabilities)
        return classification.summary(truths, probabilities)

    def keep_best(figures: dict[str, float]) -> dict:
        weights.save(judged, os.path.join(FLAGS.model_dir, weights.FILE_NAME))
        logits, truths = latest
        temperature = calibration.fit_temperature(logits, truths)
        thresholds = calibration.fit_thresholds(
            calibration.probability(logits, temperature),
            truths,
            _MAX_FALSE_POSITIVE_RATE.value,
            _MAX_FALSE_NEGATIVE_RATE.value,
        )
        described = {
            "kind": "classifier",
            "model": _MODEL.value,
            "image_size": _IMAGE_SIZE.value,
            "crop_margin": _CROP_MARGIN.value,
            "temperature": temperature,
            "thresholds": thresholds,
            "labels": list(labels.NAMES),
            "data": data.describe(builder),
            "metrics": {"validation": figures},
            "versions": manifest.versions(),
        }
        manifest.write(FLAGS.model_dir, described)
        _project(embed, validation)
        _explain(heat_maps, validation)
        return described

    training.train(
        model,
        judged,
        functools.partial(
            objectives.classification, class_weights=_class_weights(builder)
        ),
        data.classifier_training(
            builder,
            "train",
            _IMAGE_SIZE.value,
            FLAGS.batch_size,
            FLAGS.seed,
            _AUGMENT.value,
        ),
        evaluate,
        keep_best,
        settings,
        strategy,
    )


def _build() -> keras.Model:
    return classifier.build(
        _MODEL.value, _IMAGE_SIZE.value, _DROPOUT.value, _BN_MOMENTUM.value
    )


def _class_weights(builder: tfds.core.DatasetBuilder) -> list[float]:
    """By label; their mean over the training crops is 1."""
    if not _BALANCE.value:
        return [1.0, 1.0]
    counts = data.count_labels(builder, "train")
    if not all(counts):
        raise ValueError(f"--balance wants real and fake crops, got {counts}.")
    return [sum(counts) / (2 * count) for count in counts]


def _freeze(model: keras.Model, last: str) -> None:
    """Freezes the layers from the input through the one named `last`."""
    names = [layer.name for layer in model.layers]
    if last not in names:
        raise app.UsageError(f"--freeze_through: no layer {last!r} in {names}")
    for layer in model.layers[: names.index(last) + 1]:
        layer.trainable = False


def _project(embed: evaluation.Function, validation: tf.data.Dataset) -> None:
    """Shows the embeddings of the first validation crops in TensorBoard."""
    shown = -(-_PROJECTED.value // FLAGS.batch_size)
    if shown:
        batches = [(x.numpy(), embed(x), y) for x, y in validation.take(shown)]
        crops, vectors, truths = map(np.concatenate, zip(*batches, strict=True))
        names = [labels.NAMES[truth] for truth in truths]
        summaries.embeddings(FLAGS.model_dir, vectors, crops, names)


def _explain(heat_maps: evaluation.Function, validation: tf.data.Dataset) -> None:
    """Shows in TensorBoard where fakes are seen in the first validation crops."""
    shown = -(-_EXPLAINED.value // FLAGS.batch_size)
    if shown:
        batches = [(x, heat_maps(x)["heat_map"], y) for x, y in validation.take(shown)]
        summaries.heat_maps(*map(np.concatenate, zip(*batches, strict=True)))


if __name__ == "__main__":
    run_flags.run(main)
