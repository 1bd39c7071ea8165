"""Images that show one head each: the detector is skipped."""

from collections.abc import Callable

import tensorflow as tf

from dfdetect.media import decode, image_status, resize
from dfdetect.pipeline import chunking

WHOLE = (0.0, 0.0, 1.0, 1.0)  # The box of the one head, see `boxes`.

# They bound the memory of a call: decoded images, and crops in a model.
_IMAGES_AT_ONCE = 8
_CROPS_AT_ONCE = 8


def map_crops(
    function: Callable[[tf.Tensor], chunking.Outputs],
    image_bytes: tf.Tensor,
    size: int,
    specs: dict[str, tf.TensorSpec],
) -> chunking.Outputs:
    """Applies a model to encoded images of one head each.

    Args:
        function: From crops, float32 `[B, size, size, 3]`, to outputs `[B, ...]`.
        image_bytes: string `[B]`.
        size: Side of the crops in pixels.
        specs: Specs of the outputs.

    Returns:
        The outputs, zeros for an image that cannot be decoded; and `status` int32
        `[B]`, see `image_status`.
    """

    def call_group(group: tf.Tensor) -> chunking.Outputs:
        packed, status = decode.decode(group)
        readable = tf.where(status == image_status.OK)
        crops = chunking.map_rows(
            lambda one: resize.resize(decode.unpack(one), size),
            tf.gather_nd(packed, readable),
            tf.TensorSpec([size, size, 3]),
        )
        found = chunking.map_chunks(function, [crops], _CROPS_AT_ONCE, specs)
        return {**scatter_to_batch(found, readable, status), "status": status}

    all_specs = {**specs, "status": tf.TensorSpec([None], tf.int32)}
    return chunking.map_chunks(call_group, [image_bytes], _IMAGES_AT_ONCE, all_specs)


def scatter_to_batch(
    found: chunking.Outputs, readable: tf.Tensor, status: tf.Tensor
) -> chunking.Outputs:
    """Puts the outputs of the readable images of a batch into their places.

    Args:
        found: Outputs `[R, ...]` of the readable images, in order.
        readable: int64 `[R, 1]`, their places in the batch.
        status: int32 `[B]`, that of all images.

    Returns:
        The outputs `[B, ...]`, zeros for images that are not readable.
    """
    return {
        name: tf.scatter_nd(
            tf.cast(readable, tf.int32),
            value,
            tf.concat([tf.shape(status), value.shape[1:]], 0),
        )
        for name, value in found.items()
    }


def mask_unread(found: chunking.Outputs) -> chunking.Outputs:
    """Sets `fake_probability` to NaN where the status is not `OK`."""
    probability = tf.where(
        found["status"] == image_status.OK, found["fake_probability"], float("nan")
    )
    return {**found, "fake_probability": probability}


def as_detections(
    classify_crops: Callable[[tf.Tensor], chunking.Outputs],
) -> Callable[[tf.Tensor], chunking.Outputs]:
    """Wraps the signature `classify_crops` so that it answers as `serving_default`.

    Args:
        classify_crops: See `deepfake_pipeline.DeepfakePipeline.classify_crops`.

    Returns:
        A function of encoded images, string `[B]`, with the outputs of
        `deepfake_pipeline.DeepfakePipeline.detect` for N = 1. The head of a readable
        image has the box `WHOLE`, the head score NaN, as no detector saw it, and the
        `fake_probability` of the image.
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
