"""From prepared data to batches: the only road by which pictures reach a model.

Reads folders that `datasets/prepare.py` wrote; they describe themselves, so no builder
code is needed.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import (
    augment,
    degradations,
    images,
    labels,
    matching,
    record_index,
    sampling,
    self_blending,
)
from dfdetect.batches import NAME, Batches, Shuffled
from dfdetect.files import IMAGE_SUFFIXES

AUGMENTATIONS = ("none", "light", "forensic")


def open_builder(data_dir: str, name: str) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set.

    Raises:
        FileNotFoundError: There is none of this name.
    """
    missing = (
        f"{name} is not prepared in {data_dir}; run "
        f"python datasets/prepare.py --dataset={name} --data_dir={data_dir}"
    )
    # TFDS takes "~" and relative paths, but looks elsewhere when the folder lacks.
    if not tf.io.gfile.isdir(os.path.join(data_dir, name)):
        raise FileNotFoundError(missing)
    try:
        return tfds.builder(name, data_dir=data_dir)
    # All there is may be what a killed build has left.
    except tfds.core.DatasetNotFoundError as error:
        raise FileNotFoundError(missing) from error


def describe(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """What a manifest keeps of a data set: what tells it from others, split sizes."""
    return {
        "name": builder.info.name,
        "config": builder.info.config_name or "",
        "version": str(builder.info.version),
        "fingerprint": dict(builder.info.metadata or {}).get("fingerprint"),
        "splits": {
            split: info.num_examples for split, info in builder.info.splits.items()
        },
    }


def classifier_training(
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
) -> Batches:
    """Batches of head crops in an order without end.

    Args:
        builders: Prepared data sets of head crops.
        split: "train" or another one that all have.
        image_size: Side of the crops in pixels.
        batch_size: Crops of a step.
        seed: Of order and augmentation.
        augmentation: One of `AUGMENTATIONS`: "light" cuts, mirrors and colours at
            random, "forensic" cuts at random and then does as `degradations.forensics`.
        sampling_mode: See `sampling.Sampler`, as for the two following.
        weights: How much each data set counts.
        self_blended: Share of the fakes made out of reals, see `self_blending`.
        crop_margin: Side of a crop over the longer side of its head box: where the head
            is when a crop is blended.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255] and `labels` `[B]` int32.

    Raises:
        ValueError: A data set holds no labelled pictures, or an argument is out of
            range.
    """
    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation must be one of {AUGMENTATIONS}, got {augmentation!r}."
        )
    edge = max(0.0, (1 - 1 / crop_margin) / 2)
    box = [edge, edge, 1 - edge, 1 - edge] if edge else None

    def blend(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(image, tf.float32)
        return self_blending.self_blend(pixels, seed, box and tf.constant(box))

    def prepare(seed: tf.Tensor, example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        seeds = tf.random.split(seed, 4)
        image = images.decode_image(example["image"])
        if self_blended:
            image = tf.cond(
                example["blended"],
                lambda: blend(image, seeds[3]),
                lambda: tf.cast(image, tf.float32),
            )
        if augmentation == "none":
            image = images.resize(image, image_size)
        else:
            image = augment.random_crop(image, image_size, seeds[0])
        if augmentation == "light":
            image = augment.colour(augment.flip(image, seeds[1]), seeds[2])
        elif augmentation == "forensic":
            image = degradations.forensics(image, seeds[1])
        label = tf.where(
            example["blended"], labels.FAKE, tf.cast(example["label"], tf.int32)
        )
        return image, label

    indexes = [record_index.RecordIndex(builder, split) for builder in builders]
    sampler = sampling.Sampler(
        [index.catalogue for index in indexes],
        batch_size,
        seed,
        sampling_mode,
        weights,
        self_blended,
    )
    source = record_index.Sampled(indexes, sampler, batch_size)
    return Batches(source, prepare, batch_size, seed)


def count_labels(builder: tfds.core.DatasetBuilder, split: str) -> list[int]:
    """How many examples of a split have each of `dfdetect.labels`.

    Our builders' metadata says so; all examples of other data sets are read.
    """
    counts = dict(builder.info.metadata or {}).get("counts", {}).get(split)
    if counts is not None:
        return [counts.get(name, 0) for name in labels.NAMES]
    found = [int(e["label"]) for e in _encoded(builder, split).as_numpy_iterator()]
    return [found.count(labels.REAL), found.count(labels.FAKE)]


def classifier_evaluation(
    builder: tfds.core.DatasetBuilder,
    split: str,
    image_size: int,
    batch_size: int,
    wanted: np.ndarray | None = None,
) -> tf.data.Dataset:
    """One pass over head crops, in order, as the graph's `classify_crops` sees them.

    Args:
        builder: A prepared data set of head crops.
        split: One of its splits.
        image_size: Side of the crops in pixels.
        batch_size: Crops at once.
        wanted: `[N]` bool, those of the split to take; all by default.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255] and `labels` `[B]` int32.
    """

    def prepare(example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        image = images.resize(images.decode_image(example["image"]), image_size)
        return image, tf.cast(example["label"], tf.int32)

    examples = _chosen(_encoded(builder, split), wanted)
    return examples.map(prepare, tf.data.AUTOTUNE).batch(batch_size).prefetch(2)


def encoded_crops(
    builder: tfds.core.DatasetBuilder, split: str, wanted: np.ndarray | None = None
) -> Iterator[bytes]:
    """The files of head crops as they are, see `classifier_evaluation`."""
    examples = _chosen(_encoded(builder, split), wanted)
    yield from examples.map(lambda example: example["image"]).as_numpy_iterator()


def detector_training(
    builder: tfds.core.DatasetBuilder,
    split: str,
    anchor_boxes: Any,
    image_size: int,
    batch_size: int,
    seed: int,
    scales: tuple[float, float],
    augmented: bool = True,
    mosaic: float = 0.0,
    jpeg_quality: tuple[int, int] | None = None,
) -> Batches:
    """Shuffled batches of pictures with their anchors' targets.

    Args:
        builder: A prepared data set of pictures with head boxes.
        split: "train" or another one.
        anchor_boxes: `[A, 4]` of a model for `image_size`.
        image_size: Side of the pictures in pixels.
        batch_size: Pictures of a step.
        seed: Of order and augmentation.
        scales: Bounds of the scale jitter, see `augment.scale_and_crop`.
        augmented: Whether to change pictures at random; else they are letterboxed as
            for evaluation, and what follows has no effect.
        mosaic: Chance that a picture is joined with the three next in order, see
            `augment.mosaic`. Only then are those decoded.
        jpeg_quality: Bounds of `augment.jpeg`; not compressed by default.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255], `class_targets` `[B, A]`
        int32 and `box_targets` `[B, A, 4]`, see `matching.match`.
    """
    anchor_boxes = tf.constant(anchor_boxes)

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
        image = images.decode_image(example["image"])
        heads = example["objects"]
        extent = tf.unstack(tf.shape(image)[:2])
        boxes = images.letterbox_boxes(heads["bbox"], *extent)
        return images.letterbox(image, image_size), heads | {"bbox": boxes}

    def prepare(seed: tf.Tensor, *examples: dict) -> tuple[tf.Tensor, ...]:
        image, heads = changed(seed, *examples) if augmented else unchanged(*examples)
        class_targets, box_targets, _ = matching.match(
            heads["bbox"], heads["label"], anchor_boxes, heads["is_difficult"]
        )
        return image, class_targets, box_targets

    following = 3 if augmented and mosaic else 0
    source = Shuffled(_encoded(builder, split), seed, following)
    return Batches(source, prepare, batch_size, seed)


def detector_evaluation(
    builder: tfds.core.DatasetBuilder, split: str, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """One pass over letterboxed pictures, in order, with their true boxes.

    Returns:
        Batches of dicts: `images` `[B, S, S, 3]` float32 in [0, 255], `image_bytes`
        string `[B]`, `extents` `[B, 2]` int32 (height, width of the original), ragged
        `boxes` `[B, M, 4]` and ragged `difficult` `[B, M]` bool.
    """

    def prepare(example: dict) -> dict[str, tf.Tensor]:
        image = images.decode_image(example["image"])
        return {
            "images": images.letterbox(image, image_size),
            "image_bytes": example["image"],
            "extents": tf.shape(image)[:2],
            "boxes": example["objects"]["bbox"],
            "difficult": example["objects"]["is_difficult"],
        }

    examples = _encoded(builder, split).map(prepare, tf.data.AUTOTUNE)
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
    for place, example in _encoded(builder, split).enumerate().filter(wanted):
        name = example.get("image/filename", example[NAME]).numpy().decode()
        found[int(place)] = name, images.decode_image(example["image"]).numpy()
    return found


def find_images(patterns: Sequence[str]) -> list[str]:
    """Picture files below folders, matching globs or listed in .txt files, sorted.

    Raises:
        FileNotFoundError: A pattern finds none.
    """
    found: set[str] = set()
    for pattern in patterns:
        if pattern.endswith(".txt"):
            with open(pattern, encoding="utf-8") as file:
                candidates = file.read().splitlines()
        elif os.path.isdir(pattern):
            candidates = glob.glob(os.path.join(pattern, "**", "*"), recursive=True)
        else:
            candidates = glob.glob(pattern, recursive=True)
        files = {c for c in candidates if c.lower().endswith(IMAGE_SUFFIXES)}
        if not files:
            raise FileNotFoundError(f"No picture is found at {pattern}.")
        found |= files
    return sorted(found)


def unlabelled_training(
    paths: Sequence[str], image_sizes: Sequence[int], batch_size: int, seed: int
) -> Batches:
    """Shuffled batches of random windows of pictures, at several sizes at once.

    Returns:
        Batches with one `[B, S, S, 3]` float32 in [0, 255] for each of `image_sizes`,
        all showing the same window.
    """

    def prepare(seed: tf.Tensor, example: dict) -> tuple[tf.Tensor, ...]:
        seeds = tf.random.split(seed, 3)
        image = images.decode_image(tf.io.read_file(example[NAME]))
        image = augment.random_crop(image, max(image_sizes), seeds[0], min_area=0.3)
        image = augment.colour(augment.flip(image, seeds[1]), seeds[2])
        return tuple(images.resize(image, size) for size in image_sizes)

    files = tf.data.Dataset.from_tensor_slices({NAME: list(paths)})
    return Batches(Shuffled(files, seed), prepare, batch_size, seed)


def _encoded(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    return builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False, add_tfds_id=True),
    )


def _chosen(examples: tf.data.Dataset, wanted: np.ndarray | None) -> tf.data.Dataset:
    """Those of the examples that are wanted, or all."""
    if wanted is None:
        return examples
    chosen = tf.data.Dataset.from_tensor_slices(wanted)
    kept = tf.data.Dataset.zip(examples, chosen).filter(lambda _, keep: keep)
    return kept.map(lambda example, _: example)


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
