"""Writes figures as JSON, and tables of what they come from as CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def to_json(figures: Any) -> str:
    """Converts nested dicts and lists to indented JSON, with null for NaN."""
    return json.dumps(_without_nan(figures), indent=2, allow_nan=False)


def to_csv(columns: Mapping[str, Sequence[Any]], leaky_split: bool = False) -> bytes:
    """Converts columns of one length to a table with their names, in UTF-8.

    Args:
        columns: Columns by name, at least one.
        leaky_split: Whether each row is to say that the split leaks, in a last column.
    """
    if leaky_split:
        num_rows = len(next(iter(columns.values())))
        columns = {**columns, "leaky_split": ["yes"] * num_rows}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode(errors="backslashreplace")


def _without_nan(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {name: _without_nan(value) for name, value in figures.items()}
    if isinstance(figures, (list, tuple)):
        return [_without_nan(value) for value in figures]
    return None if isinstance(figures, float) and math.isnan(figures) else figures
