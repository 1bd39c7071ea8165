"""Images that are one head each, judged as they are: no head is looked for."""

from collections.abc import Callable

import tensorflow as tf

from dfdetect.media import image_status
from dfdetect.pipeline import chunking

WHOLE = (0.0, 0.0, 1.0, 1.0)  # The box of the one head, see `boxes`.


def as_detections(
    classify_crops: Callable[[tf.Tensor], chunking.Outputs],
) -> Callable[[tf.Tensor], chunking.Outputs]:
    """Wraps the signature `classify_crops` so that it answers as `serving_default`.

    Args:
        classify_crops: See `deepfake_pipeline.DeepfakePipeline.classify_crops`.

    Returns:
        A function of encoded images, string `[B]`. It gives what
        `deepfake_pipeline.DeepfakePipeline.detect` gives, N being 1: the head of a
        readable image has the box `WHOLE`, the head score NaN, as no detector saw it,
        and the `fake_probability` of the image, unchanged.
    """

    def detect(image_bytes: tf.Tensor) -> chunking.Outputs:
        found = classify_crops(image_bytes)
        probability, status = found["fake_probability"], found["status"]
        is_read = status == image_status.OK
        return {
            "num_heads": tf.cast(is_read, tf.int32),
            "boxes": tf.where(is_read[:, None, None], [[WHOLE]], 0.0),
            "head_scores": tf.where(is_read, float("nan"), 0.0)[:, None],
            "fake_probabilities": tf.where(is_read, probability, 0.0)[:, None],
            "fake_probability": probability,
            "status": status,
        }

    return detect
