"""Flags that hold out groups of the training split for validation, instead of a split.

A hash of their names chooses the groups, see `dfdetect.data.conditions`: the same ones
in each run, on each machine and in each data set.
"""

from typing import Any

from absl import flags

from dfdetect.data import conditions

FLAGS = flags.FLAGS

_SHARE = flags.DEFINE_float(
    "validation_share",
    None,
    "Validate on the groups of this share of the training split instead of on "
    "--validation_split, such as .1, in whole percent; they are not trained on.",
    lower_bound=0.01,
    upper_bound=0.9,
)
_FOLDS = flags.DEFINE_integer(
    "folds", None, "Divide the groups of the training split into so many folds.", 2
)
_FOLD = flags.DEFINE_integer(
    "fold", None, "The one of --folds, from 0, to validate on and not to train on.", 0
)


@flags.multi_flags_validator(
    [_SHARE, _FOLDS, _FOLD],
    "--folds needs --fold below it, and excludes --validation_share.",
)
def _is_one_way(values: dict[str, Any]) -> bool:
    share, folds, fold = values.values()
    if folds is None or fold is None:
        return folds is fold is None
    return fold < folds and share is None


def training_conditions() -> list[str]:
    """Returns conditions as text that exclude held-out groups; none if all train."""
    return [f"group!@{part}"] if (part := _part()) else []


def validation_conditions() -> list[conditions.Condition]:
    """Returns conditions that choose the held-out groups; none if all train."""
    return [conditions.parse_condition(f"group@{part}")] if (part := _part()) else []


def validation_split() -> str:
    """Returns the split to validate on: "train" where groups of it are held out."""
    return "train" if _part() else FLAGS.validation_split


def describe_validation() -> str:
    """Describes the split for a manifest, such as `test` or `train (group@0/5)`."""
    part = _part()
    return f"train (group@{part})" if part else FLAGS.validation_split


def _part() -> str:
    if _FOLDS.value:
        return f"{_FOLD.value}/{_FOLDS.value}"
    if _SHARE.value:
        return f"0-{round(100 * _SHARE.value) - 1}/100"
    return ""
