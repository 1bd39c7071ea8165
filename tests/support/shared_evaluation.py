"""Judges prepared data sets as validation does, for the tests of several processes.

python tests/support/shared_evaluation.py --data_dir=DIR --model_dir=DIR --strategy=NAME

Each worker writes what it gets to `worker0.json`, or another number, in --model_dir.
"""

import json
import os
import pathlib

import numpy as np
import tensorflow as tf
from absl import app, flags

from dfdetect.data import detector_input, prepared
from dfdetect.evaluation import classifier_validation, detectors
from dfdetect.training import distribute, run_flags

flags.adopt_module_key_flags(run_flags)

# With a batch of each size: one has fewer batches than there are workers.
_CASES = (("train", 3), ("train", 1), ("validation", 8), ("test", 2))


def main(argv):
    folder, name = run_flags.FLAGS.model_dir, run_flags.FLAGS.strategy
    os.makedirs(folder, exist_ok=True)
    strategy = distribute.build_strategy(name)
    share = distribute.get_share(strategy)
    faces, heads = (
        prepared.open_builder(run_flags.FLAGS.data_dir, name)
        for name in ("labeled_faces", "hollywood_heads")
    )
    found = [
        {
            "classifier": _judge_crops(faces, split, batch_size, strategy),
            "detector": _find_heads(heads, split, batch_size, strategy),
        }
        for split, batch_size in _CASES
    ]
    path = pathlib.Path(folder) / f"worker{share.place}.json"
    path.write_text(json.dumps(found))


def _judge_crops(builder, split, batch_size, strategy):
    counts = []

    def judge(crops):
        counts.append(len(crops))
        return tf.reduce_mean(tf.sin(crops), (1, 2, 3))

    validation = classifier_validation.ClassifierValidation(
        [builder],
        split,
        (),
        image_size=32,
        batch_size=batch_size,
        crop_margin=1.0,
        strategy=strategy,
    )
    figures = validation.measure(judge)
    fitted = validation.calibrate(0.1, 0.1, None) if figures else {}
    return {"figures": figures, "calibration": fitted, "judged": sum(counts)}


def _find_heads(builder, split, batch_size, strategy):
    counts = []

    def find(batch):
        count = len(batch["images"])
        counts.append(count)
        scores = tf.reduce_mean(batch["images"], (1, 2)) / 255  # Three boxes at most.
        boxes = tf.stack([scores, scores / 2, scores + 1, scores * 2], axis=-1)
        heads = tf.range(count) % 3
        return {"boxes": boxes, "scores": scores, "num_heads": heads}

    batches = detector_input.build_evaluation_batches(
        builder,
        split,
        image_size=64,
        batch_size=batch_size,
        share=distribute.get_share(strategy),
    )
    found, truth, _ = detectors.collect_detections(find, batches)
    found, truth = detectors.gather_detections(strategy, found, truth)
    targets = [(tf.reduce_mean(batch["images"]),) for batch in batches]
    losses = detectors.measure_losses(_compute_losses, targets, strategy)
    pairs = [[np.asarray(x).tolist() for x in pair] for pair in (*found, *truth)]
    return {"pairs": pairs, "losses": losses, "judged": sum(counts)}


def _compute_losses(mean):
    return {
        "loss": mean,
        "class_loss": mean / 3,
        "box_loss": mean * 2 / 3,
    }, mean * 0 + 2


if __name__ == "__main__":
    app.run(main)
