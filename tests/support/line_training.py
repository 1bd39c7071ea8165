"""A training script of a tiny model, for the tests of several processes.

python tests/support/line_training.py --model_dir=DIR --strategy=multi_worker --steps=20
"""

import os
import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from dfdetect.data.batches import Batches, ShuffledSource
from dfdetect.models import weights
from dfdetect.training import loop, run_flags

flags.adopt_module_key_flags(run_flags)

_PAUSE = flags.DEFINE_float("pause", 0.0, "Seconds that a step takes at least.")


def main(argv: list[str]) -> None:
    settings, strategy, record = run_flags.start_run(argv, ["nearness"])
    with strategy.scope():
        model = _build()
    report = weights.load_snapshot(model, run_flags.FLAGS.snapshot)
    run_flags.adapt_batch_norms(model, strategy)
    judged = _build()
    random = np.random.default_rng(0)
    inputs = random.normal(size=(40, 8)).astype(np.float32)
    targets = inputs.sum(1, keepdims=True)

    def loss(model, batch):
        tf.py_function(lambda: time.sleep(_PAUSE.value), [], [])
        error = tf.square(model(batch[0], training=True) - batch[1])
        return {"loss": tf.reduce_sum(error)}, tf.cast(tf.size(error), tf.float32)

    def evaluate():
        error = judged(inputs, training=False) - targets
        return {"nearness": -float(np.abs(error).mean())}

    def keep_best(figures):
        weights.save(judged, os.path.join(settings.model_dir, weights.FILE_NAME))
        return figures

    loop.Run(
        model,
        judged,
        loss=loss,
        batches=Batches(
            ShuffledSource(
                tf.data.Dataset.from_tensor_slices((inputs, targets)),
                run_flags.FLAGS.seed,
            ),
            lambda seed, example: example,
            run_flags.FLAGS.batch_size,
            run_flags.FLAGS.seed,
        ),
        evaluate=evaluate,
        keep_best=keep_best,
        settings=settings,
        strategy=strategy,
        record=record,
        evaluate_start=report.is_complete,
    ).train()


def _build() -> keras.Model:
    layers = [
        # A bias would do nothing, but Adam makes steps of its rounding errors.
        keras.layers.Dense(16, use_bias=False, name="wide"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Activation("swish"),
        keras.layers.Dense(1, name="line"),
    ]
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((8,)), *layers])


if __name__ == "__main__":
    run_flags.run_script(main)
