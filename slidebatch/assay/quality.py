"""How well two groups of control wells are told apart, with bootstrap intervals.

All take the values of negative and positive wells, (N,) and (P,) finite, at least two each (else NaN).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats, Floats], float]
Interval = tuple[float, float]

NORMAL = 1.4826
"""Median absolute deviations of a normal distribution, times this, are its standard deviation."""


def zprime(negative: Floats, positive: Floats) -> float:
    """Z' = 1 - 3 (sn + sp) / |mn - mp| with means and sample standard deviations; -inf where the means agree.

    Source: Zhang, Chung and Oldenburg, J Biomol Screen 4 (1999) 67-73.
    """
    if min(len(negative), len(positive)) < 2:
        return float("nan")
    return _separation(negative.mean(), positive.mean(), negative.std(ddof=1) + positive.std(ddof=1))


def robust_zprime(negative: Floats, positive: Floats) -> float:
    """Z' with medians and scaled median absolute deviations instead: one odd well hardly counts."""
    if min(len(negative), len(positive)) < 2:
        return float("nan")
    return _separation(float(np.median(negative)), float(np.median(positive)), _mad(negative) + _mad(positive))


def ssmd(negative: Floats, positive: Floats) -> float:
    """Strictly standardised mean difference, (mp - mn) / sqrt(sn^2 + sp^2): its sign is that of the effect.

    Source: Zhang, Genomics 89 (2007) 552-561. Infinite where neither group varies, NaN where their means agree too.
    """
    if min(len(negative), len(positive)) < 2:
        return float("nan")
    apart = float(positive.mean() - negative.mean())
    spread = float(np.hypot(negative.std(ddof=1), positive.std(ddof=1)))
    if spread == 0:
        return float(np.copysign(np.inf, apart)) if apart else float("nan")
    return apart / spread


def bootstrap(statistic: Statistic, negative: Floats, positive: Floats, resamples: int, seed: int) -> Interval:
    """The 95 % interval of a statistic over draws of as many wells from each group, with replacement.

    Percentiles of the draws; NaN without draws, or with fewer than two wells in a group. The same seed, the same
    interval.
    """
    if resamples < 1 or min(len(negative), len(positive)) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(rng.choice(negative, len(negative)), rng.choice(positive, len(positive))) for _ in range(resamples)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5], method="inverted_cdf")  # draws themselves: some may be infinite
    return float(low), float(high)


def _separation(low: float, high: float, spread: float) -> float:
    return float(1 - 3 * spread / abs(high - low)) if high != low else -float("inf")


def _mad(values: Floats) -> float:
    return NORMAL * float(np.median(np.abs(values - np.median(values))))
