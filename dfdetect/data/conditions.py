"""Conditions that choose records by their fields, such as `source!=FFHQ|STYLEGAN`."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np

_PATTERN = re.compile(r"(?P<field>[^=!]+)(?P<negation>!?)=(?P<values>.+)")


@dataclasses.dataclass(frozen=True)
class Condition:
    """What one field of a record must, or must not, be.

    Attributes:
        field: Name of the field.
        values: As text, see `records.scalar`.
        is_negated: Whether the field must be none of the values, instead of one.
    """

    field: str
    values: tuple[str, ...]
    is_negated: bool

    def meets(self, found: Iterable[object]) -> np.ndarray:
        """Says which values `[N]` of the field meet the condition, `[N]` bool."""
        equal = np.isin(np.asarray(found).astype(str), self.values)
        return ~equal if self.is_negated else equal


def parse(text: str) -> Condition:
    """Reads FIELD=VALUE|VALUE or FIELD!=VALUE|VALUE.

    Raises:
        ValueError: It is neither.
    """
    match = _PATTERN.fullmatch(text)
    if not match:
        raise ValueError(
            f"where must be FIELD=VALUE|VALUE or FIELD!=VALUE|VALUE, got {text!r}."
        )
    values = tuple(match["values"].split("|"))
    return Condition(match["field"], values, bool(match["negation"]))


def excluded_values(texts: Sequence[str], field: str) -> list[str]:
    """The values of a field that conditions in words leave out, each once."""
    parsed = [parse(text) for text in texts]
    values = [c.values for c in parsed if c.field == field and c.is_negated]
    return list(dict.fromkeys(value for of_one in values for value in of_one))
