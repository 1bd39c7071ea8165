"""Writes the files that TensorFlow Serving reads beside a graph.

It replays warm-up requests before it offers the version, and batches by the batching
parameters with `--enable_per_model_batching_parameters`.
"""

import os
import types
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dfdetect import manifest
from dfdetect.media import samples
from dfdetect.pipeline import given_crops

REQUESTS = os.path.join("assets.extra", "tf_serving_warmup_requests")
BATCHING = "batching_params.pbtxt"

_MAX_ENQUEUED_BATCHES = 100


def write_requests(directory: str, batch_sizes: Sequence[int]) -> None:
    """Writes warm-up requests with drawn images, so that the first real one is fast.

    One request for each batch size goes to `serving_default`, one of a single image to
    each other signature.

    Args:
        directory: A SavedModel of `DeepfakePipeline`.
        batch_sizes: Sizes of the batches to expect.

    Raises:
        ImportError: tensorflow-serving-api is missing.
    """
    predict_pb2, prediction_log_pb2 = import_messages()
    images = np.array(samples.draw_samples(max(batch_sizes)), object)
    frame = tf.io.decode_image(images[0], 3, expand_animations=False).numpy()
    batches = [
        ("serving_default", {"image_bytes": images[:size]}) for size in batch_sizes
    ]
    others = ["classify_crops", "embed", "embed_content", "explain"]
    described = manifest.read(os.path.join(directory, "assets"), "pipeline")
    others += ["neighbours"] if "index" in described else []
    batches += [(name, {"image_bytes": images[:1]}) for name in others]
    whole = np.array([given_crops.WHOLE], np.float32)
    batches += [
        ("explain_heads", {"image_bytes": images[:1], "boxes": whole}),
        ("frames", {"frames": frame[None]}),
    ]
    path = os.path.join(directory, REQUESTS)
    os.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as file:
        for signature, inputs in batches:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            for name, batch in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(batch))
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            file.write(log.SerializeToString())


def write_batching(
    directory: str, batch_sizes: Sequence[int], timeout_micros: int
) -> None:
    """Writes the batching parameters of the version.

    Args:
        directory: Folder of the version.
        batch_sizes: Allowed sizes, ascending; the last is also the most images of a
            request.
        timeout_micros: Microseconds that an image waits at most for a batch to fill.
    """
    lines = [
        f"max_batch_size {{ value: {batch_sizes[-1]} }}",
        f"batch_timeout_micros {{ value: {timeout_micros} }}",
        f"max_enqueued_batches {{ value: {_MAX_ENQUEUED_BATCHES} }}",
        *(f"allowed_batch_sizes: {size}" for size in batch_sizes),
        # Padding would change frames of different sizes.
        "pad_variable_length_inputs: false",
    ]
    with open(os.path.join(directory, BATCHING), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def import_messages() -> tuple[types.ModuleType, types.ModuleType]:
    """Imports TensorFlow Serving's modules of PredictRequest and PredictionLog.

    Raises:
        ImportError: tensorflow-serving-api is missing.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "warm-up requests need tensorflow-serving-api: "
            "pip install 'dfdetect[serve]'"
        ) from error
    return predict_pb2, prediction_log_pb2
