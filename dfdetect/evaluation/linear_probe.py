"""Linear probes: what frozen features tell of makers of fakes that are not fitted to.

A training of each input or backbone is dear. A logistic regression on features of a
network that stays as it is takes seconds; for each maker one is fitted without its
fakes and judges these. It says which features carry what makers have in common, not
what a training would make of them.
"""

import dataclasses
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import sklearn.linear_model
import sklearn.metrics

from dfdetect import labels
from dfdetect.evaluation import probe_features
from dfdetect.metrics import bootstrap

NUM_FOLDS = 4
PENALTY = 30.0  # Inverse strength, see `sklearn.linear_model.LogisticRegression`.


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How probes are fitted and measured.

    Attributes:
        least_crops: Makers and sources of fewer measured crops are left out.
        families: Sets of makers, none of whose fakes is fitted to where one of them is
            measured.
        altering_makers: Makers who alter faces rather than generate them. Where given,
            a probe has two logits, see `score_kinds`.
        penalty: Inverse strength of the penalty on the weights.
        num_resamples: Resamples of the groups, for intervals.
        seed: Seed of the resampling.
    """

    least_crops: int = 10
    families: tuple[frozenset[str], ...] = ()
    altering_makers: frozenset[str] = frozenset()
    penalty: float = PENALTY
    num_resamples: int = 200
    seed: int = 0

    def left_out(self, maker: str) -> frozenset[str]:
        """The makers that a probe does not see which is to judge one."""
        return frozenset({maker}).union(*(x for x in self.families if maker in x))


@dataclasses.dataclass(frozen=True)
class Figures:
    """Figures of one kind of features.

    Attributes:
        areas: AUC `[makers, sources]`.
        resampled: Mean over the makers of the least AUC of each, `[R]`, in resamples
            of the groups that are the same for all figures of a split.
    """

    makers: tuple[str, ...]
    sources: tuple[str, ...]
    areas: np.ndarray
    resampled: np.ndarray

    @property
    def mean_least(self) -> float:
        """Mean over the makers of the AUC against the hardest source of reals."""
        return float(self.areas.min(axis=1).mean())

    def describe(
        self, reference: "Figures", seen: Collection[str] = ()
    ) -> dict[str, Any]:
        """Describes the figures for JSON.

        Args:
            reference: Figures of the same split, to tell the difference from.
            seen: Makers that the network was trained on, which are none of "unseen".
        """
        low, high = bootstrap.compute_interval([self.resampled])
        below, above = bootstrap.compute_interval(
            [self.resampled - reference.resampled]
        )
        return {
            "mean_least": self.mean_least,
            "mean_least_interval": [low, high],
            "mean": float(self.areas.mean()),
            "difference": self.mean_least - reference.mean_least,
            "difference_interval": [below, above],
            "rows": [
                {
                    "maker": maker,
                    "least": float(row.min()),
                    "source": self.sources[int(row.argmin())],
                    "seen": maker in seen,
                    "against": dict(zip(self.sources, row.tolist(), strict=True)),
                }
                for maker, row in zip(self.makers, self.areas, strict=True)
            ],
        }


def name_origins(
    table: probe_features.Table, label: int, least_crops: int
) -> tuple[str, ...]:
    """The makers, or sources of reals, of enough crops, sorted."""
    names, counts = np.unique(table.origins[table.truths == label], return_counts=True)
    return tuple(names[counts >= least_crops].tolist())


def weigh(
    train: probe_features.Table, left_out: frozenset[str], self_blended: float
) -> np.ndarray:
    """Weighs crops as trainings draw them, `[N]`.

    The sum is the number of crops that were not blended from reals, whatever the share.
    Both classes weigh the same, and so does each source of a class. Fakes that were
    blended from reals are a share of the fakes, those of the makers the rest.

    Raises:
        ValueError: There is no crop of a kind that weighs something.
    """
    is_fake = train.truths == labels.FAKE
    by_maker = is_fake & ~train.blended & ~np.isin(train.origins, list(left_out))
    weights, total = np.zeros(len(is_fake)), np.count_nonzero(~train.blended)
    for name, chosen, share in (
        ("reals", ~is_fake, 0.5),
        ("fakes of other makers", by_maker, 0.5 * (1 - self_blended)),
        ("blended fakes", train.blended, 0.5 * self_blended),
    ):
        if not share:
            continue
        if not chosen.any():
            raise ValueError(f"train must have {name} to fit a probe to, got none.")
        origins, places, counts = np.unique(
            train.origins[chosen], return_inverse=True, return_counts=True
        )
        weights[chosen] = share * total / len(origins) / counts[places]
    return weights


def score(
    train: probe_features.Table,
    test: probe_features.Table,
    names: Sequence[str],
    weights: np.ndarray,
    penalty: float = PENALTY,
) -> np.ndarray:
    """Fits a probe and returns its logits for other crops, `[M]`.

    Each value is standardized, and each kind of features scaled to the same total
    variance, so that one of many values does not drown one of few.

    Args:
        train: Crops to fit to.
        test: Crops to judge.
        names: The kinds of features, see `probe_features.FEATURES`.
        weights: Of the crops to fit to.
        penalty: See `Protocol`.
    """
    used = weights > 0
    parts: list[list[np.ndarray]] = [[], []]
    for name in names:
        values = train.features[name][used]
        mean = np.average(values, axis=0, weights=weights[used])
        variance = np.average((values - mean) ** 2, axis=0, weights=weights[used])
        scale = np.sqrt((variance + 1e-8) * values.shape[1])
        for part, found in zip(parts, (values, test.features[name]), strict=True):
            part.append(((found - mean) / scale).astype(np.float32))
    probe = sklearn.linear_model.LogisticRegression(C=penalty, max_iter=1000, tol=1e-3)
    fitted, judged = (np.concatenate(part, axis=1) for part in parts)
    probe.fit(fitted, train.truths[used], sample_weight=weights[used])
    return probe.decision_function(judged)


def score_kinds(
    train: probe_features.Table,
    test: probe_features.Table,
    names: Sequence[str],
    weights: np.ndarray,
    protocol: Protocol,
) -> np.ndarray:
    """Fits a probe to all fakes, or one to each kind, and returns logits, `[M]`.

    With `protocol.altering_makers`, one probe tells fakes of these makers, and those
    blended from reals, from reals, and another all other fakes; the larger logit
    counts. Reals weigh as much as the fakes in either.
    """
    if not protocol.altering_makers:
        return score(train, test, names, weights, protocol.penalty)
    is_fake = train.truths == labels.FAKE
    is_altered = np.isin(train.origins, list(protocol.altering_makers)) | train.blended
    logits = []
    for kind in (is_fake & is_altered, is_fake & ~is_altered):
        total = weights[kind].sum()
        if not total:
            continue
        of_kind = np.where(is_fake, 0.0, weights)
        of_kind[kind] = weights[kind] * weights[~is_fake].sum() / total
        logits.append(score(train, test, names, of_kind, protocol.penalty))
    return np.max(logits, axis=0)


def measure(
    train: probe_features.Table,
    test: probe_features.Table,
    names: Sequence[str],
    self_blended: float = 0.0,
    protocol: Protocol = Protocol(),
) -> Figures:
    """Measures probes on each maker, fitted without it, against each source of reals.

    Raises:
        ValueError: There are no makers or no sources of enough crops, or nothing is
            left to fit to.
    """

    def judge(unseen: frozenset[str]) -> np.ndarray:
        weights = weigh(train, unseen, self_blended)
        return score_kinds(train, test, names, weights, protocol)

    return _tabulate(test, judge, protocol)


def measure_folds(
    train: probe_features.Table,
    names: Sequence[str],
    self_blended: float = 0.0,
    protocol: Protocol = Protocol(),
) -> Figures:
    """Measures probes on crops that are changed as those that they are fitted to.

    See `measure`; crops are judged by a probe that was fitted to neither their maker
    nor their group.
    """
    # By name: a group is in the same fold whatever else was drawn.
    names_of_groups = [f"{protocol.seed}/{group}" for group in train.groups]
    folds = np.array([zlib.crc32(x.encode()) % NUM_FOLDS for x in names_of_groups])

    def judge(unseen: frozenset[str]) -> np.ndarray:
        scores = np.zeros(len(folds))
        for fold in np.unique(folds):
            fitted, judged = (train.take(x) for x in (folds != fold, folds == fold))
            weights = weigh(fitted, unseen, self_blended)
            scores[folds == fold] = score_kinds(
                fitted, judged, names, weights, protocol
            )
        return scores[~train.blended]

    return _tabulate(train.take(~train.blended), judge, protocol)


def _tabulate(
    test: probe_features.Table,
    judge: Callable[[frozenset[str]], np.ndarray],
    protocol: Protocol,
) -> Figures:
    """Computes figures of all pairs of a maker and a source of reals.

    Args:
        test: The measured crops.
        judge: Returns their logits by a probe that has not seen some makers.
        protocol: How to measure.
    """
    makers, sources = (
        name_origins(test, label, protocol.least_crops)
        for label in (labels.FAKE, labels.REAL)
    )
    if not makers or not sources:
        raise ValueError(
            f"There must be makers and sources of reals with at least "
            f"{protocol.least_crops} crops each, got {len(makers)} and {len(sources)}."
        )
    blocks = bootstrap.resample_weights(
        test.groups, num_resamples=protocol.num_resamples, seed=protocol.seed
    )
    counts = np.concatenate(list(blocks) or [np.ones((1, len(test.truths)))])
    areas = np.empty((len(makers), len(sources)))
    resampled = np.empty((len(counts), *areas.shape))
    scores: dict[frozenset[str], np.ndarray] = {}
    for row, maker in enumerate(makers):
        unseen = protocol.left_out(maker)
        if unseen not in scores:
            scores[unseen] = judge(unseen)
        for column, source in enumerate(sources):
            chosen = _select(test, maker, source)
            truths, logits = test.truths[chosen], scores[unseen][chosen]
            areas[row, column] = sklearn.metrics.roc_auc_score(truths, logits)
            resampled[:, row, column] = bootstrap.METRICS["auc"](
                bootstrap.WeightedScores(truths, logits, counts[:, chosen])
            )
    # A resample may lack all crops of a maker or a source.
    least = np.ma.masked_invalid(np.fmin.reduce(resampled, axis=2))
    return Figures(makers, sources, areas, least.mean(axis=1).filled(np.nan))


def format_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Formats figures as lines of Markdown, and a second table by maker.

    Args:
        rows: `name`, and what `Figures.describe` says of each kind of features on
            `stored` crops, see `measure`, and `altered` ones, see `measure_folds`.
    """
    lines = [
        "| features | stored | 95 % | to the first row | altered | 95 % | "
        "to the first row |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        makers = row["stored"]["rows"]
        number = sum(one["seen"] for one in makers)
        cells = [row["name"]]
        if number:
            cells[0] += f" ({number} of {len(makers)} makers SEEN)"
        for found in (row["stored"], row["altered"]):
            low, high = found["mean_least_interval"]
            below, above = found["difference_interval"]
            cells += [
                f"{found['mean_least']:.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{found['difference']:+.3f} ({below:+.3f} to {above:+.3f})",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    names = [one["maker"] for one in rows[0]["stored"]["rows"]]
    lines += ["", f"| least, stored | {' | '.join(names)} |"]
    lines.append("|---" * (1 + len(names)) + "|")
    for row in rows:
        least = [f"{one['least']:.3f}" for one in row["stored"]["rows"]]
        lines.append(f"| {row['name']} | {' | '.join(least)} |")
    return lines


def _select(table: probe_features.Table, maker: str, source: str) -> np.ndarray:
    """The fakes of a maker and the reals of a source, `[N]` bool."""
    is_fake = table.truths == labels.FAKE
    return np.where(is_fake, table.origins == maker, table.origins == source)
