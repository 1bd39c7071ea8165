"""Builds batches of images with head boxes from prepared data, for detectors."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import (
    conditions,
    detector_examples,
    prepared,
    record_fields,
    record_index,
    sampled_images,
    sampling,
)
from dfdetect.data.batches import NAME, WHOLE, Batches, Share
from dfdetect.media import decode, resize
from dfdetect.models import anchors, grid_matching

AUGMENTATIONS = detector_examples.AUGMENTATIONS

_CLOSEUP_SEED = 7_919  # Closeups come in another order than the images.


def build_training_batches(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    *,
    grid: anchors.Anchors,
    image_size: int,
    batch_size: int,
    seed: int,
    scales: tuple[float, float],
    augmentation: str = "light",
    mosaic: float = 0.0,
    jpeg_quality: tuple[int, int] | None = None,
    gray_share: float = 0.1,
    weights: Sequence[float] | None = None,
    where: Sequence[conditions.Condition] = (),
) -> Batches:
    """Builds shuffled, endless batches of images with the targets of their anchors.

    Args:
        builders: Prepared data sets of images with head boxes, or without any head.
        split: "train" or another split that all of them have.
        grid: The anchors of a model for `image_size`.
        image_size: Side of the images in pixels.
        batch_size: Images of a step.
        seed: Seed of order and augmentation.
        scales: See `detector_examples.ImagePreparation`.
        augmentation: One of `AUGMENTATIONS`, see `detector_examples`.
        mosaic: See `detector_examples.ImagePreparation`.
        jpeg_quality: See `detector_examples.ImagePreparation`.
        gray_share: See `detector_examples.ImagePreparation`.
        weights: Weight of each data set in a batch; by default its size.
        where: Conditions that records meet, see `record_fields.choose_records`. A data
            set without such records is left out, and a line printed.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255], `class_targets` `[B, A]`
        int32 and `box_targets` `[B, A, 4]`, see `matching.match_anchors`.

    Raises:
        ValueError: A data set has no such split or no boxes, or an argument is out of
            range.
    """
    match = grid_matching.GridMatcher(grid)
    preparation = detector_examples.ImagePreparation(
        image_size, scales, augmentation, mosaic, jpeg_quality, gray_share
    )

    def prepare(seed: tf.Tensor, *examples: dict) -> tuple[tf.Tensor, ...]:
        image, heads = preparation(seed, *examples)
        class_targets, box_targets, _ = match(
            heads["bbox"], heads["label"], heads["is_difficult"]
        )
        return image, class_targets, box_targets

    indexes = [
        record_index.RecordIndex(builder, split, whole_images=True, where=where)
        for builder in builders
    ]
    indexes, weights = record_index.leave_out_empty(builders, split, indexes, weights)
    sampler = sampling.Sampler(
        [index.catalog for index in indexes], batch_size, seed=seed, weights=weights
    )
    closeups = None
    if augmentation == "ordinary" and sampled_images.has_closeups(indexes):
        closeups = sampled_images.Closeups(
            indexes, batch_size, seed=seed + _CLOSEUP_SEED, weights=weights
        )
    source = sampled_images.SampledImages(
        indexes,
        sampler,
        batch_size=batch_size,
        following=preparation.num_following,
        closeups=closeups,
    )
    return Batches(source, prepare, batch_size, seed)


def build_evaluation_batches(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    image_size: int,
    batch_size: int,
    where: Sequence[conditions.Condition] = (),
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Reads letterboxed images once, in order, with their true boxes.

    Args:
        builder: A prepared data set of images with head boxes.
        split: One of its splits.
        image_size: Side of the images in pixels.
        batch_size: Images at once.
        where: Conditions that records meet, see `record_fields.choose_records`.
        share: Which of the batches to read, see `prepared.read_chosen`.

    Returns:
        Batches of dicts: `images` `[B, S, S, 3]` float32 in [0, 255], `image_bytes`
        string `[B]`, `extents` `[B, 2]` int32 (height, width of the original), ragged
        `boxes` `[B, M, 4]` and ragged `difficult` `[B, M]` bool.
    """

    def prepare(example: dict) -> dict[str, tf.Tensor]:
        image, extent = decode.decode_for_letterbox(example["image"], image_size)
        return {
            "images": resize.letterbox(image, image_size, extent),
            "image_bytes": example["image"],
            "extents": extent,
            "boxes": example["objects"]["bbox"],
            "difficult": example["objects"]["is_difficult"],
        }

    examples = _read_chosen(builder, split, where, share=share, batch_size=batch_size)
    return (
        examples.map(
            tf.autograph.experimental.do_not_convert(prepare), tf.data.AUTOTUNE
        )
        .ragged_batch(batch_size)
        .prefetch(2)
    )


def build_target_batches(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    grid: anchors.Anchors,
    image_size: int,
    batch_size: int,
    where: Sequence[conditions.Condition] = (),
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Reads letterboxed images once, in order, with the targets of their anchors.

    Arguments as for `build_evaluation_batches`; `grid` has the anchors of a model.

    Returns:
        Batches like those of `build_training_batches` without augmentation; the last
        may be smaller.
    """
    match = grid_matching.GridMatcher(grid)

    def prepare(example: dict) -> tuple[tf.Tensor, ...]:
        image, heads = detector_examples.letterbox_example(example, image_size)
        class_targets, box_targets, _ = match(
            heads["bbox"], heads["label"], heads["is_difficult"]
        )
        return image, class_targets, box_targets

    examples = _read_chosen(builder, split, where, share=share, batch_size=batch_size)
    return (
        examples.map(
            tf.autograph.experimental.do_not_convert(prepare), tf.data.AUTOTUNE
        )
        .batch(batch_size)
        .prefetch(2)
    )


def _read_chosen(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition],
    *,
    share: Share,
    batch_size: int,
) -> tf.data.Dataset:
    """Reads the records of a split that meet every condition, in order, or a share."""
    wanted = record_fields.choose_records(builder, split, where) if where else None
    return prepared.read_chosen(
        builder, split, wanted, share=share, batch_size=batch_size
    )


def read_images(
    builder: tfds.core.DatasetBuilder,
    split: str,
    places: Sequence[int],
    where: Sequence[conditions.Condition] = (),
) -> dict[int, tuple[str, np.ndarray]]:
    """Reads some images of a split, by their places in its order.

    Args:
        builder: A prepared data set.
        split: One of its splits.
        places: Places among the records that meet every condition.
        where: Conditions, see `record_fields.choose_records`.

    Returns:
        For each place the name of the image and `[height, width, 3]` uint8 RGB.
    """

    def wanted(place: tf.Tensor, _: dict) -> tf.Tensor:
        return tf.reduce_any(tf.constant(places, tf.int64) == place)

    found = {}
    examples = _read_chosen(builder, split, where, share=WHOLE, batch_size=1)
    for place, example in examples.enumerate().filter(wanted):
        name = example.get("image/filename", example[NAME]).numpy().decode()
        found[int(place)] = name, decode.decode_image(example["image"]).numpy()
    return found
