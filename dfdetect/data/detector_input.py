"""From prepared data to batches of images with their heads' boxes."""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import (
    augment,
    classifier_input,
    conditions,
    detector_augment,
    prepared,
    record_fields,
    record_index,
    sampled_images,
    sampling,
)
from dfdetect.data.batches import NAME, Batches
from dfdetect.media import decode, resize
from dfdetect.models import anchors, grid_matching

AUGMENTATIONS = ("none", "light", "ordinary")

Objects = dict[str, tf.Tensor]  # `bbox`, `label` and `is_difficult` of some heads.

_JPEG_QUALITY = (30, 95)
_CLOSEUP_SEED = 7_919  # Their order is another one than that of the images.


def training(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    grid: anchors.Anchors,
    image_size: int,
    batch_size: int,
    seed: int,
    scales: tuple[float, float],
    augmentation: str = "light",
    mosaic: float = 0.0,
    jpeg_quality: tuple[int, int] | None = None,
    weights: Sequence[float] | None = None,
    where: Sequence[conditions.Condition] = (),
) -> Batches:
    """Shuffled batches of images with their anchors' targets.

    Args:
        builders: Prepared data sets of images with head boxes, or without any head.
        split: "train" or another one that all have.
        grid: The anchors of a model for `image_size`.
        image_size: Side of the images in pixels.
        batch_size: Images of a step.
        seed: Of order and augmentation.
        scales: Bounds of the scale jitter, see `augment.scale_and_crop`.
        augmentation: One of `AUGMENTATIONS`: "none" letterboxes as for evaluation, and
            what follows has no effect; "light" scales, cuts, mirrors and colors at
            random; "ordinary" makes images also as users have them, see
            `detector_augment`.
        mosaic: Chance that an image is joined with the three next in order, see
            `augment.mosaic`. Only then are those decoded.
        jpeg_quality: Bounds of `augment.jpeg`; by default 30 to 95 for half of the
            images if "ordinary", else not compressed.
        weights: How much each data set counts in a batch, by default its size.
        where: Conditions that records meet, see `record_fields.choose`.

    Returns:
        Batches of `images` `[B, S, S, 3]` float32 in [0, 255], `class_targets` `[B, A]`
        int32 and `box_targets` `[B, A, 4]`, see `matching.match_anchors`.

    Raises:
        ValueError: A data set has no such split or no boxes, or an argument is out of
            range.
    """
    match = grid_matching.GridMatcher(grid)

    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation must be one of {AUGMENTATIONS}, got {augmentation!r}."
        )
    ordinary = augmentation == "ordinary"

    def changed(seed: tf.Tensor, *examples: dict) -> tuple[tf.Tensor, Objects]:
        seeds = tf.random.split(seed, 7)
        canvas_seed = seeds[5] if ordinary else None
        image, heads = tf.cond(
            tf.random.stateless_uniform([], seeds[3]) < mosaic,
            lambda: _jittered(examples, image_size, seeds[0], scales, canvas_seed),
            lambda: _jittered(examples[:1], image_size, seeds[0], scales, canvas_seed),
        )
        if ordinary:
            image, heads = _pasted(image, heads, examples[0], seeds[6])
        image, boxes = augment.flip_with_boxes(image, heads["bbox"], seeds[1])
        heads = heads | {"bbox": boxes}
        if ordinary:
            image, heads = _as_users_have(image, heads, seeds[2])
        else:
            image = augment.colour(image, seeds[2])
        if jpeg_quality:
            image = augment.jpeg(image, seeds[4], jpeg_quality)
        elif ordinary:
            image = _half_compressed(image, seeds[4])
        return image, heads

    def prepare(seed: tf.Tensor, *examples: dict) -> tuple[tf.Tensor, ...]:
        if augmentation == "none":
            image, heads = _letterboxed(examples[0], image_size)
        else:
            image, heads = changed(seed, *examples)
        class_targets, box_targets, _ = match(
            heads["bbox"], heads["label"], heads["is_difficult"]
        )
        return image, class_targets, box_targets

    following = 3 if augmentation != "none" and mosaic else 0
    indexes = [
        record_index.RecordIndex(builder, split, whole_images=True, where=where)
        for builder in builders
    ]
    sampler = sampling.Sampler(
        [index.catalogue for index in indexes], batch_size, seed, weights=weights
    )
    closeups = None
    if ordinary and sampled_images.has_closeups(indexes):
        closeups = sampled_images.Closeups(
            indexes, batch_size, seed + _CLOSEUP_SEED, weights
        )
    source = sampled_images.SampledImages(
        indexes, sampler, batch_size, following, closeups
    )
    return Batches(source, prepare, batch_size, seed)


