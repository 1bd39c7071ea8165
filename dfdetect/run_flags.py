"""The flags that every training script shares, and what a run keeps of them."""

import os
from collections.abc import Sequence

import keras
from absl import app, flags

from dfdetect import files, training

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "model_dir", None, "Folder for checkpoints, events, weights and manifest."
)
flags.DEFINE_string("data_dir", None, "Folder of prepared data sets.")
flags.DEFINE_integer("batch_size", 16, "Pictures a step.", lower_bound=1)
flags.DEFINE_integer("steps", 10_000, "Optimiser steps in all.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Learning rate after the warm-up.")
flags.DEFINE_integer("warmup_steps", 0, "Steps of linear rise.", lower_bound=0)
flags.DEFINE_float("weight_decay", 1e-4, "Decoupled decay of kernels.")
flags.DEFINE_float("clip_norm", 10.0, "Greatest global norm of the gradient.")
flags.DEFINE_integer("eval_every", 500, "Steps between evaluations.", lower_bound=1)
flags.DEFINE_integer("log_every", 50, "Steps between log lines.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.")
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16"],
    "Number format of the layers; weights, logits and losses stay float32.",
)
flags.DEFINE_string(
    "snapshot",
    "none",
    'Where the weights start: "imagenet" (through Keras), "none" (random) or a '
    "weights file or model folder of dfdetect.",
)


def start(argv: Sequence[str]) -> training.Settings:
    """Checks the flags, sets seed and precision, keeps the flags in `flags.txt`.

    Returns:
        What the training loop needs to know.

    Raises:
        app.UsageError: Arguments are left over, or a value is out of range.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    try:
        settings = training.Settings(
            FLAGS.model_dir,
            FLAGS.steps,
            FLAGS.learning_rate,
            FLAGS.warmup_steps,
            FLAGS.weight_decay,
            FLAGS.clip_norm,
            FLAGS.eval_every,
            FLAGS.log_every,
        )
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    keras.utils.set_random_seed(FLAGS.seed)
    keras.mixed_precision.set_global_policy(FLAGS.precision)
    _keep_flags(FLAGS.model_dir, argv[0])
    return settings


def _keep_flags(model_dir: str, script: str) -> None:
    lines = {
        flag.serialize()
        for module in (script, __name__)
        for flag in FLAGS.get_flags_for_module(module)
        if flag.value is not None
    }
    text = "\n".join(sorted(line for line in lines if line)) + "\n"
    files.write(os.path.join(model_dir, "flags.txt"), text.encode())
