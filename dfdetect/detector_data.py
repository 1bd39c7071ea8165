"""From prepared data to batches of pictures with their heads' boxes."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import (
    anchors,
    augment,
    data,
    grid_matching,
    images,
    record_index,
    sampled_images,
    sampling,
)
from dfdetect.batches import NAME, Batches


def training(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    grid: anchors.Anchors,
    image_size: int,
    batch_size: int,
    seed: int,
    scales: tuple[float, float],
    augmented: bool = True,
    mosaic: float = 0.0,
    jpeg_quality: tuple[int, int] | None = None,
    weights: Sequence[float] | None = None,
) -> Batches:
    """Shuffled batches of pictures with their anchors' targets.

    Args:
        builders: Prepared data sets of images with head boxes, or without any head.
        split: "train" or another one that all have.
        grid: The anchors of a model for `image_size`.
        image_size: Side of the pictures in pixels.
        batch_size: Pictures of a step.
        seed: Of order and augmentation.
        scales: Bounds of the scale jitter, see `augment.scale_and_crop`.
        augmented: Whether to change pictures at random; else they are letterboxed as
            for evaluation, and what follows has no effect.
        mosaic: Chance that a picture is joined with the three next in order, see
            `augment.mosaic`. Only then are those decoded.
        jpeg_quality: Bounds of `augment.jpeg`; not compressed by default.
        weights: How much each data set counts in a batch, by default its size.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255], `class_targets` `[B, A]`
        int32 and `box_targets` `[B, A, 4]`, see `matching.match`.

    Raises:
        ValueError: A data set has no such split or no boxes, or a weight is not above
            0.
    """
    match = grid_matching.GridMatcher(grid)

    def changed(seed: tf.Tensor, *examples: dict) -> tuple[tf.Tensor, dict]:
        seeds = tf.random.split(seed, 5)
        image, heads = tf.cond(
            tf.random.stateless_uniform([], seeds[3]) < mosaic,
            lambda: _jittered(examples, image_size, seeds[0], scales),
            lambda: _jittered(examples[:1], image_size, seeds[0], scales),
        )
        image, boxes = augment.flip_with_boxes(image, heads["bbox"], seeds[1])
        image = augment.colour(image, seeds[2])
        if jpeg_quality:
            image = augment.jpeg(image, seeds[4], jpeg_quality)
        return image, heads | {"bbox": boxes}

    def unchanged(example: dict) -> tuple[tf.Tensor, dict]:
        image, extent = images.decode_for(example["image"], image_size)
        heads = example["objects"]
        boxes = images.letterbox_boxes(heads["bbox"], *tf.unstack(extent))
        return images.letterbox(image, image_size, extent), heads | {"bbox": boxes}

    def prepare(seed: tf.Tensor, *examples: dict) -> tuple[tf.Tensor, ...]:
        image, heads = changed(seed, *examples) if augmented else unchanged(*examples)
        class_targets, box_targets, _ = match(
            heads["bbox"], heads["label"], heads["is_difficult"]
        )
        return image, class_targets, box_targets

    following = 3 if augmented and mosaic else 0
    indexes = [
        record_index.RecordIndex(builder, split, whole_images=True)
        for builder in builders
    ]
    sampler = sampling.Sampler(
        [index.catalogue for index in indexes], batch_size, seed, weights=weights
    )
    source = sampled_images.SampledImages(indexes, sampler, batch_size, following)
    return Batches(source, prepare, batch_size, seed)


def evaluation(
    builder: tfds.core.DatasetBuilder, split: str, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """One pass over letterboxed pictures, in order, with their true boxes.

    Returns:
        Batches of dicts: `images` `[B, S, S, 3]` float32 in [0, 255], `image_bytes`
        string `[B]`, `extents` `[B, 2]` int32 (height, width of the original), ragged
        `boxes` `[B, M, 4]` and ragged `difficult` `[B, M]` bool.
    """

    def prepare(example: dict) -> dict[str, tf.Tensor]:
        image, extent = images.decode_for(example["image"], image_size)
        return {
            "images": images.letterbox(image, image_size, extent),
            "image_bytes": example["image"],
            "extents": extent,
            "boxes": example["objects"]["bbox"],
            "difficult": example["objects"]["is_difficult"],
        }

    examples = data.encoded(builder, split).map(prepare, tf.data.AUTOTUNE)
    return examples.ragged_batch(batch_size).prefetch(2)


def pictures(
    builder: tfds.core.DatasetBuilder, split: str, places: Sequence[int]
) -> dict[int, tuple[str, np.ndarray]]:
    """Some pictures of a split, by their places in its order.

    Returns:
        For each place the name of the picture and `[height, width, 3]` uint8 RGB.
    """

    def wanted(place: tf.Tensor, _: dict) -> tf.Tensor:
        return tf.reduce_any(tf.constant(places, tf.int64) == place)

    found = {}
    for place, example in data.encoded(builder, split).enumerate().filter(wanted):
        name = example.get("image/filename", example[NAME]).numpy().decode()
        found[int(place)] = name, images.decode_image(example["image"]).numpy()
    return found


def _jittered(
    examples: Sequence[dict], size: int, seed: tf.Tensor, scales: tuple[float, float]
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """A picture at a random scale, or a mosaic of four, and the heads that stay."""
    pictures = [images.decode_image(example["image"]) for example in examples]
    objects = [example["objects"] for example in examples]
    boxes = [heads["bbox"] for heads in objects]
    if len(examples) == 1:
        image, moved, keep = augment.scale_and_crop(
            pictures[0], boxes[0], size, seed, scales
        )
    else:
        image, moved, keep = augment.mosaic(pictures, boxes, size, seed, scales)
    joined = {
        key: tf.concat([heads[key] for heads in objects], 0) for key in objects[0]
    }
    joined["bbox"] = moved
    return image, {key: tf.boolean_mask(joined[key], keep) for key in joined}
