"""Turns one training example of a classifier into pixels and a label, in the graph.

TensorFlow ops only; every random change is drawn from the seed of the example.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from dfdetect import labels
from dfdetect.data import (
    augment,
    crop_cache,
    degradations,
    given_heads,
    self_blending,
)
from dfdetect.media import decode, resize

AUGMENTATIONS = ("none", "light", "forensic", "makers")

# What is folded into the seed of an example for each.
_ROTATION, _GAMMA, _GRAY = 1, 2, 3
_NUM_SEEDS = 5  # For the crop, the flip, the color, the blending and the leveling.


@dataclasses.dataclass(frozen=True)
class CropPreparation:
    """Decodes, cuts, blends and augments head crops: a `prepare` of `batches.Batches`.

    Attributes:
        image_size: Side of the crops in pixels.
        augmentation: One of `AUGMENTATIONS`: "light" cuts, mirrors and colors at
            random, "forensic" cuts at random and then applies `degradations.degrade`,
            "makers" applies `degradations.level_quality` and then "light".
        crop_margin: Side of a crop over the longer side of its head box; also says
            where the head lies in a crop that is blended.
        blending: How fakes are made out of reals; None where no example is blended.
        level_share: Share of the crops without a head box that "makers" levels; those
            with one are always leveled. Head boxes come with data sets of several
            sources, which differ in size and compression; the classes of a data set of
            crops may be alike in both, and leveling then only costs detail.
        rotated_share: Share of the crops that are rotated, see `pixel_changes.rotate`,
            whichever the augmentation: before "makers" levels them, as a head leans
            before its image is compressed.
        gamma_share: Share of the crops whose gamma is changed, whichever the
            augmentation.
        gray_share: Share of the crops whose color is taken away, whichever the
            augmentation: first, so that whatever else changes them may tint them.
        cache: Keeps decoded crops; None to decode each time.
        kinds: Kinds of image files, see `decode.decode_image`.

    Raises:
        ValueError: An attribute is out of range.
    """

    image_size: int
    augmentation: str = "light"
    crop_margin: float = 1.0
    blending: self_blending.Blending | None = None
    level_share: float = 1.0
    rotated_share: float = 0.0
    gamma_share: float = 0.0
    gray_share: float = 0.0
    cache: crop_cache.CropCache | None = None
    kinds: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation must be one of {AUGMENTATIONS}, "
                f"got {self.augmentation!r}."
            )
        for name in ("level_share", "rotated_share", "gamma_share", "gray_share"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}.")

    def __call__(self, seed: tf.Tensor, example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        """Prepares one example.

        Args:
            seed: int32 `[2]`, for stateless random ops.
            example: See `record_index.SampledRecords`.

        Returns:
            The crop, `[image_size, image_size, 3]` float32 in [0, 255], and the label,
            an int32 scalar.
        """
        seeds = tf.random.split(seed, _NUM_SEEDS)
        crop = self._load(example)
        if self.blending is not None:
            crop = tf.cond(
                example["blended"],
                lambda: self._blend(crop, seeds[3]),
                lambda: tf.cast(crop, tf.float32),
            )
        # Seeds of their own: without these changes all other draws are what they were.
        if self.gray_share:
            drain = tf.random.experimental.stateless_fold_in(seed, _GRAY)
            crop = _change_some(_remove_color, crop, drain, self.gray_share)
        if self.rotated_share:
            turn = tf.random.experimental.stateless_fold_in(seed, _ROTATION)
            crop = _change_some(degradations.rotate, crop, turn, self.rotated_share)
        if self.augmentation == "makers":
            crop = self._level(crop, example["box"], seeds[4])
        if self.gamma_share:
            light = tf.random.experimental.stateless_fold_in(seed, _GAMMA)
            crop = _change_some(
                degradations.adjust_gamma, crop, light, self.gamma_share
            )
        label = tf.where(
            example["blended"], labels.FAKE, tf.cast(example["label"], tf.int32)
        )
        return self._augment(crop, seeds), label

    def _load(self, example: dict) -> tf.Tensor:
        """Loads a crop, uint8 `[height, width, 3]`, from the cache if it is there."""

        def decode_and_cut() -> tf.Tensor:
            image = decode.decode_image(example["image"], self.kinds)
            crop = given_heads.cut_head(image, example["box"], self.crop_margin)
            return self.cache.keep(example["key"], crop) if self.cache else crop

        return tf.cond(
            tf.strings.length(example["packed_crop"]) > 0,
            lambda: decode.unpack(example["packed_crop"]),
            decode_and_cut,
        )

    def _blend(self, crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Makes a fake out of a real crop."""
        edge = max(0.0, (1 - 1 / self.crop_margin) / 2)
        box = tf.constant([edge, edge, 1 - edge, 1 - edge]) if edge else None
        assert self.blending is not None
        return self_blending.self_blend(
            tf.cast(crop, tf.float32), seed, box=box, blending=self.blending
        )

    def _level(self, crop: tf.Tensor, box: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Levels size and quality of a crop, or leaves it, see `level_share`."""
        if self.level_share == 1:
            return degradations.level_quality(crop, seed)
        has_box = tf.reduce_max(box) > 0
        is_drawn = tf.random.stateless_uniform([], seed) < self.level_share
        leveled = tf.cond(
            has_box | is_drawn,
            lambda: degradations.level_quality(crop, seed),
            lambda: tf.cast(crop, tf.float32),
        )
        return tf.ensure_shape(leveled, [None, None, 3])

    def _augment(self, crop: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Cuts and changes a crop at random; brings it to `image_size`."""
        if self.augmentation == "none":
            return resize.resize(crop, self.image_size)
        if self.augmentation == "forensic":
            window = augment.random_window(crop, seeds[0])
            return degradations.degrade(window, seeds[1], self.image_size)
        crop = augment.random_crop(crop, self.image_size, seeds[0])
        return augment.adjust_color(augment.flip(crop, seeds[1]), seeds[2])


def _remove_color(crop: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(crop))


def _change_some(
    change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    crop: tf.Tensor,
    seed: tf.Tensor,
    share: float,
) -> tf.Tensor:
    """Changes a share of the crops; all come out as float32."""
    seeds = tf.random.split(seed, 2)
    crop = tf.cast(crop, tf.float32)
    changed = tf.cond(
        tf.random.stateless_uniform([], seeds[0]) < share,
        lambda: change(crop, seeds[1]),
        lambda: crop,
    )
    return tf.ensure_shape(changed, [None, None, 3])
