"""The models of a graph as functions that are traced once for all signatures."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from dfdetect.models import classifier as classifiers
from dfdetect.models import content_embedding, grad_cam
from dfdetect.pipeline import chunking, detector_settings, head_detection

# From images or crops, float32 `[B, S, S, 3]`, to outputs `[B, ...]`.
Function = Callable[[tf.Tensor], chunking.Outputs]


@dataclasses.dataclass(frozen=True)
class ModelFunctions:
    """The functions of its models that a graph calls.

    Attributes:
        find_heads: From letterboxed images to heads, see
            `head_detection.build_detector_function`.
        judge: From crops to their `fake_probability` `[B]`.
        describe: By the kind of embedding, from crops to `embedding` float32 `[B, D]`
            of unit length.
        dimensions: By the kind of embedding, its D.
        explain: From crops to `heat_map` `[B, S, S]` and `fake_probability` `[B]`.
    """

    find_heads: Function
    judge: Function
    describe: dict[str, Function]
    dimensions: dict[str, int]
    explain: Function


def check_image_sizes(
    detector: keras.Model, classifier: keras.Model, description: Mapping[str, Any]
) -> None:
    """Checks that both models take the images that their manifests say.

    Args:
        detector: See `deepfake_pipeline.DeepfakePipeline`.
        classifier: Likewise.
        description: Manifest of kind "pipeline".

    Raises:
        ValueError: One takes images of another size.
    """
    for part, model in (("detector", detector), ("classifier", classifier)):
        side = description[part]["image_size"]
        if tuple(model.input_shape[1:]) != (side, side, 3):
            raise ValueError(
                f"{part} must take images of {side} pixels, as its manifest says, got "
                f"{model.input_shape}."
            )


def build_model_functions(
    detector: keras.Model,
    classifier: keras.Model,
    content_network: keras.Model,
    description: dict[str, Any],
) -> ModelFunctions:
    """Builds the functions of the models.

    Args:
        detector: See `deepfake_pipeline.DeepfakePipeline`.
        classifier: See `deepfake_pipeline.DeepfakePipeline`.
        content_network: See `deepfake_pipeline.DeepfakePipeline`.
        description: Manifest of kind "pipeline".
    """
    described = description["classifier"]
    size = described["image_size"]
    forgery = classifiers.build_embedding_model(classifier)
    content, content_size = content_embedding.build_embedder(content_network)
    heat_maps = grad_cam.build_heat_maps_function(classifier)

    def compute_probability(logits: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(logits / described["temperature"])

    def judge(crops: tf.Tensor) -> chunking.Outputs:
        logits = classifier(crops, training=False)[:, 0]
        return {"fake_probability": compute_probability(logits)}

    def describe_forgery(crops: tf.Tensor) -> chunking.Outputs:
        embedding = tf.math.l2_normalize(forgery(crops, training=False), -1)
        return {"embedding": embedding}

    def describe_content(crops: tf.Tensor) -> chunking.Outputs:
        return {"embedding": content(crops)}

    def explain(crops: tf.Tensor) -> chunking.Outputs:
        found = heat_maps(crops)
        return {
            "heat_map": found["heat_map"],
            "fake_probability": compute_probability(found["fake_logit"]),
        }

    def trace_once(function: Function) -> Function:
        # AutoGraph would take seconds, and there is no Python control flow to convert.
        spec = tf.TensorSpec([None, size, size, 3], tf.float32)
        return tf.function(function, input_signature=[spec], autograph=False)

    return ModelFunctions(
        find_heads=head_detection.build_detector_function(
            detector, read_detector_settings(description)
        ),
        judge=trace_once(judge),
        describe={
            "forgery": trace_once(describe_forgery),
            "content": trace_once(describe_content),
        },
        dimensions={"forgery": forgery.output_shape[-1], "content": content_size},
        explain=trace_once(explain),
    )


def read_detector_settings(
    description: dict[str, Any],
) -> detector_settings.DetectorSettings:
    """Reads the detector's settings from the manifest of a pipeline."""
    return detector_settings.DetectorSettings.from_manifest(
        description["detector"], max_detections=description["max_detections"]
    )
