"""Measures other detectors on the records of a prepared data set as ours are.

A peer comes as a table of its probabilities, or as a Python file with a function
`predict(paths)`, which gets image files and returns fake probabilities. Nothing but
these counts; whatever framework it runs in.
"""

import csv
import dataclasses
import importlib.util
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dfdetect import console
from dfdetect.data import (
    batches,
    classifier_input,
    label_table,
    prepared,
    records,
)
from dfdetect.data.builders import base
from dfdetect.evaluation import evaluation_set

_NAMES = ("path", "image/filename", "filename", "file", "id")
_PROBABILITIES = ("fake_probability", "probability", "score")
_AT_ONCE = 64  # Files of one call of `predict`.
_GUESS = 0.5
INPUTS = ("crop", "image")

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Peer:
    """A detector of others.

    Attributes:
        name: Name of the file.
        judge: From a set to the probabilities `[N]` of its records, in [0, 1]; NaN
            where there is none.
        makers: Names of the makers of fakes that it was trained on; None where that is
            not known.
        crop_margin: Margin of the heads that it gets, see `boxes.square_crops`.
    """

    name: str
    judge: Callable[[evaluation_set.EvaluatedSet], np.ndarray]
    makers: Sequence[str] | None = None
    crop_margin: float = 1.3

    @property
    def manifest(self) -> dict[str, Any]:
        """The parts of a manifest that are known."""
        described: dict[str, Any] = {
            "model": "of others",
            "image_size": None,
            "temperature": None,
            "crop_margin": self.crop_margin,
            "data": [],
        }
        if self.makers is not None:
            fakes = {"real": [], "fake": list(self.makers)}
            described["origins"] = {"source": fakes, "method": fakes}
        return described


def open_peers(
    tables: Sequence[str],
    scripts: Sequence[str],
    *,
    say: Say,
    makers: Sequence[str] | None = None,
    crop_margin: float = 1.3,
    file_input: str = "crop",
) -> list[Peer]:
    """Opens the peers of tables and of Python files.

    Args:
        tables: Paths of CSV files, see `read_table`.
        scripts: Paths of Python files, see `load_predict`.
        say: Prints a line.
        makers: See `Peer`.
        crop_margin: See `Peer`.
        file_input: One of `INPUTS`: whether a script gets the heads that the records
            give, or whole images.

    Raises:
        ValueError: A file is neither.
    """
    judges: list[tuple[str, Callable]] = []
    for path in tables:
        probabilities = read_table(path)
        judges.append((path, _match_with(path, probabilities)))
    for path in scripts:
        predict = load_predict(path)
        judges.append((path, _run_with(path, predict, crop_margin, file_input, say)))
    return [Peer(path, judge, makers, crop_margin) for path, judge in judges]


def fill_gaps(
    name: str,
    probabilities: np.ndarray,
    judged: evaluation_set.EvaluatedSet,
    guess: bool,
) -> tuple[np.ndarray, list[str]]:
    """Takes .5 where a peer gave no probability, and says so.

    Args:
        name: Name of the peer.
        probabilities: `[N]`, NaN for none.
        judged: The set.
        guess: Whether that is allowed.

    Returns:
        Probabilities without gaps, and warnings.

    Raises:
        ValueError: There are gaps, and no guess is allowed.
    """
    missing = np.flatnonzero(np.isnan(probabilities))
    if not len(missing):
        return probabilities, []
    told = (
        f"{name} has no probability for {len(missing):,} of {len(probabilities):,} "
        f"records of {prepared.name_dataset(judged.builder)} {judged.split}, such as "
        f"{judged.survey.filenames[missing[0]]}"
    )
    if not guess or len(missing) == len(probabilities):
        raise ValueError(f"{told}. --guess_missing counts each as a guess of .5.")
    return np.where(np.isnan(probabilities), _GUESS, probabilities), [
        f"GAPS: {told}; each counts as a guess of .5."
    ]


def read_table(path: str) -> dict[str, float]:
    """Reads a CSV file of names and fake probabilities.

    Args:
        path: Path of a file whose header names one column of `path`, `image/filename`,
            `filename`, `file` or `id`, and one of `fake_probability`, `probability` or
            `score`; others are ignored. An empty field has no probability.

    Raises:
        ValueError: A column is missing, a probability is not a number in [0, 1], or two
            rows of one name differ; file and line.
    """
    found: dict[str, float] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        name_column = next((n for n in _NAMES if n in columns), None)
        column = next((n for n in _PROBABILITIES if n in columns), None)
        if name_column is None or column is None:
            raise ValueError(
                f"{path}:1: columns must be one of {', '.join(_NAMES)} and one of "
                f"{', '.join(_PROBABILITIES)}, got {', '.join(columns) or 'none'}."
            )
        for row in label_table.iterate_rows(reader, path):
            where = f"{path}:{reader.line_num}"
            name = (row[name_column] or "").strip().replace("\\", "/")
            value = _probability(where, (row[column] or "").strip())
            before = found.setdefault(name, value)
            if before != value and not (math.isnan(before) and math.isnan(value)):
                raise ValueError(f"{where}: {name!r} has {before} above, got {value}.")
    return found


def _probability(where: str, text: str) -> float:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.inf
    if not (math.isnan(value) or 0 <= value <= 1):
        raise ValueError(
            f"{where}: a fake probability must be in [0, 1], or empty, got {text!r}."
        )
    return value


