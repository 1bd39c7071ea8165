"""Builds batches of image files without labels."""

from collections.abc import Sequence

import tensorflow as tf

from dfdetect.data import augment
from dfdetect.data.batches import NAME, Batches, ShuffledSource
from dfdetect.media import decode, resize


def build_training_batches(
    paths: Sequence[str], image_sizes: Sequence[int], batch_size: int, seed: int
) -> Batches:
    """Builds shuffled batches of random windows of images, at several sizes at once.

    Returns:
        Batches with one `[B, S, S, 3]` float32 in [0, 255] for each of `image_sizes`,
        all showing the same window.
    """

    def prepare(seed: tf.Tensor, example: dict) -> tuple[tf.Tensor, ...]:
        seeds = tf.random.split(seed, 3)
        image = decode.decode_image(tf.io.read_file(example[NAME]))
        image = augment.random_crop(image, max(image_sizes), seeds[0], min_area=0.3)
        image = augment.adjust_color(augment.flip(image, seeds[1]), seeds[2])
        return tuple(resize.resize(image, size) for size in image_sizes)

    files = tf.data.Dataset.from_tensor_slices({NAME: list(paths)})
    return Batches(ShuffledSource(files, seed), prepare, batch_size, seed)
