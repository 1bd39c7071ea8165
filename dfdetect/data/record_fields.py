"""Scalar fields of the records of a split, and which records they choose.

Whole splits are read in the order of `prepared.read_encoded`, in which classifiers are
measured; `stored_origin` and `stored_meets` look at one serialized record.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import conditions, prepared, records


def read_fields(
    builder: tfds.core.DatasetBuilder, split: str, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Reads fields of all records of a split, `[N]` each; no image is decoded.

    Args:
        builder: Of a prepared data set.
        split: One of its splits.
        names: Names of its scalar fields to read.
    """
    found: dict[str, list[records.Scalar]] = {name: [] for name in names}
    if not names:
        return {}
    examples = builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    for example in examples.as_numpy_iterator():
        for name, values in found.items():
            feature = builder.info.features[name]
            values.append(records.to_scalar(feature, example[name]))
    return {name: np.array(values) for name, values in found.items()}


def read_origins(
    builder: tfds.core.DatasetBuilder, split: str, field: str = "source"
) -> np.ndarray:
    """Reads the names of where the records of a split come from, `[N]` text.

    Args:
        builder: Of a prepared data set.
        split: One of its splits.
        field: The field that says so, such as source or method. A record in which it is
            empty comes from the data set, by its full name.
    """
    name = prepared.name_dataset(builder)
    if field not in builder.info.features:
        return np.full(builder.info.splits[split].num_examples, name)
    values = read_fields(builder, split, [field])[field].astype(str)
    return np.where(values == "", name, values)


def name_origins(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition] = (),
    field: str = "source",
) -> dict[str, list[str]]:
    """Names the origins of the chosen records by label, sorted; see `read_origins`.

    Records without a label are real.
    """
    chosen = choose_records(builder, split, where)
    origins = read_origins(builder, split, field)[chosen]
    truths = np.full(len(origins), labels.NAMES[labels.REAL])
    if "label" in builder.info.features:
        truths = read_fields(builder, split, ["label"])["label"][chosen]
    return {name: np.unique(origins[truths == name]).tolist() for name in labels.NAMES}


def choose_records(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition],
) -> np.ndarray:
    """Says which records of a split meet every condition, `[N]` bool.

    Where a data set has no such field, its records meet what is negated and nothing
    else.
    """
    names = {condition.field for condition in where} & {*builder.info.features}
    values = read_fields(builder, split, sorted(names))
    chosen = np.ones(builder.info.splits[split].num_examples, bool)
    for condition in where:
        if condition.field in values:
            chosen &= condition.meets(values[condition.field])
        else:
            chosen &= condition.is_negated
    return chosen


def check_values(
    builders: Sequence[tfds.core.DatasetBuilder],
    splits: Sequence[str],
    where: Sequence[conditions.Condition],
) -> None:
    """Checks that records have the values that conditions name, against misspellings.

    Raises:
        ValueError: A record of no split of a data set has a value that is named.
    """
    for condition in where:
        found: set[str] = set()
        for builder in builders:
            if condition.field in builder.info.features:
                for split in {*splits} & {*builder.info.splits}:
                    values = read_fields(builder, split, [condition.field])
                    found.update(values[condition.field].astype(str))
        missing = [value for value in condition.values if value not in found]
        if missing:
            raise ValueError(
                f"where must name a {condition.field} that records have "
                f"({', '.join(sorted(found - {''})) or 'none has any'}), "
                f"got {missing[0]!r}."
            )


def stored_origin(
    builder: tfds.core.DatasetBuilder,
    field: str,
    stored: Mapping[str, tf.train.Feature],
) -> str:
    """The origin of one record, see `read_origins`, by its `tf.train.Features`."""
    return _stored_text(builder, field, stored) or prepared.name_dataset(builder)


def stored_meets(
    builder: tfds.core.DatasetBuilder,
    where: Sequence[conditions.Condition],
    stored: Mapping[str, tf.train.Feature],
) -> bool:
    """Whether one record meets every condition, see `choose`."""
    for condition in where:
        text = _stored_text(builder, condition.field, stored)
        is_met = condition.is_negated if text is None else condition.meets([text])[0]
        if not is_met:
            return False
    return True


def _stored_text(
    builder: tfds.core.DatasetBuilder,
    field: str,
    stored: Mapping[str, tf.train.Feature],
) -> str | None:
    """A scalar field as text; None where the data set does not have it."""
    if field not in builder.info.features:
        return None
    feature = stored[field]
    kind = feature.WhichOneof("kind")
    value: Any = getattr(feature, kind).value[0]
    if kind == "float_list":
        value = np.float32(value)
    return str(records.to_scalar(builder.info.features[field], value))
