"""Adds verdicts to the signatures of a served graph.

Who asks a server gets its outputs alone, not the manifest with the thresholds.
"""

from typing import Any

import tensorflow as tf

from dfdetect import labels
from dfdetect.metrics import calibration
from dfdetect.pipeline import chunking

OUTPUT = "verdict"
# The signatures that give a fake probability for each image.
SIGNATURES = ("serving_default", "frames", "classify_crops")


def add_verdict(signature: Any, thresholds: calibration.Thresholds) -> Any:
    """Builds a signature that gives `verdict` besides the outputs of another one.

    `verdict` is string `[B]`: what `calibration.decide_verdict` makes of
    `fake_probability`; "" where nothing was judged.

    Args:
        signature: A concrete function of one batch.
        thresholds: See `calibration.decide_verdict`.

    Returns:
        A concrete function.
    """

    def judge(batch: tf.Tensor) -> chunking.Outputs:
        outputs = signature(batch)
        verdict = _decide_verdicts(outputs["fake_probability"], thresholds)
        return {**outputs, OUTPUT: verdict}

    (spec,), _ = signature.structured_input_signature
    return tf.function(judge, [spec], autograph=False).get_concrete_function()


def _decide_verdicts(
    fake_probability: tf.Tensor, thresholds: calibration.Thresholds
) -> tf.Tensor:
    # As Python compares: thresholds have no float32.
    exact = tf.cast(fake_probability, tf.float64)
    is_real = exact < tf.constant(thresholds["real_below"], tf.float64)
    is_fake = exact >= tf.constant(thresholds["fake_from"], tf.float64)
    verdict = tf.where(is_real, labels.NAMES[labels.REAL], calibration.UNCERTAIN)
    verdict = tf.where(is_fake, labels.NAMES[labels.FAKE], verdict)
    return tf.where(tf.math.is_nan(exact), "", verdict)
