"""Measures how much a classifier loses when its images are corrupted."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect import console, iterators, labels
from dfdetect.evaluation import corruptions
from dfdetect.media import decode
from dfdetect.media import resize as resizing
from dfdetect.metrics import calibration, classification

# Place among all and pixels.
PlacedImage = tuple[int, np.ndarray]
Variant = tuple[str, int]
_CLEAN: Variant = ("clean", 0)


def measure_robustness(
    logits_function: Callable[[tf.Tensor], Any],
    manifest: dict[str, Any],
    *,
    images: Iterable[bytes],
    truths: np.ndarray,
    groups: np.ndarray,
    batch_size: int = 16,
    max_crops: int | None = None,
    names: Sequence[str] = tuple(corruptions.CORRUPTIONS),
    threshold: float = 0.5,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures a classifier on altered crops, all alterations at all strengths.

    An altered image is resized by the same function as in training and serving, and
    strength 0 is the image itself: on a whole split its figure is that of
    `classifiers.measure_split`.

    Args:
        logits_function: From crops `[B, S, S, 3]` float32 to fake logits `[B]`, see
            `classifiers.build_logits_function`.
        manifest: The classifier's: `image_size` and `temperature` are used.
        images: Encoded crops, `N` of them.
        truths: `[N]` of `dfdetect.labels`.
        groups: `[N]`, names of what the crops belong to.
        batch_size: Crops at once.
        max_crops: At most so many, whole groups drawn at random; None for all.
        names: Corruptions of `corruptions.CORRUPTIONS` to measure.
        threshold: Fake probability from which on a crop is called a fake.
        seed: Seed of the drawn groups and of the resampling for intervals.
        say: Prints a line of progress.

    Returns:
        For JSON: `num_crops`, `num_groups`, `threshold`; `clean` with `auc` and
        `balanced_accuracy` and their 95 % intervals by group (`auc_interval`,
        `balanced_accuracy_interval`); `alterations`, for each name its `unit` and its
        `points`, each with `strength`, `value` (None at strength 0, the clean figure)
        and the same figures; `skipped`, why a name was left out.

    Raises:
        ValueError: An argument is wrong, or only one class is among the crops.
    """
    unknown = sorted(set(names) - set(corruptions.CORRUPTIONS))
    if unknown:
        known = ", ".join(corruptions.CORRUPTIONS)
        raise ValueError(f"names must be among {known}; got {', '.join(unknown)}.")
    reasons = corruptions.find_missing()
    skipped = {name: reasons[name] for name in names if name in reasons}
    wanted = [name for name in names if name not in skipped]
    places = draw_groups(truths, groups, max_crops, seed)
    truths, groups = truths[places], groups[places]
    variants = _list_variants(wanted)
    with console.Progress(len(places) * len(variants), say, noun="crop") as shown:
        logits = _logits(
            logits_function,
            iterators.batched(_decoded(images, places), batch_size),
            variants,
            manifest["image_size"],
            shown.count,
        )

    def figures(variant: Variant) -> dict[str, Any]:
        fakes = calibration.calibrate_logits(logits[variant], manifest["temperature"])
        return classification.measure_separation(
            truths, fakes, fakes >= threshold, groups, seed=seed
        )

    found = {variant: figures(variant) for variant in variants}
    return {
        "num_crops": len(places),
        "num_groups": len(np.unique(groups)),
        "threshold": threshold,
        "clean": found[_CLEAN],
        "alterations": {name: _points(name, found) for name in wanted},
        "skipped": skipped,
    }


def draw_groups(
    truths: np.ndarray, groups: np.ndarray, max_crops: int | None, seed: int = 0
) -> np.ndarray:
    """Draws whole groups, until one more would be too much.

    Returns:
        The places of their crops, ascending.

    Raises:
        ValueError: There are fewer than two classes, or none fits into `max_crops`.
    """
    if max_crops is not None and max_crops < 2:
        raise ValueError(f"max_crops must be at least 2, got {max_crops}.")
    kept = np.arange(len(truths))
    if max_crops is not None and len(truths) > max_crops:
        _, member_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(sizes))
        chosen = order[np.cumsum(sizes[order]) <= max_crops]
        kept = np.flatnonzero(np.isin(member_of, chosen))
    if set(truths[kept]) != {labels.REAL, labels.FAKE}:
        raise ValueError(f"The {len(kept)} crops drawn must be both reals and fakes.")
    return kept


def _list_variants(names: Sequence[str]) -> list[Variant]:
    """Lists the clean variant and each corruption at each of its strengths."""
    return [_CLEAN] + [
        (name, strength)
        for name in names
        for strength in range(1, 1 + len(corruptions.CORRUPTIONS[name].values))
    ]


def _decoded(
    encoded_images: Iterable[bytes], places: np.ndarray
) -> Iterator[PlacedImage]:
    decode_image = tf.function(
        decode.decode_image, input_signature=[tf.TensorSpec([], tf.string)]
    )
    wanted = set(places.tolist())
    for place, encoded in enumerate(encoded_images):
        if place in wanted:
            yield place, decode_image(tf.constant(encoded)).numpy()


def _logits(
    logits_function: Callable[[tf.Tensor], Any],
    batches: Iterable[list[PlacedImage]],
    variants: Sequence[Variant],
    image_size: int,
    count: Callable[[str], None],
) -> dict[Variant, np.ndarray]:
    """Fake logits `[N]` of each variant; an image is decoded once for all of them."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def resize(image: tf.Tensor) -> tf.Tensor:
        return resizing.resize(image, image_size)

    def crop(placed: PlacedImage, variant: Variant) -> tf.Tensor:
        place, image = placed
        name, strength = variant
        if variant != _CLEAN:
            image = corruptions.corrupt_image(image, name, strength, seed=place)
        return resize(tf.constant(image))

    found: dict[Variant, list[np.ndarray]] = {variant: [] for variant in variants}
    # OpenCV and ffmpeg let go of Python's lock.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for batch in batches:
            for variant in variants:
                altered = pool.map(crop, batch, [variant] * len(batch))
                found[variant].append(np.asarray(logits_function(tf.stack([*altered]))))
                for _ in batch:
                    count(variant[0])
    return {variant: np.concatenate(found[variant]) for variant in variants}


def _points(name: str, found: dict[Variant, dict[str, Any]]) -> dict[str, Any]:
    alteration = corruptions.CORRUPTIONS[name]
    return {
        "unit": alteration.unit,
        "points": [
            {"strength": 0, "value": None, **found[_CLEAN]},
            *(
                {"strength": strength, "value": value, **found[name, strength]}
                for strength, value in enumerate(alteration.values, 1)
            ),
        ],
    }
