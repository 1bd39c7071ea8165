"""How well fake probabilities tell real from fake. Fake is the positive class."""

import numpy as np
import sklearn.metrics

from dfdetect import labels as label_names

METRICS = (
    "auc",
    "ap",
    "accuracy",
    "balanced_accuracy",
    "log_loss",
    "brier",
    "ece",
    "eer",
)


def summary(labels: np.ndarray, fake_probabilities: np.ndarray) -> dict[str, float]:
    """The usual measures at once.

    Args:
        labels: `[N]` of `dfdetect.labels`, both classes present.
        fake_probabilities: `[N]` in [0, 1].

    Returns:
        `auc`, `ap` (average precision), `accuracy` and `balanced_accuracy` at .5,
        `log_loss` (nats), `brier`, `ece` (15 bins) and `eer`.

    Raises:
        ValueError: Lengths differ, a class is absent, or a probability is none.
    """
    labels, fake_probabilities = _checked(labels, fake_probabilities)
    predicted = fake_probabilities >= 0.5
    return {
        "auc": float(sklearn.metrics.roc_auc_score(labels, fake_probabilities)),
        "ap": float(
            sklearn.metrics.average_precision_score(labels, fake_probabilities)
        ),
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(
            sklearn.metrics.balanced_accuracy_score(labels, predicted)
        ),
        "log_loss": float(sklearn.metrics.log_loss(labels, fake_probabilities)),
        "brier": float(np.mean((fake_probabilities - labels) ** 2)),
        "ece": expected_calibration_error(labels, fake_probabilities),
        "eer": equal_error_rate(labels, fake_probabilities),
    }


def expected_calibration_error(
    labels: np.ndarray, fake_probabilities: np.ndarray, num_bins: int = 15
) -> float:
    """Mean distance between predicted and observed share of fakes, by bin.

    Bins are equal in width, open below and closed above; each counts by its members.

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian
    Binning, AAAI 2015.
    """
    labels, fake_probabilities = _checked(labels, fake_probabilities)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, fake_probabilities, "left") - 1, 0, None)
    gaps = np.bincount(bins, fake_probabilities - labels, num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def equal_error_rate(labels: np.ndarray, fake_probabilities: np.ndarray) -> float:
    """False-positive rate where it is nearest to the false-negative rate.

    Source: the convention of DeepfakeBench (Yan et al., NeurIPS 2023).
    """
    labels, fake_probabilities = _checked(labels, fake_probabilities)
    false_positives, true_positives, _ = sklearn.metrics.roc_curve(
        labels, fake_probabilities, pos_label=label_names.FAKE
    )
    nearest = np.argmin(np.abs(1 - true_positives - false_positives))
    return float(false_positives[nearest])


def auc_interval(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """Area under the ROC curve, and its 95 % bootstrap interval by group.

    Pictures of one video are no independent proof; whole groups are drawn anew.

    Args:
        labels: `[N]` of `dfdetect.labels`, both classes present.
        scores: `[N]`, greater where a fake is likelier.
        groups: `[N]`, names of what the pictures belong to.
        num_resamples: Of the bootstrap; those without both classes do not count.
        seed: Of the drawing.

    Source: Field and Welsh, Bootstrapping clustered data, JRSS B, 2007.
    """
    # In the order of the scores each resample takes one pass: an area is a sum over
    # fakes of the weight of the reals below them, ties counted half.
    _, tied = np.unique(scores, return_inverse=True)
    _, member_of = np.unique(groups, return_inverse=True)
    is_fake = np.asarray(labels) == label_names.FAKE
    num_groups = member_of.max() + 1

    def area(weights: np.ndarray) -> float:
        fakes = np.bincount(tied, weights * is_fake)
        reals = np.bincount(tied, weights * ~is_fake)
        product = fakes.sum() * reals.sum()
        below = np.cumsum(reals) - reals / 2
        return float(fakes @ below / product) if product else float("nan")

    generator = np.random.default_rng(seed)
    drawn = [
        area(
            generator.multinomial(num_groups, [1 / num_groups] * num_groups)[member_of]
        )
        for _ in range(num_resamples)
    ]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return area(np.ones(len(tied))), (float(low), float(high))


def _checked(
    labels: np.ndarray, fake_probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    fake_probabilities = np.asarray(fake_probabilities, np.float64)
    if labels.ndim != 1 or labels.shape != fake_probabilities.shape:
        raise ValueError(
            "labels and fake_probabilities must be [N], "
            f"got {labels.shape} and {fake_probabilities.shape}."
        )
    if set(np.unique(labels)) != {label_names.REAL, label_names.FAKE}:
        raise ValueError(
            f"labels must hold both 0 and 1 and no other, got {np.unique(labels)}."
        )
    if not np.all((fake_probabilities >= 0) & (fake_probabilities <= 1)):
        raise ValueError("fake_probabilities must be in [0, 1] and not NaN.")
    return labels, fake_probabilities
