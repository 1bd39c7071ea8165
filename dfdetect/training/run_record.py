"""A record of flags and data, so that a run does not resume as another one unnoticed.

`flags.txt` in the folder of a run has its flags, with a comment for each change, and
`data.json` describes its data sets.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from dfdetect import files

FLAGS_FILE = "flags.txt"
DATA_FILE = "data.json"

# Flags of where and how often, not what: they may change without notice.
_UNBOUND = frozenset(
    (
        "model_dir",
        "data_dir",
        "strategy",
        "devices",
        "start_timeout",
        "log_every",
        "checkpoint_every",
        "keep",
        "histograms",
        "profile_steps",
        "cache_megabytes",
        "projected",
        "explained",
        # Where a run starts; once it resumes, without effect but on what
        # --freeze_backbone freezes: a batch norm that no file gave learns on.
        "snapshot",
        "snapshot_step",
        "init_from",
    )
)

# The workers of a run may differ in these: in paths, in their memory, and in what only
# the chief does. What decides when they wait for each other is not among them.
_OF_ONE_WORKER = frozenset(
    (
        "model_dir",
        "data_dir",
        "snapshot",
        "init_from",
        "start_timeout",
        "cache_megabytes",
        "keep",
        "histograms",
        "profile_steps",
        "projected",
        "explained",
    )
)

# Changes of these are allowed, and noted.
_NOTED = frozenset(("steps", "patience", "eval_every", "allow_leaky_split"))

# A change of these makes another run.
_FIXED = frozenset(
    (
        "dataset",
        "where",
        "validation_split",
        "model",
        "optimizer",
        "validation_share",
        "folds",
        "fold",
        "image_size",
        "phi",
        "lite",
        "anchor_scale",
        "weighted_bifpn",
        "crop_margin",
        # Which step's weights are kept cannot be decided anew: the others are gone.
        "best_metric",
    )
)

Lines = Mapping[str, str]  # A flag's line or lines in `flags.txt`, by its name.


class RunRecord:
    """The record in a model directory.

    Flags and data are compared first, and written once nothing can refuse the run: a
    command that is refused leaves the record as it was.

    Attributes:
        step: The newest step that it keeps; 0 for a run that has not started, which
            may have any flags and data.

    Args:
        model_dir: The directory.
        step: See above.
    """

    def __init__(self, model_dir: str, step: int) -> None:
        self._model_dir = model_dir
        self.step = step
        self._path = os.path.join(model_dir, FLAGS_FILE)
        self._unwritten: dict[str, str] = {}  # Texts by path.

    def check_flags(self, lines: Lines, defaults: Lines, allowed: bool) -> list[str]:
        """Compares the flags with those of the run, for `write`.

        Args:
            lines: The flags of this command.
            defaults: Lines of flags that are not given; "" for no value. Flags that
                are not among them are of another version and not compared.
            allowed: Whether flags that alter the course of the run may change.

        Returns:
            A message for each change, or that the flags of the run are unknown.

        Raises:
            ValueError: A change is not allowed.
        """
        before, comments = self._read()
        changed = {}
        if self.step and before:
            changed = {
                name: (old, new)
                for name, default in defaults.items()
                if name not in _UNBOUND
                and (old := before.get(name, default))
                != (new := lines.get(name, default))
            }
        # Of fewer steps than are done nothing is left to do.
        is_over = "steps" in changed and _read_number(lines["steps"]) < self.step
        if is_over:
            del changed["steps"]
        self._refuse(changed, allowed)
        if is_over:
            return []
        notes = [
            f"from step {self.step} on {_format_line(new)} "
            f"(before: {_format_line(old)})"
            for old, new in changed.values()
        ]
        text = [*comments, *(f"# {note}" for note in notes)]
        text += [lines[name] for name in sorted(lines)]
        self._unwritten[self._path] = "\n".join(text) + "\n"
        return notes if before else self._describe_missing(FLAGS_FILE, "flags")

    def check_data(self, data: Sequence[Mapping[str, Any]]) -> list[str]:
        """Compares the data sets with those of the run, for `write`.

        Args:
            data: Descriptions of the data sets, see `prepared.describe_dataset`.

        Returns:
            A message if those of the run are unknown.

        Raises:
            ValueError: The data sets differ.
        """
        path = os.path.join(self._model_dir, DATA_FILE)
        is_known = os.path.exists(path)
        if self.step and is_known:
            with open(path, encoding="utf-8") as file:
                before = json.load(file)
            for old, new in zip(before, data, strict=False):
                for key in new:
                    if old.get(key) != new[key]:
                        raise ValueError(
                            f"{key} of the data set {new['name']} was {old.get(key)} "
                            f"when {self._model_dir} started, it is {new[key]} now: "
                            "that would be another run. Choose another --model_dir, or "
                            "the previous data."
                        )
        self._unwritten[path] = json.dumps(list(data), indent=2) + "\n"
        return [] if is_known else self._describe_missing(DATA_FILE, "data")

    def write(self) -> None:
        """Writes the flags and the data sets that were compared.

        Raises:
            OSError: A file cannot be written.
        """
        for path, text in self._unwritten.items():
            files.write(path, text.encode())
        self._unwritten = {}

    def _describe_missing(self, name: str, what: str) -> list[str]:
        if not self.step:
            return []
        return [
            f"{os.path.join(self._model_dir, name)} is missing: whether the {what} are "
            f"those of the run until step {self.step} is unknown, and not checked"
        ]

    def _read(self) -> tuple[dict[str, str], list[str]]:
        """Reads flags by name, and comments."""
        if not self.step or not os.path.exists(self._path):
            return {}, []
        with open(self._path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        comments = [line for line in lines if line.startswith("#")]
        return parse_flag_lines(
            [line for line in lines if line.startswith("--")]
        ), comments

    def _refuse(self, changed: Mapping[str, tuple[str, str]], allowed: bool) -> None:
        for wanting, advice in (
            (
                changed.keys() & _FIXED,
                "that would be another run. Choose another --model_dir, or the flags "
                f"in {self._path}.",
            ),
            (
                () if allowed else changed.keys() - _NOTED,
                "--allow_changed_flags continues anyway, and notes it.",
            ),
        ):
            if wanting:
                told = "; ".join(
                    f"{_format_line(changed[name][1])} now, "
                    f"{_format_line(changed[name][0])} before"
                    for name in sorted(wanting)
                )
                raise ValueError(
                    f"{self._model_dir} is at step {self.step} with other flags: "
                    f"{told}; {advice}"
                )


def parse_flag_lines(lines: Sequence[str]) -> dict[str, str]:
    """Groups the lines of a flag file by the names of their flags.

    The name of `--nodebug` is "debug".
    """
    found: dict[str, str] = {}
    for line in lines:
        name = line[2:].partition("=")[0]
        if "=" not in line and name.startswith("no"):
            name = name[2:]
        # A flag that may be given more than once has a line each.
        found[name] = f"{found[name]}\n{line}" if name in found else line
    return found


def describe_differences(lines: Lines, chiefs: Lines) -> list[str]:
    """Describes each flag that must be the chief's and is not, with both values."""
    return [
        f"{_format_line(lines.get(name, ''), name)}, the chief "
        f"{_format_line(chiefs.get(name, ''), name)}"
        for name in sorted({*lines} | {*chiefs})
        if lines.get(name, "") != chiefs.get(name, "") and name not in _OF_ONE_WORKER
    ]


def _format_line(line: str, name: str = "") -> str:
    return " ".join(line.split("\n")) or f"no {f'--{name}' if name else 'such flag'}"


def _read_number(line: str) -> int:
    return int(line.partition("=")[2])
