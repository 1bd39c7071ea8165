"""Describes how much a validation set can tell, before a training relies on it."""

from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import conditions, prepared, record_columns, record_fields
from dfdetect.metrics import expected_intervals

_WIDE = 0.05  # Half an interval; differences between steps are smaller.
_SIMILARITY = 0.1  # Of heads of one image; .08 by the interval of SCUT-HEAD's test.


def describe_crops(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition],
) -> str:
    """Describes a split of labeled images, and how well it can measure an AUC.

    Images of a group count once in each class, as they are not independent.

    Args:
        builder: A prepared data set with labels.
        split: The split to validate on.
        where: Conditions that records meet.
    """
    wanted = record_fields.choose_records(builder, split, where)
    columns = record_columns.open_columns(builder, split)
    truths = columns.numbers("field/label")[wanted]
    groups = np.arange(len(truths))
    if "group" in builder.info.features:
        groups = record_fields.read_fields(builder, split, ["group"])["group"][wanted]
    num_real, num_fake = (
        len(np.unique(groups[truths == label])) for label in (labels.REAL, labels.FAKE)
    )
    return _describe(
        builder,
        split,
        f"{len(truths):,} crops; groups: {num_real:,} of reals, {num_fake:,} of fakes",
        figure="an AUC",
        half_width=expected_intervals.auc_half_width(num_real, num_fake),
    )


def describe_heads(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition],
) -> str:
    """Describes a split of images with heads, and how well it can measure an AP.

    Args:
        builder: A prepared data set with boxes of heads.
        split: The split to validate on.
        where: Conditions that records meet.

    Returns:
        "" if no image has a head.
    """
    wanted = record_fields.choose_records(builder, split, where)
    columns = record_columns.open_columns(builder, split)
    counts = np.diff(columns.numbers("head_starts"))[wanted]
    num_images, num_heads = int(np.count_nonzero(counts)), int(counts.sum())
    if not num_heads:
        return ""
    correlated = 1 + _SIMILARITY * (num_heads / num_images - 1)
    return _describe(
        builder,
        split,
        f"{len(counts):,} images, {num_heads:,} heads in {num_images:,} of them",
        figure="an AP",
        half_width=expected_intervals.share_half_width(num_heads / correlated),
    )


def _describe(
    builder: tfds.core.DatasetBuilder,
    split: str,
    counts: str,
    *,
    figure: str,
    half_width: float,
) -> str:
    """Words what a split holds, and a warning if it is too small."""
    text = (
        f"{prepared.name_dataset(builder)}, {split}: {counts}; {figure} of .9 is known "
        f"to about ±{half_width:.3f}"
    )
    if half_width <= _WIDE:
        return text
    return (
        f"WARNING: {text}. That is too wide to tell one step from another: which "
        "weights and thresholds are kept may be chance."
    )
