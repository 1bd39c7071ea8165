"""A log of the validation figures of a run, which knows the best of them."""

import csv
import io
import json
import os
from collections.abc import Mapping

import numpy as np

from dfdetect import files

FILE_NAME = "evaluations.jsonl"  # in a model directory
TABLE_NAME = "evaluations.csv"  # The same for spreadsheets.


class EvaluationLog:
    """The validation figures of a run, in `evaluations.jsonl` of its folder.

    `evaluations.csv` has them as well: a row for each evaluation, a column for each
    figure.

    Attributes:
        metric: Name of the figure that decides what is best.

    Args:
        model_dir: The folder.
        metric: Figure that decides what is best; with a minus sign if less is better.
        step: Step of the run; lines of later steps are dropped, and all lines at step
            0, as a run that starts evaluates its start again.
    """

    def __init__(self, model_dir: str, metric: str, step: int) -> None:
        self._path = os.path.join(model_dir, FILE_NAME)
        self.metric = metric.removeprefix("-")
        self._sign = -1.0 if metric.startswith("-") else 1.0
        self._lines: list[dict[str, float]] = []
        if os.path.exists(self._path):
            with open(self._path, encoding="utf-8") as file:
                self._lines = [json.loads(text) for text in file]
        kept = step if step else -1
        self._lines = [figures for figures in self._lines if figures["step"] <= kept]

    def best(self) -> dict[str, float] | None:
        """Returns the figures of the best evaluation, the first of equals."""
        # A line of an earlier version may lack the figure.
        sound = [x for x in self._lines if not np.isnan(x.get(self.metric, np.nan))]
        return max(sound, key=lambda x: self._sign * x[self.metric], default=None)

    def has(self, step: int) -> bool:
        """Returns whether the step has been evaluated."""
        return any(figures["step"] == step for figures in self._lines)

    def count_since_best(self) -> int:
        """Counts the evaluations after the best one."""
        best = self.best()
        return len(self._lines) - (1 + self._lines.index(best) if best else 0)

    def add(self, figures: Mapping[str, float]) -> bool:
        """Adds the figures of a step; returns whether they are the best.

        Raises:
            ValueError: The metric is not among them.
        """
        if self.metric not in figures:
            raise ValueError(
                f"best_metric must be one of {sorted(figures)}, got {self.metric!r}."
            )
        self._lines.append(dict(figures))
        return self.best() is self._lines[-1]

    def write(self) -> None:
        """Writes both files."""
        text = "".join(json.dumps(figures) + "\n" for figures in self._lines)
        files.write(self._path, text.encode())
        columns = dict.fromkeys(name for figures in self._lines for name in figures)
        table = io.StringIO()
        rows = csv.DictWriter(table, columns, lineterminator="\n")
        rows.writeheader()
        rows.writerows(self._lines)
        path = os.path.join(os.path.dirname(self._path), TABLE_NAME)
        files.write(path, table.getvalue().encode())
