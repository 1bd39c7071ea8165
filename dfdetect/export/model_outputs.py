"""Computes what an exported graph must answer, by the models that it was made of.

Whole images go through the pipeline with its variables. Crops are read and resized one
by one, as in training, and go through the models alone: that takes seconds less than to
make the graph of each signature, and holds the graph against training itself.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dfdetect.export import freezing
from dfdetect.media import decode, image_status, resize
from dfdetect.metrics import calibration
from dfdetect.pipeline import chunking, deepfake_pipeline, given_crops


def compute_outputs(
    pipeline: deepfake_pipeline.DeepfakePipeline,
    images: Sequence[bytes],
    broken: Sequence[bytes],
    boxes: np.ndarray,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, chunking.Outputs]:
    """Computes the outputs of all signatures.

    Args:
        pipeline: A pipeline with variables.
        images: Encoded images.
        broken: Files that are no images; they follow the images in each batch.
        boxes: Boxes for the signature `explain_heads`, one of each image.
        say: Called with a line about each stage.

    Returns:
        By the name of the signature; `frames` for the last image alone.
    """
    batch = np.array([*images, *broken], object)
    outputs: dict[str, chunking.Outputs] = {}
    # Optimizing would take longer than the few calls.
    with freezing.grappler_disabled():
        say("parity check: whole images by the models")
        outputs["serving_default"] = pipeline.detect(batch)
        if pipeline.neighbours is not None:
            outputs["neighbours"] = pipeline.neighbours(batch)
        say("parity check: crops by the models")
        of_crops = _compute_for_crops(pipeline, images, boxes)
    for name, found in of_crops.items():
        outputs[name] = _append_broken(found, len(images), len(broken))
    for name in ("embed", "embed_content"):
        del outputs[name]["status"]
    last = len(images) - 1
    outputs["frames"] = {
        name: value[last : last + 1]
        for name, value in outputs["serving_default"].items()
    }
    return {
        name: {key: np.asarray(value) for key, value in found.items()}
        for name, found in outputs.items()
    }


def _compute_for_crops(
    pipeline: deepfake_pipeline.DeepfakePipeline,
    images: Sequence[bytes],
    boxes: np.ndarray,
) -> dict[str, chunking.Outputs]:
    """Computes the outputs of the signatures that do not look for heads.

    Args:
        pipeline: See `compute_outputs`.
        images: Encoded images, all readable.
        boxes: See `compute_outputs`.
    """
    described, functions = pipeline.manifest["classifier"], pipeline.functions
    size = described["image_size"]
    decoded = [decode.decode_image(image) for image in images]
    crops = tf.stack([resize.resize(pixels, size) for pixels in decoded])
    margin = described["crop_margin"]
    heads = [
        resize.crop_heads(pixels, tf.constant(box[None]), size, margin)
        for pixels, box in zip(decoded, boxes, strict=True)
    ]
    logits = pipeline.classifier(crops, training=False)[:, 0]
    judged = calibration.calibrate_logits(logits.numpy(), described["temperature"])
    return {
        "classify_crops": {"fake_probability": tf.cast(judged, tf.float32)},
        "embed": functions.describe["forgery"](crops),
        "embed_content": functions.describe["content"](crops),
        "explain": functions.explain(crops),
        "explain_heads": functions.explain(tf.concat(heads, 0)),
    }


def _append_broken(
    found: chunking.Outputs, num_images: int, num_broken: int
) -> chunking.Outputs:
    """Appends what signatures answer to files that are no images."""
    status = tf.constant(
        [image_status.OK] * num_images + [image_status.UNREADABLE] * num_broken
    )
    places = tf.range(num_images)[:, None]
    outputs = given_crops.scatter_to_batch(found, places, status)
    outputs["status"] = status
    if "fake_probability" in outputs:
        outputs = given_crops.mask_unread(outputs)
    return outputs
