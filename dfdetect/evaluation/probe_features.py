"""Features of head crops for linear probes, from crops as trainings see them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import classifier_input, prepared, record_fields
from dfdetect.evaluation import hand_crafted_features, residual_features
from dfdetect.models import classifier

NETWORK_FEATURES = ("stages", "residual_stages")
FEATURES = (*NETWORK_FEATURES, "spectrum", "residual")

_BATCH_SIZE = 32

Describe = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Table:
    """Features of N crops.

    Attributes:
        features: `[N, D]` float32 each, by the names of `FEATURES`.
        truths: `[N]`, see `dfdetect.labels`.
        origins: `[N]` text, the maker or source; of a crop that was blended from a
            real, that of the real.
        groups: `[N]` text, with the data set before the name.
        blended: `[N]` bool, see `dfdetect.data.self_blending`.
    """

    features: dict[str, np.ndarray]
    truths: np.ndarray
    origins: np.ndarray
    groups: np.ndarray
    blended: np.ndarray

    def take(self, chosen: np.ndarray) -> "Table":
        """The crops that are chosen, `[N]` bool."""
        return Table(
            {name: values[chosen] for name, values in self.features.items()},
            self.truths[chosen],
            self.origins[chosen],
            self.groups[chosen],
            self.blended[chosen],
        )


def build_describe(names: Sequence[str], model: keras.Model | None = None) -> Describe:
    """Builds a function from crops `[B, S, S, 3]` in [0, 255] to features.

    Args:
        names: Which of `FEATURES`: "stages" is what the network pools before its
            logits, "residual_stages" the same of `residual_features.high_pass`,
            "spectrum" the power in rings of brightness and of both colors, "residual"
            see `residual_features.describe_residuals`.
        model: A classifier; needed for `NETWORK_FEATURES`.
    """
    functions: dict[str, Callable[[np.ndarray], Any]] = {
        "spectrum": lambda crops: [_describe_spectra(crop) for crop in crops],
        "residual": lambda crops: [
            residual_features.describe_residuals(crop) for crop in crops
        ],
    }
    if model is not None:
        embed = tf.function(
            classifier.build_embedding_model(model),
            input_signature=[tf.TensorSpec([None, *model.input_shape[1:]])],
        )
        functions["stages"] = lambda crops: embed(tf.constant(crops)).numpy()
        functions["residual_stages"] = lambda crops: embed(
            tf.constant(residual_features.high_pass(crops))
        ).numpy()
    return lambda crops: {
        name: np.asarray(functions[name](crops), np.float32) for name in names
    }


def describe_training(
    builders: Sequence[tfds.core.DatasetBuilder],
    describe: Describe,
    *,
    image_size: int,
    num_crops: int,
    blended: bool = False,
    seed: int = 0,
    count: Callable[[str, int], None] = lambda split, number: None,
) -> Table:
    """Draws crops of `train` as a training does, and describes them.

    Both classes are drawn equally often, and so is each source of a class; all are
    changed by the augmentation `makers`, which gives them the same range of sizes and
    of compression.

    Args:
        builders: Prepared data sets of labeled head crops or images with a head box.
        describe: See `build_describe`.
        image_size: Side of the crops in pixels.
        num_crops: How many; rounded up to whole batches.
        blended: Whether to draw only fakes that are made out of reals, else none.
        seed: Seed of order and augmentation.
        count: Called for each batch, with the split and its size.
    """
    batches = classifier_input.build_training_batches(
        builders,
        "train",
        image_size=image_size,
        batch_size=_BATCH_SIZE,
        seed=seed,
        augmentation="makers",
        sampling_mode="balanced",
        sample_by="source",
        self_blended=float(blended),
    )
    prepare = batches.prepare

    def prepare_named(seeds: tf.Tensor, example: dict) -> tuple[tf.Tensor, ...]:
        return (*prepare(seeds, example), example["key"], example["blended"])

    named = dataclasses.replace(batches, prepare=prepare_named)
    # Half of the crops are reals, which are not kept.
    num_drawn = num_crops * (2 if blended else 1)
    parts, truths, keys = [], [], []
    for crops, *others in named.from_step(0).take(-(-num_drawn // _BATCH_SIZE)):
        labels, drawn, is_blended = (part.numpy() for part in others)
        kept = is_blended == blended
        parts.append(describe(crops.numpy()[kept]))
        truths.append(labels[kept])
        keys.append(drawn[kept])
        count("train", int(kept.sum()))
    places = np.concatenate(keys)
    names = [_name_records(builder, "train") for builder in builders]
    origins, groups = (
        np.array([names[number][kind][place] for number, place in places])
        for kind in (0, 1)
    )
    return Table(
        _join(parts),
        np.concatenate(truths),
        origins,
        groups,
        np.full(len(places), blended),
    )


def describe_split(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    describe: Describe,
    *,
    image_size: int,
    most_crops: int = 0,
    count: Callable[[str, int], None] = lambda split, number: None,
) -> Table:
    """Describes crops of a split, unchanged; see `describe_training`.

    Args:
        builders: Likewise.
        split: Name of the split.
        describe: Likewise.
        image_size: Likewise.
        most_crops: Most crops of each maker and source in a data set, evenly spaced in
            its order; 0 for all.
        count: Likewise.
    """
    parts, truths, origins, groups = [], [], [], []
    for builder in builders:
        wanted = choose_some(builder, split, most_crops)
        for crops, labels in classifier_input.build_evaluation_batches(
            builder,
            split,
            image_size=image_size,
            batch_size=_BATCH_SIZE,
            wanted=wanted,
            crop_margin=1.0,
        ):
            parts.append(describe(crops.numpy()))
            truths.append(labels.numpy())
            count(split, len(crops))
        names = _name_records(builder, split)
        origins.append(names[0][wanted])
        groups.append(names[1][wanted])
    joined = np.concatenate(truths)
    return Table(
        _join(parts),
        joined,
        np.concatenate(origins),
        np.concatenate(groups),
        np.zeros(len(joined), bool),
    )


def choose_some(builder: tfds.core.DatasetBuilder, split: str, most: int) -> np.ndarray:
    """Chooses records of a split, `[N]` bool; see `most_crops` of `describe_split`."""
    origins = record_fields.read_origins(builder, split).astype(str)
    truths = record_fields.read_fields(builder, split, ["label"])["label"]
    wanted = np.full(len(origins), not most)
    for name in {*zip(origins.tolist(), truths.tolist(), strict=True)} if most else ():
        members = np.flatnonzero((origins == name[0]) & (truths == name[1]))
        number = min(most, len(members))
        wanted[members[np.arange(number) * len(members) // number]] = True
    return wanted


def join(tables: Sequence[Table]) -> Table:
    """Joins tables with the same features."""
    return Table(
        _join([table.features for table in tables]),
        *(
            np.concatenate([getattr(table, field) for table in tables])
            for field in ("truths", "origins", "groups", "blended")
        ),
    )


def _join(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _name_records(
    builder: tfds.core.DatasetBuilder, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Origin and group of each record, `[N]` text."""
    name = prepared.name_dataset(builder)
    groups = record_fields.read_fields(builder, split, ["group"])["group"]
    return (
        record_fields.read_origins(builder, split).astype(str),
        np.array([f"{name}/{group}" for group in groups]),
    )


def _describe_spectra(crop: np.ndarray) -> np.ndarray:
    """The spectra of brightness and both colors, one after the other."""
    channels = cv2.cvtColor(np.asarray(crop, np.float32) / 255, cv2.COLOR_RGB2YCrCb)
    return np.concatenate(
        [
            hand_crafted_features.compute_spectrum(channels[..., place] * 255)
            for place in range(3)
        ]
    )
