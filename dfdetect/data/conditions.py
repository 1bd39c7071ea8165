"""Conditions that choose records by their fields, such as `source!=FFHQ|STYLEGAN`.

`group@0/5` chooses a fifth of the groups, by a hash of their names, and `group!@0/5`
the others; `group@0-14/100` chooses 15 %.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

_PATTERN = re.compile(r"(?P<field>[^=!]+)(?P<negation>!?)=(?P<values>.+)")
_PART = re.compile(
    r"group(?P<negation>!?)@(?P<first>\d+)(?:-(?P<last>\d+))?/(?P<parts>\d+)"
)


@dataclasses.dataclass(frozen=True)
class Condition:
    """Values that one field of a record must, or must not, have.

    Attributes:
        field: Name of the field.
        values: As text, see `records.to_scalar`.
        is_negated: Whether the field must be none of the values, instead of one.
    """

    field: str
    values: tuple[str, ...]
    is_negated: bool

    def meets(self, found: Iterable[object]) -> np.ndarray:
        """Says which values `[N]` of the field meet the condition, `[N]` bool."""
        equal = np.isin(np.asarray(found).astype(str), self.values)
        return ~equal if self.is_negated else equal


@dataclasses.dataclass(frozen=True)
class GroupPart(Condition):
    """That the group of a record is, or is not, in some of equal parts of all groups.

    Attributes:
        first: Number of the first of these parts.
        last: Number of the last one.
        parts: Number of parts; a group is in the same part at any time and in
            any data set.
    """

    first: int
    last: int
    parts: int

    def meets(self, found: Iterable[object]) -> np.ndarray:
        """See `Condition.meets`."""
        inside = [self.first <= self._part(str(g)) <= self.last for g in found]
        return np.array(inside, bool) ^ self.is_negated

    def _part(self, group: str) -> int:
        # Not the digest that shares groups out to splits: parts of a split would be
        # uneven.
        digest = hashlib.sha256(f"part\0{group}".encode()).digest()
        return int.from_bytes(digest[:8], "big") * self.parts >> 64


def parse_condition(text: str) -> Condition:
    """Reads FIELD=VALUE|VALUE, FIELD!=VALUE|VALUE or `group@0/5`.

    Raises:
        ValueError: `text` has none of these forms.
    """
    part = _PART.fullmatch(text)
    if part:
        first, parts = int(part["first"]), int(part["parts"])
        last = int(part["last"] or first)
        if not first <= last < parts:
            raise ValueError(
                "where must name parts of a number of them, from 0 on, as in "
                f"group@0/5 or group@0-14/100, got {text!r}."
            )
        return GroupPart("group", (), bool(part["negation"]), first, last, parts)
    match = _PATTERN.fullmatch(text)
    if not match:
        raise ValueError(
            f"where must be FIELD=VALUE|VALUE or FIELD!=VALUE|VALUE, got {text!r}."
        )
    values = tuple(match["values"].split("|"))
    return Condition(match["field"], values, bool(match["negation"]))


def list_excluded_values(texts: Sequence[str], field: str) -> list[str]:
    """Lists the values of a field that conditions exclude, each once."""
    parsed = [parse_condition(text) for text in texts]
    values = [c.values for c in parsed if c.field == field and c.is_negated]
    return list(dict.fromkeys(value for of_one in values for value in of_one))
