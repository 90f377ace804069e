"""How many pairs of seeds a paired t-test needs. scipy's noncentral t, no approximation.

J. Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 2: for n pairs
whose differences have mean d and standard deviation s, the test statistic is noncentral t with
n - 1 degrees of freedom and noncentrality (d / s) sqrt(n).
"""

from __future__ import annotations

from math import isfinite, nan, sqrt

ALPHA, POWER = 0.05, 0.8
MOST = 10_000  # pairs: nobody runs more, so nothing beyond is told apart


def power(effect: float, pairs: int, alpha: float = ALPHA) -> float:
    """How often a two-sided paired t-test finds a difference of ``effect`` standard deviations."""
    from scipy.stats import nct, t

    critical = t.ppf(1 - alpha / 2, pairs - 1)
    shift = abs(effect) * sqrt(pairs)
    beyond = nct.sf(critical, pairs - 1, shift)
    below = nct.cdf(-critical, pairs - 1, shift)
    # Far from it the second tail underflows to NaN, and is nothing.
    return float(beyond + (below if isfinite(below) else 0.0))


def pairs_needed(difference: float, sd: float, wanted: float = POWER) -> float:
    """The least number of pairs with which the test finds such a difference so often.

    Args:
        difference: its mean. sd: its standard deviation over pairs.

    Returns:
        At least 2; infinity where more than ``MOST`` would be needed; NaN where the standard
        deviation is not known or nothing varies.
    """
    if not (isfinite(difference) and isfinite(sd)) or sd == 0:
        return nan
    effect = abs(difference) / sd
    if effect == 0 or power(effect, MOST) < wanted:
        return float("inf")
    low, high = 1, MOST  # the power of ``high`` is enough, that of ``low`` is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle) >= wanted else (middle, high)
    return float(high)
