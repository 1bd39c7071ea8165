"""Builds batches of head crops from prepared data, for training and evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import (
    classifier_examples,
    conditions,
    crop_cache,
    given_heads,
    prepared,
    record_columns,
    record_fields,
    record_index,
    sampling,
    self_blending,
)
from dfdetect.data.batches import WHOLE, Batches, Share
from dfdetect.media import decode, image_status, resize

AUGMENTATIONS = classifier_examples.AUGMENTATIONS


def build_training_batches(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    *,
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
    level_share: float = 1.0,
    rotated_share: float = 0.0,
    gamma_share: float = 0.0,
    gray_share: float = 0.0,
) -> Batches:
    """Builds endless batches of head crops, each a function of seed and step.

    Args:
        builders: Prepared data sets of labeled head crops, or of images each with a
            head box, see `given_heads.has_head_box`; or of images with head boxes and
            no labels, whose heads count as reals, for fakes that are blended from them.
        split: "train" or another split that all of them have.
        image_size: Side of the crops in pixels.
        batch_size: Crops of a step.
        seed: Seed of order and augmentation.
        augmentation: One of `AUGMENTATIONS`, see `classifier_examples`.
        sampling_mode: See `mode` of `sampling.Sampler`.
        weights: Weight of each data set in a batch, see `sampling.Sampler`.
        self_blended: Share of the fakes made out of reals, see `self_blending`.
        crop_margin: Side of a crop over the longer side of its head box: where the head
            is when a crop is blended.
        cache_bytes: Most bytes of decoded crops to keep in memory, see `crop_cache`;
            the batches are the same.
        sample_by: Field, such as source or method, whose values are all drawn equally
            often in each class; see `by_source` of `sampling.Sampler`.
        where: Conditions that records meet, see `record_fields.choose_records`. A data
            set without such records is left out, and a line printed.
        blending: How fakes are made out of reals.
        level_share: See `classifier_examples.CropPreparation`.
        rotated_share: Likewise.
        gamma_share: Likewise.
        gray_share: Likewise.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255] and `labels` `[B]` int32.

    Raises:
        ValueError: A data set holds no labeled images, no record of any meets the
            conditions, or an argument is out of range.
    """
    cache = crop_cache.CropCache(cache_bytes) if cache_bytes else None
    indexes = [
        record_index.RecordIndex(
            builder,
            split,
            least_side=image_size // image_status.MOST_ENLARGED,
            where=where,
            source_field=sample_by,
        )
        for builder in builders
    ]
    indexes, weights = record_index.leave_out_empty(builders, split, indexes, weights)
    sampler = sampling.Sampler(
        [index.catalog for index in indexes],
        batch_size,
        seed=seed,
        mode=sampling_mode,
        weights=weights,
        self_blended=self_blended,
        by_source=sample_by is not None,
    )
    prepare = classifier_examples.CropPreparation(
        image_size,
        augmentation,
        crop_margin,
        blending=blending if self_blended else None,
        level_share=level_share,
        rotated_share=rotated_share,
        gamma_share=gamma_share,
        gray_share=gray_share,
        cache=cache,
        kinds=tuple(sorted({kind for index in indexes for kind in index.kinds()})),
    )
    records = record_index.SampledRecords(indexes, sampler, batch_size, cache)
    return Batches(records, prepare, batch_size, seed)


def count_labels(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition] = (),
) -> list[int]:
    """Counts the examples of a split by label, in the order of `dfdetect.labels`.

    Without conditions the metadata of our builders has the counts.
    """
    counts = dict(builder.info.metadata or {}).get("counts", {}).get(split)
    if counts is not None and not where:
        return [counts.get(name, 0) for name in labels.NAMES]
    chosen = record_fields.choose_records(builder, split, where)
    columns = record_columns.open_columns(builder, split)
    truths = columns.numbers("field/label")[chosen]
    return [
        int(np.count_nonzero(truths == label)) for label in (labels.REAL, labels.FAKE)
    ]


def build_evaluation_batches(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    image_size: int,
    batch_size: int,
    wanted: np.ndarray | None = None,
    crop_margin: float = 1.3,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Reads head crops once, in order, as the classifier of the graph sees them.

    Args:
        builder: A prepared data set of head crops, or of images with a head box.
        split: One of its splits.
        image_size: Side of the crops in pixels.
        batch_size: Crops at once.
        wanted: `[N]` bool, the records of the split to take; all by default.
        crop_margin: See `boxes.square_crops`; for images with a head box.
        share: Which of the batches to read, see `prepared.read_chosen`.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255] and `labels` `[B]` int32.
    """

    def prepare(example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        image = _decode_head(example, has_box, crop_margin, kinds)
        return resize.resize(image, image_size), tf.cast(example["label"], tf.int32)

    has_box = given_heads.has_head_box(builder)
    # The graph of fewer kinds of files is built faster, in each evaluation.
    kinds = record_columns.open_columns(builder, split).kinds()
    examples = prepared.read_chosen(
        builder, split, wanted, share=share, batch_size=batch_size
    )
    return (
        examples.map(
            tf.autograph.experimental.do_not_convert(prepare), tf.data.AUTOTUNE
        )
        .batch(batch_size)
        .prefetch(2)
    )


def build_real_batches(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    image_size: int,
    batch_size: int,
    crop_margin: float = 1.3,
) -> tf.data.Dataset:
    """Reads the heads of a data set without labels once, each of them a real.

    They are cut by their boxes as the graph does. Heads too small for it to judge and
    difficult ones are left out.

    Args:
        builder: A prepared data set of images with head boxes.
        split: One of its splits.
        image_size: Side of the crops in pixels.
        batch_size: Crops at once.
        crop_margin: See `boxes.square_crops`.

    Returns:
        Batches like those of `build_evaluation_batches`.

    Raises:
        ValueError: The data set has no boxes.
    """
    if "objects" not in builder.info.features:
        name = prepared.name_dataset(builder)
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

    heads = prepared.read_encoded(builder, split).flat_map(cut)
    return heads.map(lambda crop: (crop, labels.REAL)).batch(batch_size).prefetch(2)


def read_encoded_files(
    builder: tfds.core.DatasetBuilder,
    split: str,
    wanted: np.ndarray | None = None,
    crop_margin: float = 1.3,
) -> Iterator[bytes]:
    """Reads the files of head crops as they are, see `build_evaluation_batches`.

    Heads that are cut by a box come as PNG, not resized.
    """
    has_box = given_heads.has_head_box(builder)

    def prepare(example: dict) -> tf.Tensor:
        if not has_box:
            return example["image"]
        return tf.cond(
            tf.reduce_max(given_heads.parse_head_box(example)) > 0,
            lambda: tf.io.encode_png(_decode_head(example, True, crop_margin)),
            lambda: example["image"],
        )

    examples = prepared.read_chosen(builder, split, wanted)
    yield from examples.map(prepare).as_numpy_iterator()


def _decode_head(
    example: dict, has_box: bool, margin: float, kinds: Sequence[str] | None = None
) -> tf.Tensor:
    """Decodes the head of a record, uint8 `[height, width, 3]`, or all of its image."""
    image = decode.decode_image(example["image"], kinds)
    if not has_box:
        return image
    return given_heads.cut_head(image, given_heads.parse_head_box(example), margin)
