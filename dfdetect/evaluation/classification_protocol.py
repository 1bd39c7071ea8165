"""Measures a classifier on one split: by image, by video, and by kind.

Every figure has an interval; see `metrics.bootstrap` for what is drawn anew.
"""

from typing import Any

import numpy as np

from dfdetect import labels as label_names
from dfdetect.evaluation.predictions import Predictions
from dfdetect.metrics import bootstrap, classification

# Fields by which figures are given. Of one method or source there may be fakes alone;
# those are told from all reals, as papers do.
FIELDS = ("dataset", "source", "method", "compression")
HEAD_SIZE = "head_size"
SIZE_NAMES = ("<32", "32-64", "64-128", "128-256", "256-512", ">=512")

_AGAINST_ALL_REALS = ("source", "method")
# Fields in words that name one record, clip or person each, and no kind.
_NAMES = ("video", "clip", "target_id", "source_id", "image/filename", "group")
_SIZE_EDGES = (32, 64, 128, 256, 512)
_MOST_VALUES = 40  # A field with more is a name, not a kind.

# At the threshold of .5; each wants one class, or none in particular.
_RATES = ("tpr", "fpr", "mean_probability")


def measure(
    predictions: Predictions, num_resamples: int = bootstrap.NUM_RESAMPLES
) -> dict[str, Any]:
    """Measures some images, or videos; each figure has its interval.

    Returns:
        `num_real`, `num_fake` and `num_groups`; each of `classification.METRICS`,
        `tpr` and `fpr` at .5 and `mean_probability`; and each again with `_interval`,
        two numbers. NaN is what wants a class that is missing, and any interval of a
        single group.
    """
    truths, probabilities = predictions.labels, predictions.probabilities
    names = (*classification.METRICS, *_RATES)
    called = probabilities >= 0.5
    figures = dict.fromkeys(names, np.nan)
    if len(truths):
        figures["accuracy"] = float(np.mean(called == truths))
        figures["mean_probability"] = float(probabilities.mean())
    for name, label in (("tpr", label_names.FAKE), ("fpr", label_names.REAL)):
        if (truths == label).any():
            figures[name] = float(called[truths == label].mean())
    if len(np.unique(truths)) == 2:
        figures |= classification.compute_metrics(truths, probabilities)
    given = [name for name in names if not np.isnan(figures[name])]
    ends = bootstrap.compute_intervals(
        truths, probabilities, predictions.groups, given, num_resamples=num_resamples
    )
    return {
        "num_real": int((truths == label_names.REAL).sum()),
        "num_fake": int((truths == label_names.FAKE).sum()),
        "num_groups": len(np.unique(predictions.groups)),
        **figures,
        **{f"{n}_interval": list(ends.get(n, (np.nan, np.nan))) for n in names},
    }


def measure_both_levels(
    predictions: Predictions, num_resamples: int = bootstrap.NUM_RESAMPLES
) -> dict[str, Any]:
    """`metrics` of the images and `video_metrics` of their videos, see `measure`."""
    return {
        "metrics": measure(predictions, num_resamples),
        "video_metrics": measure(predictions.by_video(), num_resamples),
    }


def measure_strata(
    predictions: Predictions, num_resamples: int = bootstrap.NUM_RESAMPLES
) -> dict[str, dict[str, Any]]:
    """Measures each kind of image.

    Returns:
        For each of `FIELDS` that the records have, for their further fields in words,
        and for `head_size`, those of each value: `against`, "all reals" where these are
        compared with fakes of one kind, else "its own"; and what `measure_both_levels`
        gives. A field with a single value, or with too many, is left out.
    """
    further = [
        name
        for name, values in predictions.fields.items()
        if name not in (*FIELDS, *_NAMES) and values.dtype.kind in "UO"
    ]
    columns = {
        name: predictions.fields[name].astype(str)
        for name in (*FIELDS, *further)
        if name in predictions.fields
    }
    places = np.searchsorted(_SIZE_EDGES, predictions.sizes, "right")
    columns[HEAD_SIZE] = np.array(SIZE_NAMES)[places]
    found = {}
    for field, values in columns.items():
        names = np.unique(values).tolist()
        if field == HEAD_SIZE:
            names.sort(key=SIZE_NAMES.index)
        if 1 < len(names) <= _MOST_VALUES:
            found[field] = {
                name: _stratum(predictions, field, values == name, num_resamples)
                for name in names
            }
    return found


def _stratum(
    predictions: Predictions, field: str, members: np.ndarray, num_resamples: int
) -> dict[str, Any]:
    only_fakes = (predictions.labels[members] == label_names.FAKE).all()
    borrows = field in _AGAINST_ALL_REALS and only_fakes
    if borrows:
        members = members | (predictions.labels == label_names.REAL)
    return {
        "against": "all reals" if borrows else "its own",
        **measure_both_levels(predictions.take(members), num_resamples),
    }
