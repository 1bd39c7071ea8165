"""Checks before the first step: whether flags and data fit the run.

Every worker calls each function at the same point. If one worker fails, all do.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect.data import conditions, prepared, sampling, split_leaks
from dfdetect.training import distribute, loop, run_record
from dfdetect.training.settings import Settings

Say = Callable[[str], None]


def check_flags(
    strategy: tf.distribute.Strategy,
    record: run_record.RunRecord,
    *,
    lines: run_record.Lines,
    defaults: run_record.Lines,
    allowed: bool,
    say: Say,
) -> None:
    """Compares the flags with the chief's, and the chief's with those of the run.

    Args:
        strategy: Where to train.
        record: Record of the run.
        lines: See `run_record.RunRecord.check_flags`.
        defaults: See there.
        allowed: See there.
        say: Called with a line for each change, or if the flags of the run are unknown.

    Raises:
        ValueError: The flags differ from the chief's, or a change is not allowed.
    """

    def compare() -> None:
        content = json.dumps(dict(lines), sort_keys=True).encode()
        chiefs = json.loads(distribute.share_bytes(strategy, content))
        differing = run_record.describe_differences(lines, chiefs)
        if differing:
            raise ValueError(
                "All workers must have the flags of the chief: this one has "
                f"{'; '.join(differing)}."
            )

    def check() -> None:
        if distribute.is_chief(strategy):
            for note in record.check_flags(lines, defaults, allowed):
                say(note)

    _check_on_all(strategy, compare)
    _check_on_all(strategy, check)


def check_warmup(
    strategy: tf.distribute.Strategy, record: run_record.RunRecord, settings: Settings
) -> None:
    """Checks the warm-up of a run that has steps left, by the chief's record.

    Raises:
        ValueError: It does not end before the run.
    """

    def check() -> None:
        if distribute.is_chief(strategy) and record.step < settings.steps:
            settings.check_warmup()

    _check_on_all(strategy, check)


def check_data(
    strategy: tf.distribute.Strategy,
    record: run_record.RunRecord,
    *,
    builders: Sequence[tfds.core.DatasetBuilder],
    batch_size: int,
    say: Say,
) -> None:
    """Compares data sets with those that the run started with, and with the chief's.

    Args:
        strategy: Where to train.
        record: Record of the run.
        builders: Prepared data sets to train on.
        batch_size: Examples per step.
        say: Called with a line if the data sets have fewer examples than a batch, or
            if those of the run are unknown.

    Raises:
        ValueError: The data sets differ, or one has no examples to train on.
    """
    described = [_describe(builder) for builder in builders]

    def check() -> None:
        content = json.dumps(described).encode()
        chiefs = json.loads(distribute.share_bytes(strategy, content))
        # Numbers of files or paths may differ, but not what a fingerprint stands for.
        for own, other in zip(json.loads(content), chiefs, strict=True):
            if own != other:
                raise ValueError(
                    "All workers must have the data of the chief: this one has "
                    f"{own}, the chief {other}."
                )
        check_split(builders, "train")
        if distribute.is_chief(strategy):
            for note in record.check_data(described):
                say(note)

    _check_on_all(strategy, check)
    total = sum(builder.info.splits["train"].num_examples for builder in builders)
    if distribute.is_chief(strategy) and total < batch_size:
        say(
            f"--batch_size={batch_size} is above the {total} examples of the training "
            "split: a step sees some of them more than once"
        )


def check_leaks(
    strategy: tf.distribute.Strategy,
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    *,
    where: Sequence[conditions.Condition] = (),
    validated_on: Sequence[conditions.Condition] = (),
    allowed: bool,
    say: Say,
) -> None:
    """Checks that no group stands in the training split and in the one to validate on.

    Args:
        strategy: Where to train.
        builders: Prepared data sets that are validated on.
        split: The split to validate on. Of "train" groups are held out, which are not
            looked for.
        where: Conditions that records to train on meet.
        validated_on: Conditions that records to validate on meet.
        allowed: Whether a group may stand in both.
        say: Called with a line for each data set that leaks all the same, or whose
            images were split one by one.

    Raises:
        ValueError: A group stands in both, and that is not allowed.
    """

    def check() -> None:
        if not distribute.is_chief(strategy):
            return
        for builder in builders:
            leaks = split_leaks.find_random_split(builder)
            if split != "train" and {"train", split} <= {*builder.info.splits}:
                chosen = {"train": where, split: validated_on}
                shared = split_leaks.find_shared_names(builder, chosen)
                if shared and not allowed:
                    raise ValueError(_describe_leaky(builder, shared))
                leaks += shared
            if leaks:
                say(
                    f"WARNING: LEAKY SPLIT of {prepared.name_dataset(builder)}: "
                    f"{split_leaks.describe_leaks(leaks)}. Figures of validation do "
                    "not say how well unseen videos are told."
                )

    _check_on_all(strategy, check)


def _describe_leaky(
    builder: tfds.core.DatasetBuilder, leaks: Sequence[dict[str, Any]]
) -> str:
    return (
        f"{prepared.name_dataset(builder)} has a leaky split: "
        f"{split_leaks.describe_leaks(leaks)}. Figures of validation, by which weights "
        "are kept, would not say how well unseen videos are told. --allow_leaky_split "
        "trains all the same."
    )


def _describe(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """Describes a data set, and its order where that is not the one of before."""
    described = prepared.describe_dataset(builder)
    if described["splits"].get("train", 0) > sampling.LONGEST_LISTED:
        # A run of a version without this order cannot be resumed in it.
        described["order"] = "feistel"
    return described


def check_split(builders: Sequence[tfds.core.DatasetBuilder], split: str) -> None:
    """Refuses data sets without examples in a split.

    Raises:
        ValueError: A data set has none; the message names it and its splits.
    """
    for builder in builders:
        splits = {name: x.num_examples for name, x in builder.info.splits.items()}
        if not splits.get(split):
            advice = "" if split == "train" else _ADVICE
            raise ValueError(
                f"{prepared.name_dataset(builder)} must have examples in its split "
                f"{split}, "
                f"got {splits}.{advice}"
            )


_ADVICE = " --validation_split takes another split, or none."


def _check_on_all(strategy: tf.distribute.Strategy, check: Callable[[], None]) -> None:
    """Calls a function; if it fails on one worker, it fails on all.

    Raises:
        ValueError: As the function does, or because another worker must not go on.
        OSError: As the function does.
        loop.WorkerLost: Others cannot go on as their systems fail, which may pass.
    """
    failure: ValueError | OSError | None = None
    try:
        check()
    except (ValueError, OSError) as error:
        failure = error
    failures = distribute.count_failures(strategy, failure is not None)
    passing = distribute.count_failures(strategy, isinstance(failure, OSError))
    if failure is not None:
        raise failure
    if failures:
        told = f"{failures} other workers cannot start: see their logs"
        if passing == failures:
            raise loop.WorkerLost(f"{told}; start all of them again")
        raise ValueError(f"{told}.")
