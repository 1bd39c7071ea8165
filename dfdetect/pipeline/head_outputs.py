"""Outputs of the graph for the heads of a batch of images, padded to the most heads."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dfdetect.pipeline import chunking, head_detection

# What every signature that finds heads says of them.
OF_ALL_SIGNATURES = ("num_heads", "boxes", "status")


def describe_outputs(num_boxes: int) -> dict[str, tf.TensorSpec]:
    """Returns the specs of the outputs of `DeepfakePipeline.detect`.

    Args:
        num_boxes: Most heads of an image.
    """
    return {
        "num_heads": tf.TensorSpec([None], tf.int32),
        "boxes": tf.TensorSpec([None, num_boxes, 4]),
        "head_scores": tf.TensorSpec([None, num_boxes]),
        "fake_probabilities": tf.TensorSpec([None, num_boxes]),
        "fake_probability": tf.TensorSpec([None]),
        "status": tf.TensorSpec([None], tf.int32),
    }


def build_verdicts(
    found: head_detection.FoundHeads, probabilities: tf.Tensor
) -> chunking.Outputs:
    """Builds the outputs of `DeepfakePipeline.detect`.

    Args:
        found: The heads.
        probabilities: float32 `[K]`, the fake probabilities of the judged heads, in
            order.
    """
    of_heads = tf.tensor_scatter_nd_update(
        tf.where(found.is_head, float("nan"), 0.0),
        tf.where(found.judged),
        probabilities,
    )
    highest = tf.reduce_max(tf.where(found.judged, of_heads, 0.0), axis=1)
    any_judged = tf.reduce_any(found.judged, axis=1)
    highest = tf.where(any_judged, highest, float("nan"))
    return {
        **_describe_heads(found),
        "head_scores": found.scatter_to_batch(found.scores),
        "fake_probabilities": found.scatter_to_batch(of_heads),
        "fake_probability": found.scatter_to_batch(highest, float("nan")),
    }


def build_neighbours(
    found: head_detection.FoundHeads,
    searched: Mapping[str, tf.Tensor],
    nothing: Mapping[str, Any],
) -> chunking.Outputs:
    """Builds the outputs of the signature `neighbours`.

    Args:
        found: The heads.
        searched: What the index found for the judged heads, `[K, ...]`, by output.
        nothing: Value of each output for a head that was not judged, and as padding.
    """
    outputs = _describe_heads(found)
    for name, value in searched.items():
        shape = tf.concat([tf.shape(found.judged), tf.shape(value)[1:]], 0)
        of_heads = tf.tensor_scatter_nd_update(
            tf.fill(shape, tf.constant(nothing[name], value.dtype)),
            tf.where(found.judged),
            value,
        )
        outputs[name] = found.scatter_to_batch(of_heads, nothing[name])
    return outputs


def _describe_heads(found: head_detection.FoundHeads) -> chunking.Outputs:
    """Returns the outputs `OF_ALL_SIGNATURES`."""
    return {
        "num_heads": found.scatter_to_batch(found.num_heads),
        "boxes": found.scatter_to_batch(found.boxes),
        "status": found.compute_status(),
    }
