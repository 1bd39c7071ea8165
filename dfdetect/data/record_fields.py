"""Scalar fields of the records of a split, and which records they choose.

All are in the order of `prepared.read_encoded`, in which classifiers are measured, and
of `record_index`. Fields come from the columns beside the files, see `record_columns`;
those that have none, such as `image/filename`, are read from the records.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import (
    coded_texts,
    conditions,
    prepared,
    record_columns,
    records,
)


def read_fields(
    builder: tfds.core.DatasetBuilder, split: str, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Reads fields of all records of a split, `[N]` each; no image is decoded.

    Args:
        builder: Of a prepared data set.
        split: One of its splits.
        names: Names of its scalar fields to read.
    """
    if not names:
        return {}
    columns = record_columns.open_columns(builder, split)
    found = {
        name: _to_values(columns, builder.info.features[name], name)
        for name in names
        if f"field/{name}" in columns
    }
    others = [name for name in names if name not in found]
    found |= _read_stored(builder, split, others)
    return {name: found[name] for name in names}


def _to_values(
    columns: record_columns.Columns,
    feature: tfds.features.FeatureConnector,
    name: str,
) -> np.ndarray:
    """A column as `records.to_scalar` gives its values."""
    if columns.is_text(f"field/{name}"):
        return columns.texts(f"field/{name}").to_array()
    distinct, codes = np.unique(columns.numbers(f"field/{name}"), return_inverse=True)
    values = [records.to_scalar(feature, value) for value in distinct]
    return np.array(values)[codes] if len(values) else np.array([])


def _read_stored(
    builder: tfds.core.DatasetBuilder, split: str, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Reads fields that have no columns from the records."""
    if not names:
        return {}
    found: dict[str, list[records.Scalar]] = {name: [] for name in names}
    examples = builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
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
    columns = record_columns.open_columns(builder, split)
    return read_coded_origins(builder, columns, field).to_array()


def read_coded_origins(
    builder: tfds.core.DatasetBuilder, columns: record_columns.Columns, field: str
) -> coded_texts.CodedTexts:
    """Reads origins, see `read_origins`, from the columns of a split."""
    dataset, name = prepared.name_dataset(builder), f"field/{field}"
    if name not in columns:
        return coded_texts.repeat(dataset, len(columns))
    if columns.is_text(name):
        return columns.texts(name).rename("", dataset)
    distinct, codes = np.unique(columns.numbers(name), return_inverse=True)
    feature = builder.info.features[field]
    texts = [str(records.to_scalar(feature, value)) or dataset for value in distinct]
    return coded_texts.encode(np.array(texts, str)[codes])


def name_origins(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition] = (),
    field: str = "source",
) -> dict[str, list[str]]:
    """Names the origins of the chosen records by label, sorted; see `read_origins`.

    Records without a label are real.
    """
    columns = record_columns.open_columns(builder, split)
    chosen = choose_records(builder, split, where)
    origins = read_coded_origins(builder, columns, field)
    truths = np.broadcast_to(np.int8(labels.REAL), len(columns))
    if "label" in builder.info.features:
        truths = columns.numbers("field/label")
    return {
        name: sorted(origins.names[x] for x in np.unique(origins.codes[wanted]))
        for name, wanted in (
            (name, chosen & (truths == label))
            for label, name in enumerate(labels.NAMES)
        )
    }


def choose_records(
    builder: tfds.core.DatasetBuilder,
    split: str,
    where: Sequence[conditions.Condition],
) -> np.ndarray:
    """Says which records of a split meet every condition, `[N]` bool.

    Where a data set has no such field, its records meet what is negated and nothing
    else.
    """
    chosen = np.ones(builder.info.splits[split].num_examples, bool)
    if not where:
        return chosen
    columns = record_columns.open_columns(builder, split)
    for condition in where:
        chosen &= _meets(builder, split, columns, condition)
    return chosen


def parse_conditions(
    builder: tfds.core.DatasetBuilder, split: str, texts: Sequence[str]
) -> list[conditions.Condition]:
    """Reads conditions that some records of a split must meet together.

    Raises:
        ValueError: A text is none, see `conditions.parse_condition`, no record meets
            all, or a file of the split is missing, cut short or changed.
    """
    record_columns.open_columns(builder, split)
    parsed = [conditions.parse_condition(text) for text in texts]
    if parsed and not choose_records(builder, split, parsed).any():
        raise ValueError(
            f"No record of {split} of {builder.info.full_name} meets "
            f"{' and '.join(texts)}."
        )
    return parsed


def _meets(
    builder: tfds.core.DatasetBuilder,
    split: str,
    columns: record_columns.Columns,
    condition: conditions.Condition,
) -> np.ndarray:
    """Says which records meet a condition, or whether all do."""
    if condition.field not in builder.info.features:
        return np.array(condition.is_negated)
    name = f"field/{condition.field}"
    if name not in columns:
        values = read_fields(builder, split, [condition.field])[condition.field]
        return condition.meets(values)
    # Of each value once: there are far fewer than records.
    if columns.is_text(name):
        coded = columns.texts(name)
        return condition.meets(coded.names)[coded.codes]
    numbers = columns.numbers(name)
    distinct, feature = np.unique(numbers), builder.info.features[condition.field]
    texts = [str(records.to_scalar(feature, value)) for value in distinct]
    return np.isin(numbers, distinct[condition.meets(texts)])


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
                    found.update(_distinct(builder, split, condition.field))
        missing = [value for value in condition.values if value not in found]
        if missing:
            raise ValueError(
                f"where must name a {condition.field} that records have "
                f"({', '.join(sorted(found - {''})) or 'none has any'}), "
                f"got {missing[0]!r}."
            )


def _distinct(builder: tfds.core.DatasetBuilder, split: str, field: str) -> set[str]:
    """The values of a field as text."""
    columns = record_columns.open_columns(builder, split)
    if f"field/{field}" in columns and columns.is_text(f"field/{field}"):
        return {*columns.texts(f"field/{field}").names}
    return {*read_fields(builder, split, [field])[field].astype(str).tolist()}
