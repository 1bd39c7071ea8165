"""The models of a graph as functions, each traced once for all signatures."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dfdetect.models import classifier as classifiers
from dfdetect.models import content_embedding, grad_cam
from dfdetect.pipeline import chunking, head_detection

# Images or crops, float32 `[B, S, S, 3]`, to outputs `[B, ...]`.
Function = Callable[[tf.Tensor], chunking.Outputs]


@dataclasses.dataclass(frozen=True)
class ModelFunctions:
    """What a graph calls of its models.

    Attributes:
        find_heads: Of letterboxed images, see `head_detection.detector_function`.
        judge: Crops to their `fake_probability` `[B]`.
        describe: By the kind of embedding, crops to `embedding` float32 `[B, D]` of
            unit length.
        dimensions: D by the kind of embedding.
        explain: Crops to `heat_map` `[B, S, S]` and `fake_probability` `[B]`.
    """

    find_heads: Function
    judge: Function
    describe: dict[str, Function]
    dimensions: dict[str, int]
    explain: Function


def of(
    detector: keras.Model, classifier: keras.Model, description: dict[str, Any]
) -> ModelFunctions:
    """Makes the functions of two models.

    Args:
        detector: See `deepfake_pipeline.DeepfakePipeline`.
        classifier: Alike.
        description: Manifest of kind "pipeline".
    """
    described = description["classifier"]
    size = described["image_size"]
    forgery = classifiers.build_embedding_model(classifier)
    content_of, content_size = content_embedding.build_embedder(classifier)
    heat_maps = grad_cam.build_heat_maps_function(classifier)

    def probability(logits: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(logits / described["temperature"])

    def judge(crops: tf.Tensor) -> chunking.Outputs:
        logits = classifier(crops, training=False)[:, 0]
        return {"fake_probability": probability(logits)}

    def forgery_of(crops: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(forgery(crops, training=False), -1)

    def show(crops: tf.Tensor) -> chunking.Outputs:
        found = heat_maps(crops)
        return {
            "heat_map": found["heat_map"],
            "fake_probability": probability(found["fake_logit"]),
        }

    def traced_once(function: Function) -> Function:
        # There is no Python control flow to convert, and looking for it takes seconds.
        spec = tf.TensorSpec([None, size, size, 3], tf.float32)
        return tf.function(function, input_signature=[spec], autograph=False)

    return ModelFunctions(
        find_heads=head_detection.detector_function(
            detector,
            detector_settings(description),
            description["detector"]["score_threshold"],
        ),
        judge=traced_once(judge),
        describe={
            "forgery": traced_once(lambda crops: {"embedding": forgery_of(crops)}),
            "content": traced_once(lambda crops: {"embedding": content_of(crops)}),
        },
        dimensions={"forgery": forgery.output_shape[-1], "content": content_size},
        explain=traced_once(show),
    )


def detector_settings(description: dict[str, Any]) -> dict[str, Any]:
    """The detector's manifest, but for what the pipeline decides of it."""
    return {
        **description["detector"],
        "max_detections": description["max_detections"],
    }
