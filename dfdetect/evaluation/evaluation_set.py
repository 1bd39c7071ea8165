"""One split of a prepared data set, as a test of classifiers sees it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dfdetect import console, labels
from dfdetect.data import conditions, prepared, record_fields, records, split_leaks
from dfdetect.evaluation import classification_protocol, predictions
from dfdetect.evaluation.audit import leaks as groups
from dfdetect.evaluation.audit import metadata_baseline, scan
from dfdetect.evaluation.audit.survey import Survey
from dfdetect.metrics import bootstrap

_LISTED_LEAKS = 20
_FEW_GROUPS = 20


@dataclasses.dataclass(frozen=True)
class EvaluatedSet:
    """A split with its survey and baselines, before any model sees it.

    Attributes:
        builder: The data set.
        split: The split.
        wanted: `[N]` bool, which of its records count.
        survey: Survey of these records.
        baselines: By name: `about`, how it came about; and figures, see
            `classification_protocol.measure_both_levels`; or `reason`, why there are
            no figures.
        metadata_probabilities: Those of `evaluation.audit.metadata_baseline`; None
            where it has none.
        leaks: Leaks of the whole data set, see `data.split_leaks`.
        where: The conditions that chose the records.
        num_resamples: Resamples of the bootstrap.
    """

    builder: tfds.core.DatasetBuilder
    split: str
    wanted: np.ndarray
    survey: Survey
    baselines: dict[str, dict[str, Any]]
    metadata_probabilities: np.ndarray | None
    leaks: list[dict]
    where: Sequence[str]
    num_resamples: int

    def describe(self) -> dict[str, Any]:
        """Describes the data, what was chosen of it, and what was found."""
        survey = self.survey
        counts = np.bincount(survey.truths, minlength=2).tolist()
        videos = predictions.name_videos(survey)
        return {
            "data": prepared.describe_dataset(self.builder),
            "where": list(self.where),
            "num_images": sum(counts),
            **{f"num_{n}": c for n, c in zip(labels.NAMES, counts, strict=True)},
            "num_videos": len(np.unique(videos)),
            "num_groups": len(np.unique(survey.groups)),
            "num_resamples": self.num_resamples,
            "leaky_split": bool(self.leaks),
            "num_leaks": len(self.leaks),
            "leaks": self.leaks[:_LISTED_LEAKS],
            "leak_kinds": list(survey.identities),
        }

    def warnings(self, manifest: dict[str, Any]) -> list[str]:
        """Lists what a reader of the figures of a model must know, by its manifest."""
        found = []
        if self.leaks:
            found.append(
                f"LEAKY SPLIT: {split_leaks.describe_leaks(self.leaks)}. The figures "
                "do not say how well unseen videos are told; --allow_leaky_split asked "
                "for them."
            )
        trained_on = {
            described["fingerprint"] for described in manifest.get("data", [])
        }
        fingerprint = prepared.describe_dataset(self.builder)["fingerprint"]
        had_part = self.split in (
            "train",
            "validation",
            manifest.get("validation_split"),
        )
        if fingerprint and fingerprint in trained_on and had_part:
            found.append(
                f"SEEN BEFORE: the model was trained on this set, and {self.split} "
                "had a part in it."
            )
        blind = self.baselines["no_pixels"].get("metrics")
        shortcut = blind and metadata_baseline.describe_shortcut(
            blind["auc"], blind["auc_interval"], self.survey.truths, self.survey.groups
        )
        if shortcut:
            found.append(shortcut)
        if len(np.unique(self.survey.groups)) < _FEW_GROUPS:
            found.append(
                f"Fewer than {_FEW_GROUPS} groups: the intervals are too narrow to be "
                "trusted."
            )
        if len(np.unique(self.survey.truths)) < 2:
            found.append("All images have one label: most figures have no value.")
        return found


def load_evaluation_set(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    say: Callable[[str], None],
    where: Sequence[str] = (),
    allow_leaky_split: bool = False,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
) -> EvaluatedSet:
    """Reads a data set once, checks its splits and measures what needs no model.

    Args:
        builder: A prepared data set of labeled images.
        split: The split to measure on.
        say: Prints a line.
        where: Conditions that records meet, see `record_fields.choose_records`; of
            the other splits, too, which the baselines learn from.
        allow_leaky_split: Whether groups may stand in two splits, and images may have
            been split one by one.
        num_resamples: Resamples of the bootstrap.

    Raises:
        ValueError: The data set has no such split or holds no labeled images, a
            group stands in two splits, images were split one by one, or no record
            meets the conditions.
    """
    records.check_labeled(builder)
    parsed = [conditions.parse_condition(text) for text in where]
    sizes = builder.info.splits
    if split not in sizes:
        raise ValueError(
            f"split must be one of {', '.join(sizes)} of {builder.info.full_name}, "
            f"got {split!r}."
        )
    total = sum(info.num_examples for info in sizes.values())
    with console.Progress(total, say, noun="record") as bar:
        survey = scan.scan_dataset(builder, bar.count, with_hashes=False)
    leaks = groups.find_all(builder, survey)
    if leaks and not allow_leaky_split:
        raise ValueError(
            f"{builder.info.full_name} has a leaky split: "
            f"{split_leaks.describe_leaks(leaks)}. "
            "Figures would not say how well unseen videos are told. "
            "--allow_leaky_split gives them all the same, and every output says so."
        )
    _tell_absent_fields(builder, where, parsed, say)
    chosen = np.zeros(len(survey.splits), bool)
    for name in sizes:
        # Both are in the order of `prepared.read_encoded`.
        chosen[survey.splits == name] = record_fields.choose_records(
            builder, name, parsed
        )
    wanted = chosen[survey.splits == split]
    if not wanted.any():
        raise ValueError(
            f"No record of {split} of {builder.info.full_name} meets "
            f"{' and '.join(where)}."
        )
    baselines, probabilities = _baselines(survey.take(chosen), split, num_resamples)
    return EvaluatedSet(
        builder=builder,
        split=split,
        wanted=wanted,
        survey=survey.take(chosen & (survey.splits == split)),
        baselines=baselines,
        metadata_probabilities=probabilities,
        leaks=leaks,
        where=where,
        num_resamples=num_resamples,
    )


def _tell_absent_fields(
    builder: tfds.core.DatasetBuilder,
    texts: Sequence[str],
    parsed: Sequence[conditions.Condition],
    say: Callable[[str], None],
) -> None:
    """Says which conditions are on fields that the data set lacks."""
    for text, condition in zip(texts, parsed, strict=True):
        if condition.field in builder.info.features:
            continue
        meeting = "all of its records meet" if condition.is_negated else "none meets"
        say(
            f"{builder.info.full_name} has no field {condition.field!r}: "
            f"{meeting} {text}"
        )


def _baselines(
    survey: Survey, split: str, num_resamples: int
) -> tuple[dict[str, dict[str, Any]], np.ndarray | None]:
    """Returns the baselines of the split, and the probabilities by metadata."""
    judged = survey.splits == split
    one = survey.take(judged)
    learned = survey.truths[~judged] if (~judged).any() else survey.truths
    share = np.full(judged.sum(), np.mean(learned))
    found = {
        "majority": {
            "about": f"the share of fakes elsewhere, {share[0]:.3f}, for every image",
            **_measured(one, share, num_resamples),
        }
    }
    probabilities, about = metadata_baseline.predict_split(survey, split)
    found["no_pixels"] = (
        {"reason": about}
        if probabilities is None
        else {"about": about, **_measured(one, probabilities, num_resamples)}
    )
    return found, probabilities


def _measured(
    survey: Survey, probabilities: np.ndarray, num_resamples: int
) -> dict[str, Any]:
    found = predictions.join_survey(survey, probabilities)
    return classification_protocol.measure_both_levels(found, num_resamples)
