"""From prepared data to batches: the only road by which pictures reach a model.

Reads folders that `datasets/prepare.py` wrote; they describe themselves, so no builder
code is needed. Encoded bytes are shuffled, then decoded: a tenth of the memory.
"""

import glob
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import augment, images, matching

_SHUFFLE_EXAMPLES = 10_000
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")

# Most heads of one training picture; HollywoodHeads has at most 27, SCUT-HEAD 89.
MAX_HEADS = 100


def open_builder(data_dir: str, name: str) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set.

    Raises:
        FileNotFoundError: There is none of this name.
    """
    # TFDS takes "~" and relative paths, but looks elsewhere when the folder lacks.
    if not os.path.isdir(os.path.join(data_dir, name)):
        raise FileNotFoundError(
            f"{name} is not prepared in {data_dir}; run "
            f"python datasets/prepare.py --dataset={name} --data_dir={data_dir}"
        )
    return tfds.builder(name, data_dir=data_dir)


def describe(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """What a manifest keeps of a data set: name, version, fingerprint, split sizes."""
    return {
        "name": builder.info.name,
        "version": str(builder.info.version),
        "fingerprint": dict(builder.info.metadata or {}).get("fingerprint"),
        "splits": {
            split: info.num_examples for split, info in builder.info.splits.items()
        },
    }


def classifier_training(
    builder: tfds.core.DatasetBuilder,
    split: str,
    image_size: int,
    batch_size: int,
    seed: int,
) -> tf.data.Dataset:
    """Endless shuffled batches of augmented head crops.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255] and `labels` `[B]` int32.
    """

    def prepare(seed: tf.Tensor, example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        seeds = tf.random.split(seed, 3)
        image = images.decode_image(example["image"])
        image = augment.random_crop(image, image_size, seeds[0])
        image = augment.colour(augment.flip(image, seeds[1]), seeds[2])
        return image, tf.cast(example["label"], tf.int32)

    examples = _seeded(_encoded(builder, split), seed)
    return _batched(examples.map(prepare, tf.data.AUTOTUNE), batch_size, True)


def classifier_evaluation(
    builder: tfds.core.DatasetBuilder, split: str, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """One pass over head crops, in order, as the graph's `classify_crops` sees them.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255] and `labels` `[B]` int32.
    """

    def prepare(example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        image = images.resize(images.decode_image(example["image"]), image_size)
        return image, tf.cast(example["label"], tf.int32)

    examples = _encoded(builder, split).map(prepare, tf.data.AUTOTUNE)
    return _batched(examples, batch_size, False)


def detector_training(
    builder: tfds.core.DatasetBuilder,
    split: str,
    anchor_boxes: Any,
    image_size: int,
    batch_size: int,
    seed: int,
    scales: tuple[float, float],
) -> tf.data.Dataset:
    """Endless shuffled batches of augmented pictures with their anchors' targets.

    Args:
        anchor_boxes: `[A, 4]` of a model for `image_size`.
        scales: Bounds of the scale jitter, see `augment.scale_and_crop`.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255], `class_targets` `[B, A]`
        int32 and `box_targets` `[B, A, 4]`, see `matching.match`.
    """
    anchor_boxes = tf.constant(anchor_boxes)

    def prepare(seed: tf.Tensor, example: dict) -> tuple[tf.Tensor, ...]:
        seeds = tf.random.split(seed, 3)
        image = images.decode_image(example["image"])
        objects = example["objects"]
        image, boxes, keep = augment.scale_and_crop(
            image, objects["bbox"], image_size, seeds[0], scales
        )
        image, boxes = augment.flip_with_boxes(image, boxes, seeds[1])
        class_targets, box_targets, _ = matching.match(
            _padded(tf.boolean_mask(boxes, keep), 0.0),
            _padded(tf.boolean_mask(objects["label"], keep), -1),
            anchor_boxes,
            _padded(tf.boolean_mask(objects["is_difficult"], keep), False),
        )
        return augment.colour(image, seeds[2]), class_targets, box_targets

    examples = _seeded(_encoded(builder, split), seed)
    return _batched(examples.map(prepare, tf.data.AUTOTUNE), batch_size, True)


def detector_evaluation(
    builder: tfds.core.DatasetBuilder, split: str, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """One pass over letterboxed pictures, in order, with their true boxes.

    Returns:
        Batches of dicts: `images` `[B, S, S, 3]` float32 in [0, 255], `extents`
        `[B, 2]` int32 (height, width of the original), ragged `boxes` `[B, M, 4]` and
        ragged `difficult` `[B, M]` bool.
    """

    def prepare(example: dict) -> dict[str, tf.Tensor]:
        image = images.decode_image(example["image"])
        return {
            "images": images.letterbox(image, image_size),
            "extents": tf.shape(image)[:2],
            "boxes": example["objects"]["bbox"],
            "difficult": example["objects"]["is_difficult"],
        }

    examples = _encoded(builder, split).map(prepare, tf.data.AUTOTUNE)
    return examples.ragged_batch(batch_size).prefetch(2)


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
        files = {c for c in candidates if c.lower().endswith(_IMAGE_ENDINGS)}
        if not files:
            raise FileNotFoundError(f"No picture is found at {pattern}.")
        found |= files
    return sorted(found)


def unlabelled_training(
    paths: Sequence[str], image_sizes: Sequence[int], batch_size: int, seed: int
) -> tf.data.Dataset:
    """Endless shuffled batches of random windows of pictures, at several sizes at once.

    Returns:
        Batches with one `[B, S, S, 3]` float32 in [0, 255] for each of `image_sizes`,
        all showing the same window.
    """

    def prepare(seed: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, ...]:
        seeds = tf.random.split(seed, 3)
        image = images.decode_image(tf.io.read_file(path))
        image = augment.random_crop(image, max(image_sizes), seeds[0], min_area=0.3)
        image = augment.colour(augment.flip(image, seeds[1]), seeds[2])
        return tuple(images.resize(image, size) for size in image_sizes)

    files = tf.data.Dataset.from_tensor_slices(list(paths))
    examples = _seeded(files, seed).map(prepare, tf.data.AUTOTUNE)
    return _batched(examples, batch_size, True)


def _encoded(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    return builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )


def _seeded(examples: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """Shuffles without end; each example gets its own seed for stateless random ops."""
    shuffled = examples.shuffle(_SHUFFLE_EXAMPLES, seed=seed).repeat()
    return shuffled.enumerate().map(
        lambda index, example: (
            tf.stack([tf.constant(seed, tf.int32), tf.cast(index, tf.int32)]),
            example,
        )
    )


def _padded(values: tf.Tensor, padding: Any) -> tf.Tensor:
    """Brings the heads of one picture to `MAX_HEADS` rows; more are cut off."""
    values = values[:MAX_HEADS]
    shape = tf.TensorShape([MAX_HEADS]).concatenate(values.shape[1:])
    missing = [[0, MAX_HEADS - tf.shape(values)[0]]] + [[0, 0]] * (shape.rank - 1)
    filled = tf.pad(values, missing, constant_values=tf.cast(padding, values.dtype))
    return tf.ensure_shape(filled, shape)


def _batched(
    examples: tf.data.Dataset, batch_size: int, training: bool
) -> tf.data.Dataset:
    return examples.batch(batch_size, drop_remainder=training).prefetch(2)
