"""From a classifier's logit to a probability that one can take at its word.

And from the probability to a verdict: fake from `fake_from` on, real below
`real_below`, and "uncertain" in the band between.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from dfdetect import labels as label_names

# `real_below` and `fake_from`, calibrated fake probabilities, the first not above the
# second.
Thresholds = Mapping[str, float]

UNCERTAIN = "uncertain"

_BOUNDS = (-np.log(20.0), np.log(20.0))


def probability(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """`sigmoid(logits / temperature)`, as the graph computes it."""
    return scipy.special.expit(np.asarray(logits) / temperature)


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, sources: np.ndarray | None = None
) -> float:
    """The temperature that makes the likelihood of the labels greatest.

    Args:
        logits: `[N]` fake logits of images that were not trained on.
        labels: `[N]` of `dfdetect.labels`.
        sources: `[N]`, names of where they come from; all of a label count the same,
            however many images they have. None: one source.

    Returns:
        A positive number between 1/20 and 20 to divide logits by.

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


def verdict(fake_probability: float, thresholds: Thresholds) -> str | None:
    """The name of a label, `UNCERTAIN`, or None for a probability of NaN.

    Fake from `fake_from` on, this very number included, real below `real_below`.
    """
    if math.isnan(fake_probability):
        return None
    if fake_probability >= thresholds["fake_from"]:
        return label_names.NAMES[label_names.FAKE]
    if fake_probability < thresholds["real_below"]:
        return label_names.NAMES[label_names.REAL]
    return UNCERTAIN


def doubted(known_verdict: str | None, is_unfamiliar: bool) -> str | None:
    """A verdict where nothing like the head is known: `UNCERTAIN` instead of real."""
    if is_unfamiliar and known_verdict == label_names.NAMES[label_names.REAL]:
        return UNCERTAIN
    return known_verdict


def without_band(threshold: float) -> Thresholds:
    """Fake from this fake probability on, else real."""
    return {"real_below": threshold, "fake_from": threshold}


def fit_thresholds(
    fake_probabilities: np.ndarray,
    labels: np.ndarray,
    max_false_positive_rate: float,
    max_false_negative_rate: float,
    sources: np.ndarray | None = None,
    max_source_false_negative_rate: float | None = None,
) -> dict[str, float]:
    """The narrowest band that keeps both kinds of wrong verdicts rare.

    Each threshold stands halfway between two neighbouring probabilities, so that no
    rounding turns a verdict, or between one and the end of [0, 1]. Where no band is
    needed, both are the point nearest to .5 that keeps the rates.

    Args:
        fake_probabilities: `[N]`, calibrated, of images that were not trained on.
        labels: `[N]` of `dfdetect.labels`, both of them present.
        max_false_positive_rate: Most of the real images that may be called fake, in
            [0, 1); of any source by itself.
        max_false_negative_rate: Most of the fake images that may be called real; the
            mean over their sources.
        sources: `[N]`, names of where the images come from. None: one source.
        max_source_false_negative_rate: Most of the fake images of any one source that
            may be called real; by default only the mean counts.

    Returns:
        `fake_from`, the least that keeps its rate, above 1 where probabilities of 1
        leave no other way; `real_below`, the greatest that keeps its rate;
        `false_positive_rate` and `false_negative_rate`, those of these images, the
        means over their sources; and `highest_false_positive_rate` and
        `highest_false_negative_rate`, those of the sources with the most.

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
    # The most suspicious real image that must not be called fake, and its like.
    spared = max(
        np.sort(reals)[-1 - _allowed(max_false_positive_rate, len(reals))]
        for reals in by_source
    )
    caught = _lower_quantile(fake, weights, max_false_negative_rate)
    if max_source_false_negative_rate is not None:
        rate = max_source_false_negative_rate
        of_each = [np.sort(fakes)[_allowed(rate, len(fakes))] for fakes in by_maker]
        caught = min(caught, *of_each)
    fake_from = (spared + scores.min(where=scores > spared, initial=1.0)) / 2
    real_below = (caught + scores.max(where=scores < caught, initial=0.0)) / 2
    if fake_from == spared:
        fake_from = np.nextafter(spared, math.inf)
    if fake_from < real_below:
        fake_from = real_below = np.clip(0.5, fake_from, real_below)
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


def fit(
    logits: np.ndarray,
    labels: np.ndarray,
    max_false_positive_rate: float,
    max_false_negative_rate: float,
    sources: np.ndarray | None = None,
    max_source_false_negative_rate: float | None = None,
) -> dict[str, Any]:
    """What a classifier's manifest says of both: `temperature` and `thresholds`.

    The thresholds are for probabilities of that temperature; see `fit_temperature` and
    `fit_thresholds`.
    """
    temperature = fit_temperature(logits, labels, sources)
    thresholds = fit_thresholds(
        probability(logits, temperature),
        labels,
        max_false_positive_rate,
        max_false_negative_rate,
        sources,
        max_source_false_negative_rate,
    )
    return {"temperature": temperature, "thresholds": thresholds}


def uncalibrated() -> dict[str, Any]:
    """What `fit` gives where there is nothing to fit to: .5 decides."""
    return {"temperature": 1.0, "thresholds": dict(without_band(0.5))}


def _equal_weights(labels: np.ndarray, sources: np.ndarray | None) -> np.ndarray:
    """`[N]`, how much each image counts: sources of a label alike, 1 on average."""
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
    """The highest score below which no more than `rate` of the weight is."""
    _allowed(rate, len(scores))
    order = np.argsort(scores, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weights[order])[:-1]])
    kept = np.flatnonzero(below <= rate * weights.sum() + 1e-9 * len(scores))
    return float(scores[order][kept[-1]])


def _allowed(rate: float, count: int) -> int:
    """How many of `count` may be wrong."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"A rate must be in [0, 1), got {rate}.")
    # .29 * 100 is a hair below 29.
    return min(math.floor(rate * count + 1e-9), count - 1)
