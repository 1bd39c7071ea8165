"""Measures how well the fakes of each maker are told from the reals of each source.

A mean over makers hides that one of them is never found, and reals of one source may be
told from fakes by nothing but what that source looks like. So every pair stands by
itself, beside what can be told without a look at the pixels and by color, sharpness and
spectrum alone.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfdetect import labels
from dfdetect.data import prepared
from dfdetect.evaluation import evaluation_set
from dfdetect.evaluation.audit import folds, low_level, metadata_baseline
from dfdetect.metrics import classification

BASELINES = {
    "low_level": low_level.predict,
    "no_pixels": metadata_baseline.predict_out_of_fold,
}

_MOST_NAMES = 40  # Of a label. A field with more values is a name, not a kind.


@dataclasses.dataclass(frozen=True)
class Pool:
    """The images of all measured sets together, N of them in the order of the sets.

    Attributes:
        truths: `[N]`, see `labels`.
        origins: `[N]` text, the maker or source of each, see
            `record_fields.read_origins`.
        groups: `[N]` text, with the data set before the name.
        places: `[N]`, place of the data set of each among `sets`.
        sets: Description of each data set, see `prepared.describe_dataset`.
        values: Values that each of `BASELINES` is fitted to, `[N, F]`, by its name.
        field: Field that names makers and sources.
    """

    truths: np.ndarray
    origins: np.ndarray
    groups: np.ndarray
    places: np.ndarray
    sets: list[dict[str, Any]]
    values: dict[str, np.ndarray]
    field: str

    def names(self, label: int) -> list[str]:
        """The makers, or the sources of reals, sorted."""
        return np.unique(self.origins[self.truths == label]).tolist()

    def select(self, maker: str, source: str) -> np.ndarray:
        """The fakes of a maker and the reals of a source, `[N]` bool."""
        is_fake = self.truths == labels.FAKE
        return (is_fake & (self.origins == maker)) | (
            ~is_fake & (self.origins == source)
        )


def explain_unfit(
    judged: Sequence[evaluation_set.EvaluatedSet], field: str = "source"
) -> str:
    """Returns why there are no figures by pairs; "" where there are.

    Args:
        judged: The sets.
        field: See `pool_sets`.
    """
    truths = np.concatenate([one.survey.truths for one in judged])
    origins = _name_origins(judged, field)
    numbers = [len({*origins[truths == x]}) for x in (labels.FAKE, labels.REAL)]
    if not all(numbers):
        return "all images have the same label"
    if max(numbers) > _MOST_NAMES:
        return (
            f"{numbers[0]} makers and {numbers[1]} sources are too many to pair, "
            f"at most {_MOST_NAMES} of each are"
        )
    return ""


def pool_sets(
    judged: Sequence[evaluation_set.EvaluatedSet],
    crop_margin: float,
    field: str = "source",
) -> Pool:
    """Joins what is known of several sets; their crops are decoded once.

    Args:
        judged: The sets.
        crop_margin: See `boxes.square_crops`.
        field: "source" or "method". An image in which it is empty is of a maker, or a
            source, that is called like its data set.
    """
    groups = []
    for one in judged:
        name = prepared.name_dataset(one.builder)
        groups.append(np.array([f"{name}/{group}" for group in one.survey.groups]))
    return Pool(
        np.concatenate([one.survey.truths for one in judged]),
        _name_origins(judged, field),
        np.concatenate(groups),
        np.repeat(np.arange(len(judged)), [len(one.survey.truths) for one in judged]),
        [prepared.describe_dataset(one.builder) for one in judged],
        {
            "low_level": np.concatenate(
                [
                    low_level.measure_crops(
                        one.builder, one.split, one.wanted, crop_margin
                    )
                    for one in judged
                ]
            ),
            "no_pixels": np.concatenate([one.survey.features for one in judged]),
        },
        field,
    )


def _name_origins(
    judged: Sequence[evaluation_set.EvaluatedSet], field: str
) -> np.ndarray:
    """Names makers and sources, `[N]` texts over all sets."""
    origins = []
    for one in judged:
        count = len(one.survey.truths)
        values = np.asarray(one.survey.fields.get(field, [""] * count)).astype(str)
        name = prepared.name_dataset(one.builder)
        origins.append(np.where(values == "", name, values))
    return np.concatenate(origins)


def measure_baselines(
    pooled: Pool,
    num_resamples: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[tuple[str, str], dict[str, Any]]:
    """Measures `BASELINES` on each pair of a maker and a source.

    Returns:
        By pair and name: `auc` and `auc_interval`, of folds by group, or `reason`.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for maker in pooled.names(labels.FAKE):
        say(f"baselines of {maker}")
        for source in pooled.names(labels.REAL):
            chosen = pooled.select(maker, source)
            truths, groups = pooled.truths[chosen], pooled.groups[chosen]
            reason = folds.explain_unfit(truths, groups)
            found[maker, source] = {
                name: {"reason": reason}
                if reason
                else _area(
                    truths,
                    predict(pooled.values[name][chosen], truths, groups),
                    groups,
                    num_resamples,
                )
                for name, predict in BASELINES.items()
            }
    return found


def measure_pairs(
    pooled: Pool,
    probabilities: np.ndarray,
    num_resamples: int,
    baselines: dict[tuple[str, str], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Measures a model on each pair of a maker and a source of reals.

    Args:
        pooled: The images.
        probabilities: `[N]`, what the model says of them.
        num_resamples: Resamples of the groups, for intervals.
        baselines: Figures of `measure_baselines`.

    Returns:
        For each pair `maker`, `source`, `num_fake`, `num_real`, `auc`, `auc_interval`
        and what `baselines` says of it.
    """
    found = []
    for maker in pooled.names(labels.FAKE):
        for source in pooled.names(labels.REAL):
            chosen = pooled.select(maker, source)
            truths = pooled.truths[chosen]
            found.append(
                {
                    "maker": maker,
                    "source": source,
                    "num_fake": int((truths == labels.FAKE).sum()),
                    "num_real": int((truths == labels.REAL).sum()),
                    **_area(
                        truths,
                        probabilities[chosen],
                        pooled.groups[chosen],
                        num_resamples,
                    ),
                    **(baselines or {}).get((maker, source), {}),
                }
            )
    return found


def _area(
    truths: np.ndarray, scores: np.ndarray, groups: np.ndarray, num_resamples: int
) -> dict[str, Any]:
    auc, interval = classification.compute_auc_interval(
        truths, scores, groups, num_resamples=num_resamples
    )
    return {"auc": auc, "auc_interval": list(interval)}
