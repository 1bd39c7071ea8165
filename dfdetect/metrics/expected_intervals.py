"""Expected widths of 95 % intervals, from the number of examples alone."""

import math

_NORMAL_QUANTILE = 1.96  # Of 95 %, two-sided.


def auc_half_width(num_real: int, num_fake: int, auc: float = 0.9) -> float:
    """Computes half the width of the interval of an area under the ROC curve.

    Args:
        num_real: Number of independent reals, such as groups.
        num_fake: Number of independent fakes.
        auc: The area that is expected.

    Returns:
        At most .5; .5 without examples of a class.

    Source: Hanley and McNeil, The meaning and use of the area under a receiver
    operating characteristic (ROC) curve, Radiology 1982.
    """
    if not num_real or not num_fake:
        return 0.5
    two_fakes, two_reals = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc)
    variance += (num_fake - 1) * (two_fakes - auc**2)
    variance += (num_real - 1) * (two_reals - auc**2)
    half_width = _NORMAL_QUANTILE * math.sqrt(variance / (num_real * num_fake))
    return min(half_width, 0.5)


def share_half_width(count: float, share: float = 0.9) -> float:
    """Computes half the width of the interval of a share of independent examples."""
    if not count:
        return 0.5
    return min(_NORMAL_QUANTILE * math.sqrt(share * (1 - share) / count), 0.5)
