"""Calibrates a classifier's logits, and chooses and applies verdict thresholds.

A calibrated fake probability of at least `fake_from` is fake, one below `real_below` is
real, and in the band between the verdict is "uncertain".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from dfdetect import labels as label_names

# Calibrated fake probabilities `real_below` and `fake_from`, in ascending order.
Thresholds = Mapping[str, float]

UNCERTAIN = "uncertain"

_BOUNDS = (-np.log(20.0), np.log(20.0))


def calibrate_logits(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns `sigmoid(logits / temperature)`, as the graph computes it."""
    return scipy.special.expit(np.asarray(logits) / temperature)


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, sources: np.ndarray | None = None
) -> float:
    """Fits the temperature that maximizes the likelihood of the labels.

    Args:
        logits: `[N]` fake logits of images that were not trained on.
        labels: `[N]` of `dfdetect.labels`.
        sources: `[N]`, name of the source of each image; the sources of a label have
            equal weight, however many images they have. None: one source.

    Returns:
        Divisor of the logits, between 1/20 and 20.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """
    logits = np.asarray(logits, np.float64)
    signs = 1.0 - 2.0 * np.asarray(labels)
    weights = _equal_weights(labels, sources)

    def negative_log_likelihood(log_temperature: float) -> float:
        losses = np.logaddexp(0, signs * logits / np.exp(log_temperature))
        return float((weights * losses).mean())

    found = scipy.optimize.minimize_scalar(
        negative_log_likelihood, bounds=_BOUNDS, method="bounded"
    )
    return float(np.exp(found.x))


def decide_verdict(fake_probability: float, thresholds: Thresholds) -> str | None:
    """Returns the name of a label, `UNCERTAIN`, or None if the probability is NaN.

    Fake is `fake_probability >= fake_from`, real is `fake_probability < real_below`.
    """
    if math.isnan(fake_probability):
        return None
    if fake_probability >= thresholds["fake_from"]:
        return label_names.NAMES[label_names.FAKE]
    if fake_probability < thresholds["real_below"]:
        return label_names.NAMES[label_names.REAL]
    return UNCERTAIN


def doubt_unfamiliar(known_verdict: str | None, is_unfamiliar: bool) -> str | None:
    """Returns `UNCERTAIN` instead of real for an unfamiliar head, else the verdict."""
    if is_unfamiliar and known_verdict == label_names.NAMES[label_names.REAL]:
        return UNCERTAIN
    return known_verdict


def single_threshold(threshold: float) -> Thresholds:
    """Returns thresholds without a band: fake from `threshold` on, else real."""
    return {"real_below": threshold, "fake_from": threshold}


def fit_thresholds(
    fake_probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    max_false_positive_rate: float,
    max_false_negative_rate: float,
    sources: np.ndarray | None = None,
    max_source_false_negative_rate: float | None = None,
) -> dict[str, float]:
    """Fits the narrowest band of uncertain verdicts within two error rates.

    Each threshold is halfway between two adjacent probabilities, so that rounding never
    changes a verdict, or between one and the end of [0, 1]. If no band is needed, both
    are the point nearest to .5 within the rates; else .5 is in the band.

    Args:
        fake_probabilities: `[N]`, calibrated, of images that were not trained on.
        labels: `[N]` of `dfdetect.labels`, both classes present.
        max_false_positive_rate: Highest share of real images called fake, in [0, 1),
            for each source by itself. Sources with fewer images than show such a share
            (20 for .05) bound nothing, unless all are that small.
        max_false_negative_rate: Highest share of fake images called real, in [0, 1), as
            the mean over their sources.
        sources: `[N]`, name of the source of each image. None: one source.
        max_source_false_negative_rate: Highest share of fake images called real, for
            each source by itself, but for those that are too small to show it; by
            default unlimited.

    Returns:
        `fake_from`, the lowest within its rate from .5 on (above 1 if too many real
        images have probability 1); `real_below`, the highest within its rate up to .5;
        their `false_positive_rate` and `false_negative_rate` on these images, means
        over sources; and `highest_false_positive_rate` and
        `highest_false_negative_rate`, those of the worst sources.

    Raises:
        ValueError: A rate is out of range, or a label is missing.
    """
    scores = np.asarray(fake_probabilities, np.float64)
    is_fake = np.asarray(labels) == label_names.FAKE
    real, fake = scores[~is_fake], scores[is_fake]
    if not len(real) or not len(fake):
        raise ValueError(
            f"labels must be real and fake, got {len(real)} real, {len(fake)} fake."
        )
    names = np.zeros(len(scores)) if sources is None else np.asarray(sources)
    by_source = [real[names[~is_fake] == name] for name in np.unique(names[~is_fake])]
    by_maker = [fake[names[is_fake] == name] for name in np.unique(names[is_fake])]
    weights = _equal_weights(labels, sources)[is_fake]
    # Highest probability of a real image, over sources, that must not be called fake.
    spared = max(
        reals[-1 - count]
        for reals, count in _select_bounding(by_source, max_false_positive_rate)
    )
    caught = _lower_quantile(fake, weights, max_false_negative_rate)
    if max_source_false_negative_rate is not None:
        of_each = _select_bounding(by_maker, max_source_false_negative_rate)
        caught = min(caught, *(fakes[count] for fakes, count in of_each))
    fake_from = (spared + scores.min(where=scores > spared, initial=1.0)) / 2
    real_below = (caught + scores.max(where=scores < caught, initial=0.0)) / 2
    if fake_from == spared:
        fake_from = np.nextafter(spared, math.inf)
    if fake_from <= real_below:
        fake_from = real_below = np.clip(0.5, fake_from, real_below)
    else:
        # Nobody would believe "real" beside a fake probability of .6.
        fake_from, real_below = max(fake_from, 0.5), min(real_below, 0.5)
    return {
        "real_below": float(real_below),
        "fake_from": float(fake_from),
        "false_positive_rate": float(
            np.mean([(reals >= fake_from).mean() for reals in by_source])
        ),
        "false_negative_rate": float(np.average(fake < real_below, weights=weights)),
        "highest_false_positive_rate": float(
            max((reals >= fake_from).mean() for reals in by_source)
        ),
        "highest_false_negative_rate": float(
            max((fakes < real_below).mean() for fakes in by_maker)
        ),
    }