def evaluation(
    builder: tfds.core.DatasetBuilder,
    split: str,
    image_size: int,
    batch_size: int,
    where: Sequence[conditions.Condition] = (),
) -> tf.data.Dataset:
    """One pass over letterboxed images, in order, with their true boxes.

    Args:
        builder: A prepared data set of images with head boxes.
        split: One of its splits.
        image_size: Side of the images in pixels.
        batch_size: Images at once.
        where: Conditions that records meet, see `record_fields.choose`.

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

    examples = _chosen(builder, split, where).map(prepare, tf.data.AUTOTUNE)
    return examples.ragged_batch(batch_size).prefetch(2)


def evaluation_targets(
    builder: tfds.core.DatasetBuilder,
    split: str,
    grid: anchors.Anchors,
    image_size: int,
    batch_size: int,
    where: Sequence[conditions.Condition] = (),
) -> tf.data.Dataset:
    """One pass over letterboxed images, in order, with their anchors' targets.

    Returns:
        Batches as those of `training` without augmentation; the last may be smaller.
    """
    match = grid_matching.GridMatcher(grid)

    def prepare(example: dict) -> tuple[tf.Tensor, ...]:
        image, heads = _letterboxed(example, image_size)
        class_targets, box_targets, _ = match(
            heads["bbox"], heads["label"], heads["is_difficult"]
        )
        return image, class_targets, box_targets

    examples = _chosen(builder, split, where).map(prepare, tf.data.AUTOTUNE)
    return examples.batch(batch_size).prefetch(2)


def _chosen(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition],
) -> tf.data.Dataset:
    """The records of a split that meet every condition, in order."""
    wanted = record_fields.choose(builder, split, where) if where else None
    return classifier_input.choose(prepared.encoded(builder, split), wanted)


def images(
    builder: tfds.core.DatasetBuilder, split: str, places: Sequence[int]
) -> dict[int, tuple[str, np.ndarray]]:
    """Some images of a split, by their places in its order.

    Returns:
        For each place the name of the image and `[height, width, 3]` uint8 RGB.
    """

    def wanted(place: tf.Tensor, _: dict) -> tf.Tensor:
        return tf.reduce_any(tf.constant(places, tf.int64) == place)

    found = {}
    for place, example in prepared.encoded(builder, split).enumerate().filter(wanted):
        name = example.get("image/filename", example[NAME]).numpy().decode()
        found[int(place)] = name, decode.decode_image(example["image"]).numpy()
    return found


def _letterboxed(example: dict, image_size: int) -> tuple[tf.Tensor, Objects]:
    image, extent = decode.decode_for_letterbox(example["image"], image_size)
    heads = example["objects"]
    boxes = resize.letterbox_boxes(heads["bbox"], *tf.unstack(extent))
    return resize.letterbox(image, image_size, extent), heads | {"bbox": boxes}


def _jittered(
    examples: Sequence[dict],
    size: int,
    seed: tf.Tensor,
    scales: tuple[float, float],
    canvas_seed: tf.Tensor | None,
) -> tuple[tf.Tensor, Objects]:
    """An image at a random scale, or a mosaic of four, and the heads that stay.

    With `canvas_seed` a single one stands anywhere in half of the cases, else at the
    top left.
    """
    single = len(examples) == 1
    scale = augment.draw_scale(seed, scales) if single else scales[1]
    # A large image that is to be small is not decoded at its full size.
    wanted = tf.cast(tf.math.ceil(size * scale), tf.int32)
    decoded = [
        decode.decode_for_letterbox(example["image"], wanted)[0] for example in examples
    ]
    objects = [example["objects"] for example in examples]
    boxes = [heads["bbox"] for heads in objects]
    if single and canvas_seed is not None:
        image, moved, keep = _bordered(
            decoded[0], boxes[0], size, seed, scales, canvas_seed
        )
    elif single:
        image, moved, keep = augment.scale_and_crop(
            decoded[0], boxes[0], size, seed, scales
        )
    else:
        image, moved, keep = augment.mosaic(decoded, boxes, size, seed, scales)
    joined = {
        key: tf.concat([heads[key] for heads in objects], 0) for key in objects[0]
    }
    joined["bbox"] = moved
    return image, _kept(joined, keep)


def _bordered(
    image: tf.Tensor,
    boxes: tf.Tensor,
    size: int,
    seed: tf.Tensor,
    scales: tuple[float, float],
    canvas_seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """As `augment.scale_and_crop`, half of the time on a random canvas."""
    seeds = tf.random.split(canvas_seed, 2)
    window, moved, keep = augment.scaled_window(
        image, boxes, size, (size, size), seed, scales
    )
    window, moved = tf.cond(
        tf.random.stateless_uniform([], seeds[0]) < 0.5,
        lambda: detector_augment.place_on_canvas(window, moved, size, seeds[1]),
        lambda: (resize.pad_to_square(window, size), moved),
    )
    return window, moved / size, keep


def _pasted(
    image: tf.Tensor, heads: Objects, example: dict, seed: tf.Tensor
) -> tuple[tf.Tensor, Objects]:
    """Half of the images without heads get a small one with heads."""
    if "pasted" not in example:
        return image, heads
    seeds = tf.random.split(seed, 2)
    pasted = example["pasted"]
    size = image.shape[0]

    def paste() -> tuple[tf.Tensor, Objects]:
        small = decode.decode_for_letterbox(pasted["image"], size)[0]
        joined, boxes = detector_augment.paste(
            image, small, pasted["objects"]["bbox"], seeds[0]
        )
        pixels = boxes * size
        keep = augment.keeps(pixels, pixels, 0.0)
        return joined, _kept(pasted["objects"] | {"bbox": boxes}, keep)

    wanted = tf.random.stateless_uniform([], seeds[1]) < 0.5
    # A mosaic may have heads though its first image has none.
    bare = tf.equal(tf.size(heads["label"]), 0)
    has_one = tf.strings.length(pasted["image"]) > 0
    return tf.cond(wanted & bare & has_one, paste, lambda: (image, heads))


def _as_users_have(
    image: tf.Tensor, heads: Objects, seed: tf.Tensor
) -> tuple[tf.Tensor, Objects]:
    """Turns some images, changes the colors of all, blurs some, adds noise to some."""
    seeds = tf.random.split(seed, 7)

    def turn() -> tuple[tf.Tensor, Objects]:
        turned, boxes, keep = detector_augment.rotate_with_boxes(
            image, heads["bbox"], seeds[1]
        )
        return turned, _kept(heads | {"bbox": boxes}, keep)

    image, heads = tf.cond(
        tf.random.stateless_uniform([], seeds[0]) < 0.3, turn, lambda: (image, heads)
    )
    image = detector_augment.adjust_colors(image, seeds[2])
    for chance, change, first in (
        (0.15, detector_augment.blur, 3),
        (0.15, detector_augment.add_noise, 5),
    ):
        image = detector_augment.sometimes(
            chance,
            functools.partial(change, seed=seeds[first]),
            image,
            seeds[first + 1],
        )
    return image, heads


def _half_compressed(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    seeds = tf.random.split(seed, 2)
    return detector_augment.sometimes(
        0.5, lambda x: augment.jpeg(x, seeds[0], _JPEG_QUALITY), image, seeds[1]
    )


def _kept(heads: Objects, keep: tf.Tensor) -> Objects:
    return {key: tf.boolean_mask(values, keep) for key, values in heads.items()}
