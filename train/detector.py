"""Trains a head detector and keeps the weights best on validation.

    python train/detector.py --data_dir=prepared --dataset=hollywood_heads \
      --model_dir=runs/d0 --phi=0 --image_size=512 --steps=5000 --batch_size=8
"""

import os

import keras
import tensorflow as tf
from absl import app, flags

from dfdetect import data, evaluation, losses, manifest, run_flags, training
from dfdetect.models import efficientdet, weights

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_flags)

_DATASET = flags.DEFINE_string("dataset", "hollywood_heads", "A prepared data set.")
_PHI = flags.DEFINE_integer("phi", 0, "Compound coefficient, 0 to 7.", 0, 7)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side of the input in px, a multiple of 128; that of phi."
)
_WINDOW_SIZE = flags.DEFINE_integer(
    "window_size",
    None,
    "Train on random windows of this side in px, a multiple of 128: heads are as large "
    "as at image_size, but steps are cheaper. image_size by default.",
)
_SCALES = flags.DEFINE_list(
    "scales", ["0.5", "2.0"], "Bounds of the scale jitter; 1 fills image_size."
)
_ANCHOR_SCALE = flags.DEFINE_float(
    "anchor_scale", None, "Side of the smallest anchor in strides; 4, or 5 for D7."
)
_DROP_CONNECT = flags.DEFINE_float(
    "drop_connect_rate", 0.2, "Chance to skip the last residual block of the backbone."
)
_INIT_FROM = flags.DEFINE_string(
    "init_from", None, "Model folder of an earlier run, to start from."
)

flags.mark_flags_as_required(["model_dir", "data_dir"])


def main(argv: list[str]) -> None:
    settings = run_flags.start(argv)
    builder = data.open_builder(FLAGS.data_dir, _DATASET.value)
    # Two models of one set of weights: windows to train on, whole pictures to judge.
    judged = _build(_IMAGE_SIZE.value)
    model = _build(_WINDOW_SIZE.value or judged.image_size)
    print(weights.load_snapshot(model, FLAGS.snapshot))
    if _INIT_FROM.value:
        weights.load(model, _INIT_FROM.value)
    low, high = (float(s) * judged.image_size / model.image_size for s in _SCALES.value)
    validation = data.detector_evaluation(
        builder, "validation", judged.image_size, FLAGS.batch_size
    )

    def evaluate() -> dict[str, float]:
        judged.set_weights(model.get_weights())
        return evaluation.detector_figures(judged, validation)

    def keep_best(figures: dict[str, float]) -> None:
        weights.save(judged, os.path.join(FLAGS.model_dir, weights.FILE_NAME))
        manifest.write(
            FLAGS.model_dir,
            {
                "kind": "detector",
                "phi": judged.phi,
                "image_size": judged.image_size,
                "anchor_scale": judged.anchor_scale,
                "num_classes": judged.num_classes,
                # The graph reports from here on; AP counts lower scores as well.
                "score_threshold": figures["f1_score_threshold"],
                "iou_threshold": 0.5,
                "max_detections": 100,
                "labels": ["head"],
                "data": data.describe(builder),
                "metrics": {"validation": figures},
                "versions": manifest.versions(),
            },
        )

    training.train(
        model,
        _loss,
        lambda step: data.detector_training(
            builder,
            "train",
            model.anchors.boxes,
            model.image_size,
            FLAGS.batch_size,
            FLAGS.seed + step,
            (low, high),
        ),
        evaluate,
        keep_best,
        "ap",
        settings,
    )


def _build(image_size: int | None) -> efficientdet.EfficientDet:
    return efficientdet.EfficientDet(
        phi=_PHI.value,
        num_classes=1,
        image_size=image_size,
        anchor_scale=_ANCHOR_SCALE.value,
        drop_connect_rate=_DROP_CONNECT.value,
    )


def _loss(model: keras.Model, batch: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
    images, class_targets, box_targets = batch
    class_logits, box_offsets = model(images, training=True)
    total, class_loss, box_loss = losses.detection_loss(
        class_logits, box_offsets, class_targets, box_targets
    )
    return {"loss": total, "class_loss": class_loss, "box_loss": box_loss}


if __name__ == "__main__":
    app.run(main)
