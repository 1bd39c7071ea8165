"""Turns one training example of a classifier into pixels and a label, in the graph.

TensorFlow ops only; every random change is drawn from the seed of the example.
"""

import dataclasses

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
    cache: crop_cache.CropCache | None = None
    kinds: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation must be one of {AUGMENTATIONS}, "
                f"got {self.augmentation!r}."
            )
        if not 0 <= self.level_share <= 1:
            raise ValueError(f"level_share must be in [0, 1], got {self.level_share}.")

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
        if self.augmentation == "makers":
            crop = self._level(crop, example["box"], seeds[4])
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
        crop = augment.random_crop(crop, self.image_size, seeds[0])
        if self.augmentation == "forensic":
            return degradations.degrade(crop, seeds[1])
        return augment.adjust_color(augment.flip(crop, seeds[1]), seeds[2])
