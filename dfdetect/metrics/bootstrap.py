"""Bootstrap confidence intervals of classification metrics, by resampling groups.

Images of one video, or of a video and the fakes made from it, are not independent, so
whole groups are resampled with all their images.

Source: Field and Welsh, Bootstrapping clustered data, JRSS B, 2007.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dfdetect import labels as label_names

NUM_RESAMPLES = 1000
NUM_BINS = 15  # Of equal width, for the calibration error.
MAX_FALSE_POSITIVE_RATE = 0.01

_LEVELS = (0.025, 0.975)
_BLOCK_ENTRIES = 1_000_000  # Weights in a block of resamples; 8 MB per array.

Interval = tuple[float, float]


def compute_intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Computes 95 % intervals of metrics, as percentiles over resampled groups.

    Args:
        labels: `[N]` of `dfdetect.labels`.
        scores: `[N]`, higher for fakes; fake probabilities in [0, 1], except for "auc",
            which takes any score.
        groups: `[N]`, group of each image, such as its video.
        names: Keys of `METRICS`.
        num_resamples: Number of resamples; those that lack a class that a metric needs
            are left out for it.
        seed: Seed of the resampling.

    Returns:
        Both ends for each name; NaN twice if there are fewer than two groups.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for weights in resample_weights(groups, num_resamples=num_resamples, seed=seed):
        block = WeightedScores(labels, scores, weights)
        for name in names:
            drawn[name].append(METRICS[name](block))
    return {name: compute_interval(values) for name, values in drawn.items()}


def resample_weights(
    groups: np.ndarray, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Iterator[np.ndarray]:
    """Yields weights of images in resamples of whole groups; deterministic.

    Args:
        groups: `[N]`, group of each image.
        num_resamples: Number of resamples.
        seed: Seed of the resampling.

    Yields:
        Blocks `[R, N]` of how often each image counts, with `num_resamples` rows in
        all; nothing if there are fewer than two groups.
    """
    _, member_of = np.unique(groups, return_inverse=True)
    num_groups = int(member_of.max(initial=-1)) + 1
    if num_groups < 2:
        return
    generator = np.random.default_rng(seed)
    shares = np.full(num_groups, 1 / num_groups)
    at_once = max(1, _BLOCK_ENTRIES // len(member_of))
    for start in range(0, num_resamples, at_once):
        count = min(at_once, num_resamples - start)
        yield generator.multinomial(num_groups, shares, count)[:, member_of]


def compute_interval(values: Sequence[np.ndarray]) -> Interval:
    """Returns the 95 % interval of a metric, by percentiles.

    Args:
        values: Blocks `[R]` of its values in resamples; NaN where it is undefined.

    Returns:
        Both ends; NaN twice without any value.
    """
    drawn = np.concatenate([np.empty(0), *values])
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, _LEVELS)
    return float(low), float(high)


def compute_calibration_intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """Computes 95 % intervals of the share of fakes in each calibration bin."""
    in_bin = assign_bins(scores)
    found = []
    for index in range(NUM_BINS):
        members = in_bin == index
        ends = compute_intervals(
            labels[members],
            scores[members],
            groups[members],
            ["prevalence"],
            num_resamples=num_resamples,
            seed=seed,
        )
        found.append(ends["prevalence"])
    return found


def assign_bins(scores: np.ndarray) -> np.ndarray:
    """Returns the bin of each probability: `(low, high]`, the first with 0."""
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    return np.clip(np.searchsorted(edges, scores, "left") - 1, 0, NUM_BINS - 1)


class WeightedScores:
    """N scores with R sets of weights, and the cached sums that metrics share.

    Args:
        labels: `[N]` of `dfdetect.labels`.
        scores: `[N]`, higher for fakes.
        weights: `[R, N]`, how often each score counts.
    """

    def __init__(
        self, labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
    ) -> None:
        order = np.argsort(scores, kind="stable")
        self.scores, self.labels = scores[order], labels[order]
        self.weights = weights[:, order].astype(np.float64)
        # First position of each of the U distinct scores.
        _, self.starts = np.unique(self.scores, return_index=True)

    @functools.cached_property
    def fakes(self) -> np.ndarray:
        """Weights `[R, U]` of the fakes at each score, ascending."""
        is_fake = self.labels == label_names.FAKE
        return np.add.reduceat(self.weights * is_fake, self.starts, axis=1)

    @functools.cached_property
    def reals(self) -> np.ndarray:
        """Weights `[R, U]` of the reals at each score, ascending."""
        is_real = self.labels == label_names.REAL
        return np.add.reduceat(self.weights * is_real, self.starts, axis=1)

    @functools.cached_property
    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """False- and true-positive rates `[R, U + 1]`, by descending score."""
        return _from_above(self.reals), _from_above(self.fakes)

    def mean(self, values: np.ndarray, label: int | None = None) -> np.ndarray:
        """Means `[R]` of `values`, `[N]` in score order, over all images or a class."""
        weights = self.weights
        if label is not None:
            weights = weights * (self.labels == label)
        return _divide(weights @ values, weights.sum(1))

    def predicted(self) -> np.ndarray:
        """Returns `[N]`: 1 where the score is at least .5, else 0."""
        return (self.scores >= 0.5).astype(np.float64)


def _auc(block: WeightedScores) -> np.ndarray:
    # Sum over fakes of the weight of the reals below them; ties count half.
    below = np.cumsum(block.reals, axis=1) - block.reals / 2
    product = block.fakes.sum(1) * block.reals.sum(1)
    return _divide((block.fakes * below).sum(1), product)


def _average_precision(block: WeightedScores) -> np.ndarray:
    fakes, reals = block.fakes[:, ::-1], block.reals[:, ::-1]
    true_positives = np.cumsum(fakes, axis=1)
    called = true_positives + np.cumsum(reals, axis=1)
    precision = np.divide(
        true_positives, called, out=np.zeros_like(called), where=called > 0
    )
    has_both = (reals.sum(1) > 0) & (fakes.sum(1) > 0)
    average = _divide((fakes * precision).sum(1), fakes.sum(1))
    return np.where(has_both, average, np.nan)


def _equal_error_rate(block: WeightedScores) -> np.ndarray:
    return equal_error_rates(*block.rates)


def equal_error_rates(
    false_positive_rates: np.ndarray, true_positive_rates: np.ndarray
) -> np.ndarray:
    """Computes equal error rates of ROC curves; see `classification.equal_error_rate`.

    Args:
        false_positive_rates: `[R, P]`, points of ROC curves, ascending from 0 to 1.
        true_positive_rates: `[R, P]`, of the same points.

    Returns:
        `[R]`; NaN where rates are NaN.
    """
    # False-positive rate minus false-negative rate, from -1 to 1.
    excess = false_positive_rates + true_positive_rates - 1
    rows = np.arange(len(excess))
    after = np.maximum((excess >= 0).argmax(1), 1)
    low, high = excess[rows, after - 1], excess[rows, after]
    start, end = (false_positive_rates[rows, place] for place in (after - 1, after))
    return start - low / (high - low) * (end - start)


def _tpr_at_fpr(block: WeightedScores) -> np.ndarray:
    false_positive_rates, true_positive_rates = block.rates
    allowed = false_positive_rates <= MAX_FALSE_POSITIVE_RATE + 1e-9
    best = np.where(allowed, true_positive_rates, 0).max(1)
    return np.where(np.isnan(false_positive_rates[:, 0]), np.nan, best)


def _log_loss(block: WeightedScores) -> np.ndarray:
    tiny = np.finfo(np.float64).eps
    clipped = np.clip(block.scores, tiny, 1 - tiny)
    is_fake = block.labels == label_names.FAKE
    return block.mean(-np.log(np.where(is_fake, clipped, 1 - clipped)))


def _calibration_error(block: WeightedScores) -> np.ndarray:
    in_bin = assign_bins(block.scores)[:, None] == np.arange(NUM_BINS)
    gaps = block.weights @ ((block.scores - block.labels)[:, None] * in_bin)
    return _divide(np.abs(gaps).sum(1), block.weights.sum(1))


def _rate(block: WeightedScores, label: int) -> np.ndarray:
    return block.mean(block.predicted(), label)


def _balanced_accuracy(block: WeightedScores) -> np.ndarray:
    specificity = 1 - _rate(block, label_names.REAL)
    return (_rate(block, label_names.FAKE) + specificity) / 2


# NaN for resamples that lack a class that the metric needs.
METRICS: dict[str, Callable[[WeightedScores], np.ndarray]] = {
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
    """Shares `[R, U + 1]` at or above each score, descending; starts with 0."""
    above = np.cumsum(counts[:, ::-1], axis=1)
    shares = np.divide(
        above,
        above[:, -1:],
        out=np.full_like(above, np.nan),
        where=above[:, -1:] > 0,
    )
    return np.concatenate([0 * shares[:, :1], shares], axis=1)


def _divide(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    return np.divide(
        numerators,
        denominators,
        out=np.full(len(denominators), np.nan),
        where=denominators > 0,
    )
