"""Measures classifiers by makers of fakes and sources of reals, of several sets."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import prepared, record_fields
from dfdetect.evaluation import classifiers, evaluation_set, leave_one_out, source_pairs


def measure_makers(
    manifests: Sequence[Mapping[str, Any]],
    sets: Sequence[evaluation_set.EvaluatedSet],
    *,
    results: Sequence[classifiers.Result],
    leave_out: str | None,
    say: Callable[[str], None],
    num_resamples: int,
) -> dict[str, Any]:
    """Measures all models on the pairs of makers and sources of all sets together.

    Args:
        manifests: Manifests of the models.
        sets: Sets to measure on.
        results: Results of each model on each set, models first.
        leave_out: "source" or "method", the field that names makers, to tell seen and
            unseen ones apart; None for pairs of sources alone.
        say: Prints a line.
        num_resamples: Resamples of the groups, for intervals.

    Returns:
        `source_pairs`, a list of `model` and its `pairs`, see
        `source_pairs.measure_pairs`, or a dict with the `reason` why there are none;
        and with `leave_out` also `leave_one_out`, see
        `leave_one_out.measure_left_out`.

    Raises:
        ValueError: There are no makers to compare, and `leave_out` wants them.
    """
    if leave_out:
        check_makers(sets, leave_out)
    reason = source_pairs.explain_unfit(sets, leave_out or "source")
    if reason:
        return {"source_pairs": {"reason": reason}}
    pooled = source_pairs.pool_sets(
        sets, manifests[0]["crop_margin"], leave_out or "source"
    )
    baselines = source_pairs.measure_baselines(pooled, num_resamples, say)
    runs = []
    for place, described in enumerate(manifests):
        of_model = results[place * len(sets) : (place + 1) * len(sets)]
        probabilities = [result.predictions.probabilities for result in of_model]
        pairs = source_pairs.measure_pairs(
            pooled, np.concatenate(probabilities), num_resamples, baselines
        )
        runs.append((of_model[0].model, described, pairs))
    figures: dict[str, Any] = {
        "source_pairs": [{"model": name, "pairs": pairs} for name, _, pairs in runs]
    }
    if leave_out:
        figures["leave_one_out"] = leave_one_out.measure_left_out(pooled, runs)
    return figures


def check_makers(sets: Sequence[evaluation_set.EvaluatedSet], leave_out: str) -> None:
    """Checks, before any model is measured, that there are makers to compare.

    Args:
        sets: Sets to measure on.
        leave_out: "source" or "method", the field that names makers.

    Raises:
        ValueError: There are none.
    """
    if reason := source_pairs.explain_unfit(sets, leave_out):
        raise ValueError(f"--leave_out finds no makers to compare: {reason}.")


def train_without_each(
    builders: Sequence[tfds.core.DatasetBuilder],
    field: str,
    *,
    folder: str,
    command: Sequence[str],
    say: Callable[[str], None],
) -> list[str]:
    """Trains a classifier without each maker of some data sets in turn.

    Args:
        builders: The sets. Fakes that name no maker are in all trainings.
        field: "source" or "method", which names makers.
        folder: Folder of the model folders; a training that is there is resumed.
        command: Command that trains; left-out maker and model folder are appended.
        say: Prints a line.

    Returns:
        The model folders.

    Raises:
        ValueError: There are fewer than two makers, or a training failed.
    """
    makers: set[str] = set()
    for builder in builders:
        origins = record_fields.name_origins(builder, "train", (), field)
        makers.update(
            {*origins[labels.NAMES[labels.FAKE]]} - {prepared.name_dataset(builder)}
        )
    if len(makers) < 2:
        raise ValueError(
            f"--leave_out={field} needs fakes of two makers at least to train on, got "
            f"{sorted(makers)}."
        )
    trained = []
    for maker in sorted(makers):
        run = os.path.join(folder, "without_" + re.sub(r"[^\w-]", "_", maker))
        say(f"training without {maker} in {run}")
        done = subprocess.run(
            [*command, f"--where={field}!={maker}", f"--model_dir={run}"],
            stdout=sys.stderr,
        )
        if done.returncode:
            raise ValueError(f"The training without {maker} failed, see above.")
        trained.append(run)
    return trained
