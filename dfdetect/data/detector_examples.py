"""Turns training examples of a detector into an image and its heads, in the graph.

TensorFlow ops only; every random change is drawn from the seed of the example.
"""

import dataclasses
import functools
from collections.abc import Sequence

import tensorflow as tf

from dfdetect.data import augment, detector_augment
from dfdetect.media import decode, resize

AUGMENTATIONS = ("none", "light", "ordinary")

Objects = dict[str, tf.Tensor]  # `bbox`, `label` and `is_difficult` of some heads.

_JPEG_QUALITY = (30, 95)
_NUM_SEEDS = 7


@dataclasses.dataclass(frozen=True)
class ImagePreparation:
    """Decodes and augments images with their heads' boxes.

    Attributes:
        image_size: Side of the images in pixels.
        scales: Bounds of the scale jitter, see `augment.scale_and_crop`.
        augmentation: One of `AUGMENTATIONS`: "none" letterboxes as for evaluation, and
            the other attributes have no effect; "light" scales, cuts, mirrors and
            colors at random; "ordinary" also makes images as users have them, see
            `detector_augment`.
        mosaic: Chance that an image is joined with the three that follow it, see
            `augment.build_mosaic`. Only then are those decoded.
        jpeg_quality: Bounds of `augment.compress_jpeg`; by default 30 to 95 for half of
            the images if "ordinary", else images are not compressed.
        gray_share: Share of the images whose color "ordinary" takes away.

    Raises:
        ValueError: There is no such augmentation, or the share is out of range.
    """

    image_size: int
    scales: tuple[float, float]
    augmentation: str = "light"
    mosaic: float = 0.0
    jpeg_quality: tuple[int, int] | None = None
    gray_share: float = 0.1

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation must be one of {AUGMENTATIONS}, "
                f"got {self.augmentation!r}."
            )
        if not 0 <= self.gray_share <= 1:
            raise ValueError(f"gray_share must be in [0, 1], got {self.gray_share}.")

    @property
    def num_following(self) -> int:
        """How many of the examples next in order each image needs."""
        return 3 if self.augmentation != "none" and self.mosaic else 0

    def __call__(self, seed: tf.Tensor, *examples: dict) -> tuple[tf.Tensor, Objects]:
        """Prepares one image.

        Args:
            seed: int32 `[2]`, for stateless random ops.
            *examples: The example and those that follow it, see
                `sampled_images.SampledImages`.

        Returns:
            The image, `[image_size, image_size, 3]` float32 in [0, 255], and its heads.
        """
        if self.augmentation == "none":
            return letterbox_example(examples[0], self.image_size)
        ordinary = self.augmentation == "ordinary"
        seeds = tf.random.split(seed, _NUM_SEEDS)
        canvas_seed = seeds[5] if ordinary else None
        image, heads = tf.cond(
            tf.random.stateless_uniform([], seeds[3]) < self.mosaic,
            lambda: self._jitter(examples, seeds[0], canvas_seed),
            lambda: self._jitter(examples[:1], seeds[0], canvas_seed),
        )
        if ordinary:
            image, heads = _paste_closeup(image, heads, examples[0], seeds[6])
        image, boxes = augment.flip_with_boxes(image, heads["bbox"], seeds[1])
        heads = heads | {"bbox": boxes}
        if ordinary:
            image, heads = _change_as_users_do(image, heads, seeds[2], self.gray_share)
        else:
            image = augment.adjust_color(image, seeds[2])
        if self.jpeg_quality:
            image = augment.compress_jpeg(image, seeds[4], self.jpeg_quality)
        elif ordinary:
            image = _compress_half(image, seeds[4])
        return image, heads

    def _jitter(
        self,
        examples: Sequence[dict],
        seed: tf.Tensor,
        canvas_seed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, Objects]:
        """Scales an image at random, or joins four to a mosaic; keeps visible heads.

        With `canvas_seed` a single image is placed anywhere in half of the cases, else
        at the top left.
        """
        size, scales = self.image_size, self.scales
        single = len(examples) == 1
        scale = augment.draw_scale(seed, scales) if single else scales[1]
        # A large image that is to be small is not decoded at its full size.
        wanted = tf.cast(tf.math.ceil(size * scale), tf.int32)
        decoded = [
            decode.decode_for_letterbox(example["image"], wanted)[0]
            for example in examples
        ]
        objects = [example["objects"] for example in examples]
        boxes = [heads["bbox"] for heads in objects]
        if single and canvas_seed is not None:
            image, moved, keep = _scale_onto_canvas(
                decoded[0], boxes[0], size, seed, scales, canvas_seed
            )
        elif single:
            image, moved, keep = augment.scale_and_crop(
                decoded[0], boxes[0], size=size, seed=seed, scales=scales
            )
        else:
            image, moved, keep = augment.build_mosaic(
                decoded, boxes, size=size, seed=seed, scales=scales
            )
        joined = {
            key: tf.concat([heads[key] for heads in objects], 0) for key in objects[0]
        }
        joined["bbox"] = moved
        return image, _keep_heads(joined, keep)


