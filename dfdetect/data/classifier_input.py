"""From prepared data to batches of head crops, for training and for evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import boxes as box_format
from dfdetect import labels
from dfdetect.data import (
    augment,
    conditions,
    crop_cache,
    degradations,
    given_heads,
    prepared,
    record_fields,
    record_index,
    sampling,
    self_blending,
)
from dfdetect.data.batches import Batches
from dfdetect.media import decode, image_status, resize

AUGMENTATIONS = ("none", "light", "forensic", "makers")


def training(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    image_size: int,
    batch_size: int,
    seed: int,
    augmentation: str = "light",
    sampling_mode: str = "natural",
    weights: Sequence[float] | None = None,
    self_blended: float = 0.0,
    crop_margin: float = 1.0,
    cache_bytes: int = 0,
    sample_by: str | None = None,
    where: Sequence[conditions.Condition] = (),
    blending: self_blending.Blending = self_blending.DEFAULT,
) -> Batches:
    """Batches of head crops in an order without end.

    Args:
        builders: Prepared data sets of labelled head crops, or of images each with a
            head box, see `given_heads.has_head_box`; or of images with head boxes and
            no labels, whose heads count as reals, for fakes that are blended from them.
        split: "train" or another one that all have.
        image_size: Side of the crops in pixels.
        batch_size: Crops of a step.
        seed: Of order and augmentation.
        augmentation: One of `AUGMENTATIONS`: "light" cuts, mirrors and colours at
            random, "forensic" cuts at random and then does as `degradations.forensics`,
            "makers" does as `degradations.level` and then as "light".
        sampling_mode: See `sampling.Sampler`, as for the two following.
        weights: How much each data set counts.
        self_blended: Share of the fakes made out of reals, see `self_blending`.
        crop_margin: Side of a crop over the longer side of its head box: where the head
            is when a crop is blended.
        cache_bytes: Most bytes of decoded crops to keep in memory, see `crop_cache`;
            the batches are the same.
        sample_by: Field, such as source or method, of which all values are drawn
            equally often in each class; see `sampling.Sampler`.
        where: Conditions that records meet, see `record_fields.choose`.
        blending: How fakes are made out of reals.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255] and `labels` `[B]` int32.

    Raises:
        ValueError: A data set holds no labelled images or none that meets the
            conditions, or an argument is out of range.
    """
    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation must be one of {AUGMENTATIONS}, got {augmentation!r}."
        )
    edge = max(0.0, (1 - 1 / crop_margin) / 2)
    box = [edge, edge, 1 - edge, 1 - edge] if edge else None

    def blend(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(image, tf.float32)
        head = box and tf.constant(box)
        return self_blending.self_blend(pixels, seed, head, blending=blending)

    cache = crop_cache.CropCache(cache_bytes) if cache_bytes else None

    def decode_example(example: dict) -> tf.Tensor:
        image = _cut(decode.decode_image(example["image"]), example["box"], crop_margin)
        return cache.keep(example["key"], image) if cache else image

    def prepare(seed: tf.Tensor, example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        seeds = tf.random.split(seed, 5)
        image = tf.cond(
            example["packed"],
            lambda: decode.unpack(example["image"]),
            lambda: decode_example(example),
        )
        if self_blended:
            image = tf.cond(
                example["blended"],
                lambda: blend(image, seeds[3]),
                lambda: tf.cast(image, tf.float32),
            )
        if augmentation == "makers":
            image = degradations.level(image, seeds[4])
        if augmentation == "none":
            image = resize.resize(image, image_size)
        else:
            image = augment.random_crop(image, image_size, seeds[0])
        if augmentation in ("light", "makers"):
            image = augment.colour(augment.flip(image, seeds[1]), seeds[2])
        elif augmentation == "forensic":
            image = degradations.forensics(image, seeds[1])
        label = tf.where(
            example["blended"], labels.FAKE, tf.cast(example["label"], tf.int32)
        )
        return image, label

    indexes = [
        record_index.RecordIndex(
            builder,
            split,
            image_size // image_status.MOST_ENLARGED,
            where=where,
            source_field=sample_by,
        )
        for builder in builders
    ]
    for builder, index in zip(builders, indexes, strict=True):
        if where and not len(index.catalogue.labels):
            raise ValueError(
                f"where leaves no record in {split} of {builder.info.full_name}."
            )
    sampler = sampling.Sampler(
        [index.catalogue for index in indexes],
        batch_size,
        seed,
        sampling_mode,
        weights,
        self_blended,
        sample_by is not None,
    )
    source = record_index.Sampled(indexes, sampler, batch_size, cache)
    return Batches(source, prepare, batch_size, seed)


def count_labels(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition] = (),
) -> list[int]:
    """How many examples of a split have each of `dfdetect.labels`.

    Without conditions our builders' metadata says so; else all examples are read.
    """
    if where:
        chosen = record_fields.choose(builder, split, where)
        names = record_fields.read(builder, split, ["label"])["label"][chosen]
        return [int((names == name).sum()) for name in labels.NAMES]
    counts = dict(builder.info.metadata or {}).get("counts", {}).get(split)
    if counts is not None:
        return [counts.get(name, 0) for name in labels.NAMES]
    found = [
        int(e["label"]) for e in prepared.encoded(builder, split).as_numpy_iterator()
    ]
    return [found.count(labels.REAL), found.count(labels.FAKE)]


def evaluation(
    builder: tfds.core.DatasetBuilder,
    split: str,
    image_size: int,
    batch_size: int,
    wanted: np.ndarray | None = None,
    crop_margin: float = 1.3,
) -> tf.data.Dataset:
    """One pass over head crops, in order, as the classifier of the graph sees them.

    Args:
        builder: A prepared data set of head crops, or of images with a head box.
        split: One of its splits.
        image_size: Side of the crops in pixels.
        batch_size: Crops at once.
        wanted: `[N]` bool, those of the split to take; all by default.
        crop_margin: See `boxes.square_crops`; of images with a head box.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255] and `labels` `[B]` int32.
    """

    def prepare(example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        image = _decode_head(example, has_box, crop_margin)
        return (
            resize.resize(image, image_size),
            tf.cast(example["label"], tf.int32),
        )

    has_box = given_heads.has_head_box(builder)

    examples = choose(prepared.encoded(builder, split), wanted)
    return examples.map(prepare, tf.data.AUTOTUNE).batch(batch_size).prefetch(2)


def real_heads(
    builder: tfds.core.DatasetBuilder,
    split: str,
    image_size: int,
    batch_size: int,
    crop_margin: float = 1.3,
) -> tf.data.Dataset:
    """One pass over the heads of a data set without labels, each of them a real.

    They are cut by their boxes as the graph does; those that it would not judge, being
    too small, and difficult ones are left out.

    Args:
        builder: A prepared data set of images with head boxes.
        split: See `evaluation`, as for the others.
        image_size: Side of the crops in pixels.
        batch_size: Crops at once.
        crop_margin: See `boxes.square_crops`.

    Returns:
        Batches as those of `evaluation`.

    Raises:
        ValueError: The data set has no boxes.
    """
    if "objects" not in builder.info.features:
        name = prepared.full_name(builder)
        raise ValueError(f"{name} must have labels or head boxes, got neither.")
    least = image_size // image_status.MOST_ENLARGED

    def cut(example: dict) -> tf.data.Dataset:
        image = decode.decode_image(example["image"])
        boxes = example["objects"]["bbox"]
        extent = tf.cast(tf.shape(image)[:2], tf.float32)
        sides = (boxes[:, 2:] - boxes[:, :2]) * extent
        is_judged = tf.reduce_max(sides, axis=1) >= float(least)
        if "is_difficult" in example["objects"]:
            is_judged &= ~example["objects"]["is_difficult"]
        chosen = tf.boolean_mask(boxes, is_judged)
        crops = resize.crop_heads(image, chosen, image_size, crop_margin)
        return tf.data.Dataset.from_tensor_slices(crops)

    heads = prepared.encoded(builder, split).flat_map(cut)
    return heads.map(lambda crop: (crop, labels.REAL)).batch(batch_size).prefetch(2)


def encoded_files(
    builder: tfds.core.DatasetBuilder,
    split: str,
    wanted: np.ndarray | None = None,
    crop_margin: float = 1.3,
) -> Iterator[bytes]:
    """The files of head crops as they are, see `evaluation`.

    Heads that are cut by a box come as PNG, not resized.
    """
    has_box = given_heads.has_head_box(builder)

    def prepare(example: dict) -> tf.Tensor:
        if not has_box:
            return example["image"]
        return tf.cond(
            tf.reduce_max(_head_box(example)) > 0,
            lambda: tf.io.encode_png(_decode_head(example, True, crop_margin)),
            lambda: example["image"],
        )

    examples = choose(prepared.encoded(builder, split), wanted)
    yield from examples.map(prepare).as_numpy_iterator()


def choose(examples: tf.data.Dataset, wanted: np.ndarray | None) -> tf.data.Dataset:
    """Keeps the examples where `wanted` `[N]` is true, in order; None keeps all."""
    if wanted is None:
        return examples
    chosen = tf.data.Dataset.from_tensor_slices(wanted)
    kept = tf.data.Dataset.zip(examples, chosen).filter(lambda _, keep: keep)
    return kept.map(lambda example, _: example)


def _decode_head(example: dict, has_box: bool, margin: float) -> tf.Tensor:
    """The head of a record, uint8 `[height, width, 3]`; all of an image without box."""
    image = decode.decode_image(example["image"])
    return _cut(image, _head_box(example), margin) if has_box else image


def _head_box(example: dict) -> tf.Tensor:
    """The box `[4]` of a record, see `given_heads.clip_boxes`; zeros for none."""
    sides = tf.stack([tf.cast(example[x], tf.float32) for x in given_heads.SIDES])
    box = box_format.clip(tf.where(tf.math.is_nan(sides), 0.0, sides))
    return tf.where(tf.reduce_all(box[2:] > box[:2]), box, 0.0)


def _cut(image: tf.Tensor, box: tf.Tensor, margin: float) -> tf.Tensor:
    """The square around a head; the image itself where the box is all zeros."""

    def cut() -> tf.Tensor:
        height, width = tf.unstack(tf.shape(image)[:2])
        square = box_format.square_crops(box[None], height, width, margin)
        y, x, side = tf.unstack(square[0])
        return image[y : y + side, x : x + side]

    return tf.cond(tf.reduce_max(box) > 0, cut, lambda: image)
