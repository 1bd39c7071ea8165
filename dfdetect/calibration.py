"""From a classifier's logit to a probability that one can take at its word."""

import numpy as np
import scipy.optimize
import scipy.special

_BOUNDS = (-np.log(20.0), np.log(20.0))


def probability(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """`sigmoid(logits / temperature)`, as the graph computes it."""
    return scipy.special.expit(np.asarray(logits) / temperature)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes the likelihood of the labels greatest.

    Args:
        logits: `[N]` fake logits of pictures that were not trained on.
        labels: `[N]` of `dfdetect.labels`.

    Returns:
        A positive number between 1/20 and 20 to divide logits by.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """
    logits = np.asarray(logits, np.float64)
    signs = 1.0 - 2.0 * np.asarray(labels)

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(np.logaddexp(0, signs * logits / np.exp(log_temperature)).mean())

    found = scipy.optimize.minimize_scalar(
        negative_log_likelihood, bounds=_BOUNDS, method="bounded"
    )
    return float(np.exp(found.x))
