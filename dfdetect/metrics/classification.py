"""Metrics of fake probabilities. Fake is the positive class."""

import numpy as np
import sklearn.metrics

from dfdetect import labels as label_names
from dfdetect.metrics import bootstrap

METRICS = (
    "auc",
    "ap",
    "accuracy",
    "balanced_accuracy",
    "log_loss",
    "brier",
    "ece",
    "eer",
    "tpr_at_1_percent_fpr",
)


def compute_metrics(
    labels: np.ndarray, fake_probabilities: np.ndarray
) -> dict[str, float]:
    """Computes all of `METRICS`.

    Args:
        labels: `[N]` of `dfdetect.labels`, both classes present.
        fake_probabilities: `[N]` in [0, 1].

    Returns:
        `auc`, `ap` (average precision), `accuracy` and `balanced_accuracy` at .5,
        `log_loss` (nats), `brier`, `ece` (15 bins), `eer` and `tpr_at_1_percent_fpr`.

    Raises:
        ValueError: Lengths differ, a class is absent, or values are not in [0, 1].
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
        "tpr_at_1_percent_fpr": tpr_at_fpr(labels, fake_probabilities),
    }


def compute_defined_metrics(
    labels: np.ndarray, fake_probabilities: np.ndarray
) -> dict[str, float]:
    """Computes those of `METRICS` that have a value, also of one class alone.

    Args:
        labels: `[N]` of `dfdetect.labels`, at least one.
        fake_probabilities: `[N]` in [0, 1].

    Returns:
        See `compute_metrics`; of one class `accuracy`, `log_loss` and `brier`.
    """
    labels = np.asarray(labels)
    if len(np.unique(labels)) != 1:
        return compute_metrics(labels, fake_probabilities)
    fake_probabilities = np.asarray(fake_probabilities, np.float64)
    both = [label_names.REAL, label_names.FAKE]
    return {
        "accuracy": float(np.mean((fake_probabilities >= 0.5) == labels)),
        "log_loss": float(
            sklearn.metrics.log_loss(labels, fake_probabilities, labels=both)
        ),
        "brier": float(np.mean((fake_probabilities - labels) ** 2)),
    }


def expected_calibration_error(
    labels: np.ndarray,
    fake_probabilities: np.ndarray,
    num_bins: int = bootstrap.NUM_BINS,
) -> float:
    """Mean distance between the predicted and observed share of fakes, by bin.

    Bins have equal width and are `(low, high]`; each is weighted by its members.

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian
    Binning, AAAI 2015.
    """
    labels, fake_probabilities = _checked(labels, fake_probabilities)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, fake_probabilities, "left") - 1, 0, None)
    gaps = np.bincount(bins, fake_probabilities - labels, num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def equal_error_rate(labels: np.ndarray, fake_probabilities: np.ndarray) -> float:
    """False-positive rate where it equals the false-negative rate.

    The points of the ROC curve are joined by straight lines, since no single threshold
    need have equal rates. A constant score has .5.

    Source: Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 2006,
    section 5 (points between two thresholds). DeepfakeBench takes the nearest threshold
    instead, which differs by up to half the share of one example.
    """
    rates = _rates(labels, fake_probabilities)
    return float(bootstrap.equal_error_rates(*(x[None] for x in rates))[0])


def tpr_at_fpr(
    labels: np.ndarray,
    fake_probabilities: np.ndarray,
    max_false_positive_rate: float = bootstrap.MAX_FALSE_POSITIVE_RATE,
) -> float:
    """True-positive rate at the best threshold within a false-positive rate.

    At 1 % and with fewer than 100 reals, not a single false positive is allowed.
    """
    false_positive_rates, true_positive_rates = _rates(labels, fake_probabilities)
    allowed = false_positive_rates <= max_false_positive_rate + 1e-9
    return float(true_positive_rates[allowed].max())


def compute_auc_interval(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """Area under the ROC curve, and its 95 % bootstrap interval by group.

    Args:
        labels: `[N]` of `dfdetect.labels`, both classes present.
        scores: `[N]`, higher for fakes.
        groups: `[N]`, group of each image, such as its video.
        num_resamples: Number of resamples.
        seed: Seed of the resampling.
    """
    found = bootstrap.compute_intervals(
        labels, scores, groups, ["auc"], num_resamples=num_resamples, seed=seed
    )
    return float(sklearn.metrics.roc_auc_score(labels, scores)), found["auc"]


def measure_separation(
    labels: np.ndarray,
    scores: np.ndarray,
    called: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, float | list[float]]:
    """Measures how well scores of any kind, and verdicts on them, separate the classes.

    Args:
        labels: `[N]` of `dfdetect.labels`, both classes present.
        scores: `[N]`, higher for fakes.
        called: `[N]`, whether each is called a fake.
        groups: `[N]`, group of each image, such as its video.
        seed: Seed of the resampling.

    Returns:
        Values for JSON: `auc`, `balanced_accuracy`, and their 95 % intervals by group,
        `compute_auc_interval` and `balanced_accuracy_interval`.
    """
    auc, interval = compute_auc_interval(labels, scores, groups, seed=seed)
    # The area under the ROC curve of binary decisions is their balanced accuracy.
    balanced, balanced_interval = compute_auc_interval(
        labels, called, groups, seed=seed
    )
    return {
        "auc": auc,
        "auc_interval": list(interval),
        "balanced_accuracy": balanced,
        "balanced_accuracy_interval": list(balanced_interval),
    }


def _rates(
    labels: np.ndarray, fake_probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    labels, fake_probabilities = _checked(labels, fake_probabilities)
    false_positive_rates, true_positive_rates, _ = sklearn.metrics.roc_curve(
        labels,
        fake_probabilities,
        pos_label=label_names.FAKE,
        drop_intermediate=False,
    )
    return false_positive_rates, true_positive_rates


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
