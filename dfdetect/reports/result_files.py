"""Reads files of result lines, of any number, and surveys what they hold."""

import dataclasses
import heapq
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from dfdetect.metrics import calibration

NUM_BINS = 20  # Of the histogram of fake probabilities.

_KEYS: dict[str, Any] = {
    "path": str,
    "kind": str,
    "status": str,
    "heads": list,
    "width": (int, type(None)),
    "height": (int, type(None)),
    "fake_probability": (int, float, type(None)),
    "verdict": (str, type(None)),
}
_CLIP_KEYS: dict[str, Any] = {"frames": list, "tracks": list}
_VERDICTS = ("real", "uncertain", "fake", None)
_SETTINGS = {"settings"}  # Of the first line of a file of `dfdetect detect --resume`.
_MOST_PROBLEMS = 5  # That are described.


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a result line is: the number of its file, and its first byte there."""

    file: int
    offset: int


@dataclasses.dataclass
class Survey:
    """What result lines hold, in numbers.

    Attributes:
        num_lines: Number of result lines.
        verdicts: Number of lines by verdict; "none" where there is none.
        statuses: Number of lines by status.
        kinds: Number of lines by kind.
        bins: Numbers of lines by verdict in `NUM_BINS` equal parts of the range of
            fake probabilities.
        suspicious: The lines of highest fake probability, highest first.
        num_wrong: Number of lines that are not result lines.
        problems: What is wrong with the first of those.
        thresholds: Between which probabilities the verdicts change, as far as the lines
            tell; see `calibration.decide_verdict`.
    """

    num_lines: int = 0
    verdicts: Counter[str] = dataclasses.field(default_factory=Counter)
    statuses: Counter[str] = dataclasses.field(default_factory=Counter)
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    bins: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    suspicious: list[Place] = dataclasses.field(default_factory=list)
    num_wrong: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    thresholds: calibration.Thresholds = dataclasses.field(default_factory=dict)


def survey(paths: Sequence[str], num_suspicious: int) -> Survey:
    """Reads result lines once, in bounded memory.

    Args:
        paths: JSON Lines files.
        num_suspicious: Most lines to keep as `Survey.suspicious`.

    Raises:
        OSError: A file cannot be read.
    """
    found = Survey()
    # Of equally suspicious lines the first ones stay.
    heap: list[tuple[float, int, Place]] = []
    lowest = {"uncertain": 1.0, "fake": 1.0}
    highest_real = 0.0
    for place, line in _read_all(paths, found):
        verdict, probability = line["verdict"], line["fake_probability"]
        found.num_lines += 1
        found.verdicts[verdict or "none"] += 1
        found.statuses[line["status"]] += 1
        found.kinds[line["kind"]] += 1
        if probability is None:
            continue
        bins = found.bins.setdefault(verdict or "none", [0] * NUM_BINS)
        bins[min(int(probability * NUM_BINS), NUM_BINS - 1)] += 1
        if verdict in lowest:
            lowest[verdict] = min(lowest[verdict], probability)
        elif verdict == "real":
            highest_real = max(highest_real, probability)
        entry = (probability, -found.num_lines, place)
        if len(heap) < num_suspicious:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    found.suspicious = [
        place for _, _, place in sorted(heap, key=lambda x: x[:2])[::-1]
    ]
    fake_from = lowest["fake"]
    # An unfamiliar head is uncertain, however low its probability.
    above_real = max(lowest["uncertain"], highest_real)
    found.thresholds = {
        "real_below": min(above_real, fake_from),
        "fake_from": fake_from,
    }
    return found


def read(paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the result lines of files in their order, without those that are none.

    Raises:
        OSError: A file cannot be read.
    """
    for _, line in _read_all(paths, Survey()):
        yield line


def read_at(paths: Sequence[str], place: Place) -> dict[str, Any]:
    """Returns the result line at a place."""
    with open(paths[place.file], "rb") as file:
        file.seek(place.offset)
        return json.loads(file.readline())


def _read_all(
    paths: Sequence[str], found: Survey
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yields result lines with their places; counts others as wrong."""
    for number, path in enumerate(paths):
        offset = 0
        with open(path, "rb") as file:
            for row, content in enumerate(file, 1):
                place, offset = Place(number, offset), offset + len(content)
                if content.isspace():
                    continue
                try:
                    line = json.loads(content)
                    if row == 1 and isinstance(line, dict) and set(line) == _SETTINGS:
                        continue
                    problem = find_problem(line)
                except (ValueError, RecursionError) as error:
                    problem = f"no JSON: {error}"
                if not problem:
                    yield place, line
                    continue
                found.num_wrong += 1
                if len(found.problems) < _MOST_PROBLEMS:
                    where = f"{os.fspath(path)!r}, line {row}"
                    found.problems.append(f"{where}: {problem}")


def find_problem(line: Any) -> str:
    """Describes why something is not a result line; "" if it may be one."""
    if not isinstance(line, dict):
        return f"wanted a result line, got {type(line).__name__}"
    wanted = _KEYS | (_CLIP_KEYS if line.get("kind") == "video" else {})
    for key, types in wanted.items():
        if key not in line:
            return f"wanted a result line, got one without {key!r}"
        if not isinstance(line[key], types):
            return f"{key!r} of a result line cannot be {line[key]!r}"[:200]
    if line["verdict"] not in _VERDICTS:
        return f"a verdict must be real, uncertain or fake, got {line['verdict']!r}"
    probability = line["fake_probability"]
    if probability is not None and not 0 <= probability <= 1:
        return f"a fake probability must be in [0, 1], got {probability}"
    return ""
