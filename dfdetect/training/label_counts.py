"""Counts of reals and fakes to train on: checked, and turned into class weights."""

from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import classifier_input, conditions, prepared, records


def check_labels(
    builders: Sequence[tfds.core.DatasetBuilder],
    where: Sequence[conditions.Condition],
    makes_fakes: bool,
) -> None:
    """Refuses data sets that hold no reals, or no fakes while none are made.

    Args:
        builders: Prepared data sets; the records of one without labels are reals.
        where: Conditions that records meet.
        makes_fakes: Whether fakes are made of reals.

    Raises:
        ValueError: They are refused; the message has the counts.
    """
    counts = np.zeros(len(labels.NAMES), int)
    for builder in builders:
        if "label" in builder.info.features:
            counts += classifier_input.count_labels(builder, "train", where)
        else:
            counts[labels.REAL] += builder.info.splits["train"].num_examples
    if not counts[labels.REAL] or not (counts[labels.FAKE] or makes_fakes):
        names = ", ".join(prepared.name_dataset(builder) for builder in builders)
        raise ValueError(
            f"{names} must have real and fake examples to train on, got "
            f"{dict(zip(labels.NAMES, counts.tolist(), strict=True))}. "
            "--sampling=balanced with --self_blended makes fakes of reals."
        )


def balanced_class_weights(
    builders: Sequence[tfds.core.DatasetBuilder],
    where: Sequence[conditions.Condition],
) -> list[float]:
    """Computes weights with which reals and fakes count the same in all.

    Args:
        builders: Prepared data sets with labels.
        where: Conditions that records meet.

    Returns:
        A weight for each label; their mean over the training crops is 1.

    Raises:
        ValueError: One of the labels has no crops, or a data set has no labels.
    """
    for builder in builders:
        records.check_labeled(builder)
    counts = np.sum(
        [classifier_input.count_labels(b, "train", where) for b in builders], axis=0
    )
    if not all(counts):
        raise ValueError(f"--balance needs real and fake crops, got {counts}.")
    return [float(sum(counts) / (2 * count)) for count in counts]
