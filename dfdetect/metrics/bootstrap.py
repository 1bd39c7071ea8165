"""How far figures of classification would vary had other groups been taken.

Images of one video, and a video and the fakes made of it, are no independent proof:
whole groups are drawn anew, all their images with them.

Source: Field and Welsh, Bootstrapping clustered data, JRSS B, 2007.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dfdetect import labels as label_names

NUM_RESAMPLES = 1000
NUM_BINS = 15  # Of the calibration error, equal in width.
MAX_FALSE_POSITIVE_RATE = 0.01

_LEVELS = (0.025, 0.975)
_ENTRIES_AT_ONCE = 1_000_000  # Weights of a block of resamples; 8 MiB an array.

Interval = tuple[float, float]


def intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % intervals of figures, by percentiles over resamples of the groups.

    Args:
        labels: `[N]` of `dfdetect.labels`.
        scores: `[N]`, greater where a fake is likelier; fake probabilities in [0, 1]
            for all figures but the area.
        groups: `[N]`, what the images belong to.
        names: Of `FIGURES`.
        num_resamples: Of the bootstrap; those in which a figure has no value, for want
            of a class, do not count for it.
        seed: Of the drawing.

    Returns:
        For each name both ends; NaN twice where there are fewer than two groups.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for weights in resampled_weights(groups, num_resamples, seed):
        block = Weighted(labels, scores, weights)
        for name in names:
            drawn[name].append(FIGURES[name](block))
    return {name: interval_of(values) for name, values in drawn.items()}


def resampled_weights(
    groups: np.ndarray, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Iterator[np.ndarray]:
    """Draws whole groups anew; the same draws for the same arguments.

    Args:
        groups: `[N]`, what the images belong to.
        num_resamples: Of the bootstrap.
        seed: Of the drawing.

    Yields:
        Blocks `[R, N]` of how often each image counts, their R adding up to
        `num_resamples`; nothing where there are fewer than two groups.
    """
    _, member_of = np.unique(groups, return_inverse=True)
    num_groups = int(member_of.max(initial=-1)) + 1
    if num_groups < 2:
        return
    generator = np.random.default_rng(seed)
    shares = np.full(num_groups, 1 / num_groups)
    at_once = max(1, _ENTRIES_AT_ONCE // len(member_of))
    for start in range(0, num_resamples, at_once):
        count = min(at_once, num_resamples - start)
        yield generator.multinomial(num_groups, shares, count)[:, member_of]


def interval_of(values: Sequence[np.ndarray]) -> Interval:
    """The 95 % interval of a figure, by percentiles.

    Args:
        values: Its values `[R]` in blocks of resamples; NaN where it has none.

    Returns:
        Both ends; NaN twice without any value.
    """
    drawn = np.concatenate([np.empty(0), *values])
    there = drawn[~np.isnan(drawn)]
    if not len(there):
        return np.nan, np.nan
    low, high = np.quantile(there, _LEVELS)
    return float(low), float(high)


def observed_shares(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """95 % intervals of the share of fakes in each bin of the calibration error."""
    in_bin = bins(scores)
    found = []
    for index in range(NUM_BINS):
        members = in_bin == index
        ends = intervals(
            labels[members],
            scores[members],
            groups[members],
            ["prevalence"],
            num_resamples,
            seed,
        )
        found.append(ends["prevalence"])
    return found


def bins(scores: np.ndarray) -> np.ndarray:
    """The bin of each probability: open below and closed above, 0 in the first."""
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    return np.clip(np.searchsorted(edges, scores, "left") - 1, 0, NUM_BINS - 1)


class Weighted:
    """N scores under R sets of weights: what the figures share is computed once.

    Args:
        labels: `[N]`.
        scores: `[N]`.
        weights: `[R, N]`, how often each counts.
    """

    def __init__(
        self, labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
    ) -> None:
        order = np.argsort(scores, kind="stable")
        self.scores, self.labels = scores[order], labels[order]
        self.weights = weights[:, order].astype(np.float64)
        # Where each of the U different scores begins.
        _, self.starts = np.unique(self.scores, return_index=True)

    @functools.cached_property
    def fakes(self) -> np.ndarray:
        """`[R, U]`, weight of the fakes of each score, from the lowest up."""
        is_fake = self.labels == label_names.FAKE
        return np.add.reduceat(self.weights * is_fake, self.starts, axis=1)

    @functools.cached_property
    def reals(self) -> np.ndarray:
        """`[R, U]`, weight of the reals of each score, from the lowest up."""
        is_real = self.labels == label_names.REAL
        return np.add.reduceat(self.weights * is_real, self.starts, axis=1)

    @functools.cached_property
    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """False- and true-positive rates `[R, U + 1]`, from the highest score down."""
        return _from_above(self.reals), _from_above(self.fakes)

    def mean(self, values: np.ndarray, label: int | None = None) -> np.ndarray:
        """`[R]`, mean of `values` `[N]` in the order of the scores; of one class."""
        weights = self.weights
        if label is not None:
            weights = weights * (self.labels == label)
        return _divided(weights @ values, weights.sum(1))

    def predicted(self) -> np.ndarray:
        """`[N]`, 1 where the score calls an image a fake."""
        return (self.scores >= 0.5).astype(np.float64)


def _auc(block: Weighted) -> np.ndarray:
    # A sum over fakes of the weight of the reals below them, ties counted half.
    below = np.cumsum(block.reals, axis=1) - block.reals / 2
    product = block.fakes.sum(1) * block.reals.sum(1)
    return _divided((block.fakes * below).sum(1), product)


def _average_precision(block: Weighted) -> np.ndarray:
    fakes, reals = block.fakes[:, ::-1], block.reals[:, ::-1]
    true_positives = np.cumsum(fakes, axis=1)
    called = true_positives + np.cumsum(reals, axis=1)
    precision = np.divide(
        true_positives, called, out=np.zeros_like(called), where=called > 0
    )
    has_both = (reals.sum(1) > 0) & (fakes.sum(1) > 0)
    average = _divided((fakes * precision).sum(1), fakes.sum(1))
    return np.where(has_both, average, np.nan)


def _equal_error_rate(block: Weighted) -> np.ndarray:
    return equal_error_rates(*block.rates)


def equal_error_rates(
    false_positive_rates: np.ndarray, true_positive_rates: np.ndarray
) -> np.ndarray:
    """See `classification.equal_error_rate`.

    Args:
        false_positive_rates: `[R, P]`, points of ROC curves from 0 up to 1.
        true_positive_rates: `[R, P]`.

    Returns:
        `[R]`; NaN where rates are NaN.
    """
    # Of false positives over false negatives: from -1 up to 1.
    excess = false_positive_rates + true_positive_rates - 1
    rows = np.arange(len(excess))
    after = np.maximum((excess >= 0).argmax(1), 1)
    low, high = excess[rows, after - 1], excess[rows, after]
    start, end = (false_positive_rates[rows, place] for place in (after - 1, after))
    return start - low / (high - low) * (end - start)


def _tpr_at_fpr(block: Weighted) -> np.ndarray:
    false_positive_rates, true_positive_rates = block.rates
    allowed = false_positive_rates <= MAX_FALSE_POSITIVE_RATE + 1e-9
    best = np.where(allowed, true_positive_rates, 0).max(1)
    return np.where(np.isnan(false_positive_rates[:, 0]), np.nan, best)


def _log_loss(block: Weighted) -> np.ndarray:
    tiny = np.finfo(np.float64).eps
    clipped = np.clip(block.scores, tiny, 1 - tiny)
    is_fake = block.labels == label_names.FAKE
    return block.mean(-np.log(np.where(is_fake, clipped, 1 - clipped)))


def _calibration_error(block: Weighted) -> np.ndarray:
    of_bin = bins(block.scores)[:, None] == np.arange(NUM_BINS)
    gaps = block.weights @ ((block.scores - block.labels)[:, None] * of_bin)
    return _divided(np.abs(gaps).sum(1), block.weights.sum(1))


def _rate(block: Weighted, label: int) -> np.ndarray:
    return block.mean(block.predicted(), label)


def _balanced_accuracy(block: Weighted) -> np.ndarray:
    specificity = 1 - _rate(block, label_names.REAL)
    return (_rate(block, label_names.FAKE) + specificity) / 2


# All are NaN where they need a class that a resample lacks.
FIGURES: dict[str, Callable[[Weighted], np.ndarray]] = {
    "auc": _auc,
    "ap": _average_precision,
    "accuracy": lambda block: block.mean(block.predicted() == block.labels),
    "balanced_accuracy": _balanced_accuracy,
    "log_loss": _log_loss,
    "brier": lambda block: block.mean((block.scores - block.labels) ** 2),
    "ece": _calibration_error,
    "eer": _equal_error_rate,
    "tpr_at_1_percent_fpr": _tpr_at_fpr,
    "tpr": lambda block: _rate(block, label_names.FAKE),
    "fpr": lambda block: _rate(block, label_names.REAL),
    "mean_probability": lambda block: block.mean(block.scores),
    "prevalence": lambda block: block.mean(block.labels),
}


def _from_above(counts: np.ndarray) -> np.ndarray:
    """Shares `[R, U + 1]` at or above each score, from the highest; 0 before it."""
    above = np.cumsum(counts[:, ::-1], axis=1)
    shares = np.divide(
        above,
        above[:, -1:],
        out=np.full_like(above, np.nan),
        where=above[:, -1:] > 0,
    )
    return np.concatenate([0 * shares[:, :1], shares], axis=1)


def _divided(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    return np.divide(
        numerators,
        denominators,
        out=np.full(len(denominators), np.nan),
        where=denominators > 0,
    )