def letterbox_example(example: dict, image_size: int) -> tuple[tf.Tensor, Objects]:
    """Decodes an example and letterboxes it, its boxes relative to the letterbox."""
    image, extent = decode.decode_for_letterbox(example["image"], image_size)
    heads = example["objects"]
    boxes = resize.letterbox_boxes(heads["bbox"], *tf.unstack(extent))
    return resize.letterbox(image, image_size, extent), heads | {"bbox": boxes}


def _scale_onto_canvas(
    image: tf.Tensor,
    boxes: tf.Tensor,
    size: int,
    seed: tf.Tensor,
    scales: tuple[float, float],
    canvas_seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Like `augment.scale_and_crop`, half of the time on a random canvas."""
    seeds = tf.random.split(canvas_seed, 2)
    window, moved, keep = augment.cut_scaled_window(
        image, boxes, size=size, most=(size, size), seed=seed, scales=scales
    )
    window, moved = tf.cond(
        tf.random.stateless_uniform([], seeds[0]) < 0.5,
        lambda: detector_augment.place_on_canvas(window, moved, size, seeds[1]),
        lambda: (resize.pad_to_square(window, size), moved),
    )
    return window, moved / size, keep


def _paste_closeup(
    image: tf.Tensor, heads: Objects, example: dict, seed: tf.Tensor
) -> tuple[tf.Tensor, Objects]:
    """Pastes a small image with heads onto half of the images without heads."""
    if "pasted" not in example:
        return image, heads
    seeds = tf.random.split(seed, 2)
    pasted = example["pasted"]
    size = image.shape[0]

    def paste() -> tuple[tf.Tensor, Objects]:
        small = decode.decode_for_letterbox(pasted["image"], size)[0]
        joined, boxes = detector_augment.paste_image(
            image, small, pasted["objects"]["bbox"], seeds[0]
        )
        pixels = boxes * size
        keep = augment.find_visible(pixels, pixels, 0.0)
        return joined, _keep_heads(pasted["objects"] | {"bbox": boxes}, keep)

    wanted = tf.random.stateless_uniform([], seeds[1]) < 0.5
    # A mosaic may have heads though its first image has none.
    bare = tf.equal(tf.size(heads["label"]), 0)
    has_one = tf.strings.length(pasted["image"]) > 0
    return tf.cond(wanted & bare & has_one, paste, lambda: (image, heads))


def _change_as_users_do(
    image: tf.Tensor, heads: Objects, seed: tf.Tensor, gray_share: float
) -> tuple[tf.Tensor, Objects]:
    """Turns some images, changes the colors of all, blurs some, adds noise to some."""
    seeds = tf.random.split(seed, 7)

    def turn() -> tuple[tf.Tensor, Objects]:
        turned, boxes, keep = detector_augment.rotate_with_boxes(
            image, heads["bbox"], seeds[1]
        )
        return turned, _keep_heads(heads | {"bbox": boxes}, keep)

    image, heads = tf.cond(
        tf.random.stateless_uniform([], seeds[0]) < 0.3, turn, lambda: (image, heads)
    )
    image = detector_augment.adjust_colors(image, seeds[2], gray_share=gray_share)
    for chance, change, first in (
        (0.15, detector_augment.blur, 3),
        (0.15, detector_augment.add_noise, 5),
    ):
        image = detector_augment.apply_sometimes(
            chance,
            functools.partial(change, seed=seeds[first]),
            image,
            seeds[first + 1],
        )
    return image, heads


def _compress_half(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    seeds = tf.random.split(seed, 2)
    return detector_augment.apply_sometimes(
        0.5,
        lambda x: augment.compress_jpeg(x, seeds[0], _JPEG_QUALITY),
        image,
        seeds[1],
    )


def _keep_heads(heads: Objects, keep: tf.Tensor) -> Objects:
    return {key: tf.boolean_mask(values, keep) for key, values in heads.items()}