def _match_with(path: str, probabilities: Mapping[str, float]) -> Callable:
    def judge(judged: evaluation_set.EvaluatedSet) -> np.ndarray:
        return match_records(path, probabilities, judged)

    return judge


def match_records(
    path: str, probabilities: Mapping[str, float], judged: evaluation_set.EvaluatedSet
) -> np.ndarray:
    """Finds the rows of a table for the records of a set, `[N]`, NaN for none.

    A row names a record by `image/filename`, by a path that ends with it, by the path
    that `export_lists` writes it to, or by its TFDS id.

    Raises:
        ValueError: No row is of the set, or a row fits two records.
    """
    filenames = judged.survey.filenames
    values = np.full(len(filenames), np.nan)
    by_name = dict(zip(filenames, range(len(filenames)), strict=True))
    aliases: dict[str, str] | None = None
    taken: dict[int, str] = {}
    for name, value in probabilities.items():
        place = _ending(name, by_name)
        if place is None:
            if aliases is None:
                aliases = dict(_aliases(judged.builder, judged.split))
            stem = os.path.splitext(name)[0]
            alias = _ending(name, aliases) or _ending(stem, aliases)
            place = by_name.get(alias) if alias else None
        if place is None:
            continue  # Of another set or split.
        if place in taken and not values[place] == value:
            raise ValueError(
                f"{path}: {name!r} and {taken[place]!r} both name the record "
                f"{filenames[place]}, with two probabilities."
            )
        values[place], taken[place] = value, name
    if probabilities and not taken:
        first = next(iter(probabilities))
        raise ValueError(
            f"{path} names no record of {judged.split} of "
            f"{prepared.name_dataset(judged.builder)}: it has {first!r}, the set "
            f"{filenames[0]!r}."
        )
    return values


def _ending(name: str, known: Mapping[str, Any]) -> Any:
    """Looks up a name, or the longest end of it as a path."""
    parts = name.split("/")
    for start in range(len(parts)):
        found = known.get("/".join(parts[start:]))
        if found is not None:
            return found
    return None


def _aliases(
    builder: tfds.core.DatasetBuilder, split: str
) -> Iterator[tuple[str, str]]:
    """Other names of records and their `image/filename`."""
    for record in records.read_records(builder, split, with_images=False):
        yield records.build_path_stem(record), record.filename
    for example in prepared.read_encoded(builder, split).as_numpy_iterator():
        yield example[batches.NAME].decode(), example["image/filename"].decode()


def load_predict(path: str) -> Callable[[list[str]], Sequence[float]]:
    """Loads the function `predict` of a Python file, which is run.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: It has no such function, or fails.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}.")
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} must be a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # Whatever others' code raises.
        raise ValueError(f"{path} fails: {type(error).__name__}: {error}") from error
    predict = getattr(module, "predict", None)
    if not callable(predict):
        raise ValueError(f"{path} must have a function predict(paths).")
    return predict


def _run_with(
    path: str,
    predict: Callable[[list[str]], Sequence[float]],
    crop_margin: float,
    file_input: str,
    say: Say,
) -> Callable:
    def judge(judged: evaluation_set.EvaluatedSet) -> np.ndarray:
        files = _files(judged, crop_margin, file_input)
        total = len(judged.survey.filenames)
        with (
            console.Progress(total, say, noun="image") as bar,
            tempfile.TemporaryDirectory(prefix="dfdetect-") as folder,
        ):
            parts = []
            for paths in _written(files, folder):
                parts.append(_checked(path, predict, paths))
                bar.count("judged", len(paths))
                for each in paths:
                    os.remove(each)
        return np.concatenate(parts)

    return judge


def _checked(
    path: str, predict: Callable[[list[str]], Sequence[float]], paths: list[str]
) -> np.ndarray:
    try:
        found = np.asarray(predict(list(paths)), np.float64)
    except Exception as error:  # Whatever others' code raises.
        raise ValueError(
            f"predict of {path} fails: {type(error).__name__}: {error}"
        ) from error
    if found.shape != (len(paths),):
        raise ValueError(
            f"predict of {path} must return {len(paths)} probabilities for as many "
            f"paths, got the shape {found.shape}."
        )
    wrong = found[~(np.isnan(found) | ((found >= 0) & (found <= 1)))]
    if len(wrong):
        raise ValueError(
            f"predict of {path} must return fake probabilities in [0, 1], or NaN for "
            f"none, got {wrong[0]}."
        )
    return found


def _files(
    judged: evaluation_set.EvaluatedSet, crop_margin: float, file_input: str
) -> Iterable[bytes]:
    if file_input == "crop":
        return classifier_input.read_encoded_files(
            judged.builder, judged.split, judged.wanted, crop_margin
        )
    examples = prepared.read_chosen(judged.builder, judged.split, judged.wanted)
    return (example["image"] for example in examples.as_numpy_iterator())


def _written(files: Iterable[bytes], folder: str) -> Iterator[list[str]]:
    """Writes files by their number, so that no name tells a label; yields some."""
    paths: list[str] = []
    for number, content in enumerate(files):
        ending = base.identify_format(content).lower() or "bin"
        paths.append(os.path.join(folder, f"{number:07d}.{ending}"))
        pathlib.Path(paths[-1]).write_bytes(content)
        if len(paths) == _AT_ONCE:
            yield paths
            paths = []
    if paths:
        yield paths
