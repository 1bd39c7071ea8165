"""Records that are drawn alike, of data sets of any size.

Whatever is looked at for all records is looked at in blocks, which bounds the memory.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from dfdetect.data import coded_texts

_BLOCK = 2**18  # Records.


@dataclasses.dataclass(frozen=True)
class Part:
    """Records of one data set that are drawn alike.

    Attributes:
        dataset: Place of the data set.
        size: Number of the records.
        records: `[size]`, their places; None for all from 0 on.
    """

    dataset: int
    size: int
    records: np.ndarray | None = None


class Stratum:
    """Records that are drawn alike, and whether to blend them.

    Args:
        parts: The records by data set.
        blended: See `sampling.Draws`.
    """

    def __init__(self, parts: Sequence[Part], blended: bool = False) -> None:
        self._parts, self.blended = parts, blended
        self._ends = np.cumsum([part.size for part in parts])
        self.size = int(self._ends[-1])

    def find(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Data sets and records at places `[M]` of the stratum."""
        numbers = np.searchsorted(self._ends, places, side="right")
        datasets, records = np.empty_like(places), np.empty_like(places)
        for number, part in enumerate(self._parts):
            chosen = numbers == number
            within = places[chosen] - (self._ends[number] - part.size)
            datasets[chosen] = part.dataset
            records[chosen] = within if part.records is None else part.records[within]
        return datasets, records


class Fakes:
    """The fakes of a data set by origin.

    Args:
        origins: Origins of all records of the data set.
        members: `[M]` uint32, its fakes.
    """

    def __init__(self, origins: coded_texts.CodedTexts, members: np.ndarray) -> None:
        self._origins, self._all = origins, members
        self._sorted, self._ends = group_by_code(
            members, origins.codes, len(origins.names)
        )

    def of_real(self, record: int) -> np.ndarray:
        """The fakes of the origin of a real; all where it has none."""
        code = int(self._origins.codes[record])
        end = int(self._ends[code])
        found = self._sorted[int(self._ends[code - 1]) if code else 0 : end]
        return found if len(found) and self._origins.names[code] else self._all


def count(labels: np.ndarray, label: int) -> int:
    """Counts the records `[N]` of a label."""
    return sum(int(np.count_nonzero(block == label)) for _, block in _blocks(labels))


def find_members(labels: np.ndarray, label: int) -> np.ndarray:
    """Returns the places of the records `[N]` of a label, ascending uint32."""
    members = np.empty(count(labels, label), np.uint32)
    done = 0
    for start, block in _blocks(labels):
        found = np.flatnonzero(block == label)
        members[done : done + len(found)] = found + start
        done += len(found)
    return members


def group_by_code(
    members: np.ndarray, codes: np.ndarray, num_codes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Groups records by a code; within a group they keep their order.

    A counting sort: `argsort` of all would take eight bytes a record, and as much again
    while it works.

    Args:
        members: `[M]`, places of records.
        codes: `[N]`, the code of each record, below `num_codes`.
        num_codes: Number of codes.

    Returns:
        The members in the order of their codes, and where each code ends among them,
        int64 `[num_codes]`.
    """
    ends = np.zeros(num_codes, np.int64)
    for _, block in _blocks(members):
        ends += np.bincount(codes[block], minlength=num_codes)
    free = -ends  # The first place of each code that is not filled yet.
    np.cumsum(ends, out=ends)
    free += ends
    grouped = np.empty_like(members)
    for _, block in _blocks(members):
        order = np.argsort(codes[block], kind="stable")
        own, firsts, sizes = np.unique(
            codes[block][order], return_index=True, return_counts=True
        )
        # Places of the block in order: those of a code follow one another.
        places = np.arange(len(block)) + np.repeat(free[own] - firsts, sizes)
        grouped[places] = block[order]
        free[own] += sizes
    return grouped, ends


def _blocks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields blocks of values, each with its first place."""
    for start in range(0, len(values), _BLOCK):
        yield start, values[start : start + _BLOCK]