def fit_calibration(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    max_false_positive_rate: float,
    max_false_negative_rate: float,
    sources: np.ndarray | None = None,
    max_source_false_negative_rate: float | None = None,
) -> dict[str, Any]:
    """Fits `temperature` and `thresholds` of a classifier's manifest.

    The thresholds apply to probabilities at that temperature; see `fit_temperature` and
    `fit_thresholds`.
    """
    temperature = fit_temperature(logits, labels, sources)
    thresholds = fit_thresholds(
        calibrate_logits(logits, temperature),
        labels,
        max_false_positive_rate=max_false_positive_rate,
        max_false_negative_rate=max_false_negative_rate,
        sources=sources,
        max_source_false_negative_rate=max_source_false_negative_rate,
    )
    return {"temperature": temperature, "thresholds": thresholds}


def default_calibration() -> dict[str, Any]:
    """Returns a temperature of 1 and a threshold of .5, without any fit."""
    return {"temperature": 1.0, "thresholds": dict(single_threshold(0.5))}


def _equal_weights(labels: np.ndarray, sources: np.ndarray | None) -> np.ndarray:
    """Weights `[N]` with mean 1 that give the sources of a label equal weight."""
    labels = np.asarray(labels)
    weights = np.ones(len(labels))
    if sources is None:
        return weights
    for label in np.unique(labels):
        members = labels == label
        _, source_of, counts = np.unique(
            np.asarray(sources)[members], return_inverse=True, return_counts=True
        )
        weights[members] = members.sum() / len(counts) / counts[source_of]
    return weights


def _lower_quantile(scores: np.ndarray, weights: np.ndarray, rate: float) -> float:
    """Returns the highest score with at most `rate` of the weight below it."""
    _allowed(rate, len(scores))
    order = np.argsort(scores, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weights[order])[:-1]])
    kept = np.flatnonzero(below <= rate * weights.sum() + 1e-9 * len(scores))
    return float(scores[order][kept[-1]])


def _select_bounding(
    parts: Sequence[np.ndarray], rate: float
) -> list[tuple[np.ndarray, int]]:
    """Selects the sources that bound a threshold: those large enough to show a rate.

    Returns:
        For each its scores, ascending, and how many of them may be wrong; of all
        sources if none is large enough.
    """
    allowed = [_allowed(rate, len(part)) for part in parts]
    return [
        (np.sort(part), count)
        for part, count in zip(parts, allowed, strict=True)
        if count or not any(allowed)
    ]


def _allowed(rate: float, count: int) -> int:
    """Returns how many of `count` may be wrong."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"A rate must be in [0, 1), got {rate}.")
    # In floating point, .29 * 100 is just below 29.
    return min(math.floor(rate * count + 1e-9), count - 1)
