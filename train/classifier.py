"""Trains a classifier of head crops and keeps the weights best on validation.

    python train/classifier.py --data_dir=prepared --dataset=labeled_faces \
      --model_dir=runs/xception --model=xception --image_size=150 --steps=5000
"""

import os

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from dfdetect import (
    calibration,
    data,
    evaluation,
    labels,
    manifest,
    run_flags,
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
_BN_MOMENTUM = flags.DEFINE_float(
    "bn_momentum", 0.99, "Of the batch norms' moving statistics; lower for short runs."
)

flags.mark_flags_as_required(["model_dir", "data_dir"])


def main(argv: list[str]) -> None:
    settings = run_flags.start(argv)
    builder = data.open_builder(FLAGS.data_dir, _DATASET.value)
    model = classifier.build(
        _MODEL.value, _IMAGE_SIZE.value, _DROPOUT.value, _BN_MOMENTUM.value
    )
    print(weights.load_snapshot(model, FLAGS.snapshot))
    if _FREEZE_THROUGH.value:
        _freeze(model, _FREEZE_THROUGH.value)
    validation = data.classifier_evaluation(
        builder, "validation", _IMAGE_SIZE.value, FLAGS.batch_size
    )

    judged: list[np.ndarray] = []  # Logits and labels of the latest evaluation.

    def evaluate() -> dict[str, float]:
        judged[:] = logits, truths = evaluation.classifier_logits(model, validation)
        return classification.summary(truths, calibration.probability(logits))

    def keep_best(figures: dict[str, float]) -> None:
        weights.save(model, os.path.join(FLAGS.model_dir, weights.FILE_NAME))
        manifest.write(
            FLAGS.model_dir,
            {
                "kind": "classifier",
                "model": _MODEL.value,
                "image_size": _IMAGE_SIZE.value,
                "crop_margin": _CROP_MARGIN.value,
                "temperature": calibration.fit_temperature(*judged),
                "threshold": 0.5,
                "labels": list(labels.NAMES),
                "data": data.describe(builder),
                "metrics": {"validation": figures},
                "versions": manifest.versions(),
            },
        )

    training.train(
        model,
        _loss,
        lambda step: data.classifier_training(
            builder, "train", _IMAGE_SIZE.value, FLAGS.batch_size, FLAGS.seed + step
        ),
        evaluate,
        keep_best,
        "auc",
        settings,
    )


def _freeze(model: keras.Model, last: str) -> None:
    """Freezes the layers from the input through the one named `last`."""
    names = [layer.name for layer in model.layers]
    if last not in names:
        raise app.UsageError(f"--freeze_through: no layer {last!r} in {names}")
    for layer in model.layers[: names.index(last) + 1]:
        layer.trainable = False


def _loss(
    model: keras.Model, batch: tuple[tf.Tensor, tf.Tensor]
) -> dict[str, tf.Tensor]:
    images, truths = batch
    logits = model(images, training=True)[:, 0]
    losses = tf.nn.sigmoid_cross_entropy_with_logits(
        tf.cast(truths, tf.float32), tf.cast(logits, tf.float32)
    )
    right = tf.equal(logits > 0, truths == labels.FAKE)
    return {
        "loss": tf.reduce_mean(losses),
        "accuracy": tf.reduce_mean(tf.cast(right, tf.float32)),
    }


if __name__ == "__main__":
    app.run(main)
