"""What of a prepared data set stands in two splits, so that figures are too good."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dfdetect.data import conditions, record_columns, record_fields

# Fields that name what must not stand in two splits, and what they name. A clip or an
# actor is the same whether the scene was taken or the face.
PROVENANCE = {
    "group": "group",
    "movie": "movie",
    "target_id": "source video or actor",
    "source_id": "source video or actor",
}

# The kind of a leak where images without a group were split one by one.
RANDOM = "random split of images"
NUM_ALONE = "n_alone"  # Count in the metadata of a split: images so split.


def find_random_split(builder: tfds.core.DatasetBuilder) -> list[dict[str, Any]]:
    """Finds whether a data set was prepared with `--leaky_random_split`.

    Its images are groups by themselves, so that no name stands in two splits.

    Returns:
        Nothing, or one leak: `kind` is `RANDOM`, `name` the setting, and `splits` the
        number of records in each that name neither a group nor a split.
    """
    metadata = dict(builder.info.metadata or {})
    if not (metadata.get("settings") or {}).get("leaky_random_split"):
        return []
    counts = metadata.get("counts", {})
    # Sets of before there was the count have one of all that no list names.
    alone = {
        split: found.get(NUM_ALONE, found.get("n_split_by_hash", 0))
        for split, found in counts.items()
    }
    drawn = {split: number for split, number in alone.items() if number}
    if len(drawn) < 2:
        return []
    return [{"kind": RANDOM, "name": "leaky_random_split", "splits": drawn}]


def find_shared_names(
    builder: tfds.core.DatasetBuilder,
    splits: Mapping[str, Sequence[conditions.Condition]],
) -> list[dict[str, Any]]:
    """Finds names of provenance that records of more than one split have.

    Only the columns of the data set are read, see `record_columns`.

    Args:
        builder: A prepared data set.
        splits: Conditions that records meet, by the name of their split.

    Returns:
        For each `kind` (of `PROVENANCE`) and `name`: `splits`, the number of records
        in each; sorted.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for split, where in splits.items():
        columns = record_columns.open_columns(builder, split)
        chosen = record_fields.choose_records(builder, split, where)
        for field, kind in PROVENANCE.items():
            if f"field/{field}" not in columns:
                continue
            texts = columns.texts(f"field/{field}")
            numbers = np.bincount(texts.codes[chosen], minlength=len(texts.names))
            for name, number in zip(texts.names, numbers.tolist(), strict=True):
                if name and number:
                    counts = found.setdefault((kind, name), {})
                    counts[split] = counts.get(split, 0) + number
    return list_shared(found)


def list_shared(
    found: Mapping[tuple[str, str], dict[str, int]],
) -> list[dict[str, Any]]:
    """Lists those of more than one split, sorted; see `find_shared_names`.

    Args:
        found: Number of records in each split, by kind and name.
    """
    return [
        {"kind": kind, "name": name, "splits": counts}
        for (kind, name), counts in sorted(found.items())
        if len(counts) > 1
    ]


def describe_leaks(leaks: Sequence[Mapping[str, Any]]) -> str:
    """Words how many groups have records in two splits, and names the first."""
    parts = [
        f"images were split one by one ({_describe_splits(leak)}), so that those of "
        "one video or person stand in two splits"
        for leak in leaks
        if leak["kind"] == RANDOM
    ]
    named = [leak for leak in leaks if leak["kind"] != RANDOM]
    kinds = ", ".join(
        f"{number:,} {kind}{'s' if number > 1 else ''}"
        for kind, number in collections.Counter(leak["kind"] for leak in named).items()
    )
    if named:
        first = f"{named[0]['name']} ({_describe_splits(named[0])})"
        parts.append(f"{kinds} in two splits, such as {first}")
    return "; ".join(parts)


def _describe_splits(leak: Mapping[str, Any]) -> str:
    return ", ".join(f"{number} in {name}" for name, number in leak["splits"].items())
