"""Response to doses: medians, rank correlation, and a four-parameter curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]

GRID = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Slopes from which the search may begin."""

STEEPEST = 20.0
SHALLOWEST = 0.1
"""Limits of the Hill slope: beyond, a curve is a step, or flat."""

BEYOND = 100.0
"""An EC50 is looked for up to this many times below the smallest and above the largest dose."""


@dataclass(frozen=True)
class FourParameters:
    """response = bottom + (top - bottom) / (1 + (ec50 / dose) ** hill); at dose 0 it is `bottom`.

    bottom, top  without and with endless dose; top lies below bottom where the response falls
    ec50         the dose halfway, in the doses' unit
    r_squared    share of the variance that the curve explains
    inside       whether the EC50 lies between the smallest dose above 0 and the largest: otherwise it is a guess
    """

    bottom: float
    top: float
    ec50: float
    hill: float
    r_squared: float
    inside: bool

    def at(self, dose: npt.ArrayLike) -> Floats:
        """The response at some doses (N,)."""
        return self.bottom + (self.top - self.bottom) * _risen(
            np.asarray(dose, np.float64), np.log(self.ec50), self.hill
        )


def four_parameter_fit(dose: Floats, response: Floats) -> FourParameters:
    """The curve nearest to all wells (N,), by least squares.

    bottom and top follow from the other two by linear regression, so that only EC50 and slope are searched: first on a
    grid, then from its best point. ValueError for fewer than four different doses.
    """
    doses = np.unique(dose[dose > 0])
    if len(np.unique(dose)) < 4 or len(doses) < 3:
        raise ValueError(
            f"a curve of four parameters needs four different doses at least, found {len(np.unique(dose))}"
        )
    ends = np.log(doses[0]), np.log(doses[-1])

    def residual(shape: Floats) -> Floats:
        return _fitted(response, _risen(dose, shape[0], shape[1]))[1]

    grid = np.stack(np.meshgrid(np.linspace(*ends, 25), GRID), axis=-1).reshape(-1, 2)
    left = _fitted(response, _risen(dose, grid[:, :1], grid[:, 1:]))[1]
    bounds = ([ends[0] - np.log(BEYOND), SHALLOWEST], [ends[1] + np.log(BEYOND), STEEPEST])
    found = least_squares(residual, grid[(left**2).sum(axis=1).argmin()], bounds=bounds).x
    (bottom, top), rest = _fitted(response, _risen(dose, found[0], found[1]))
    spread = float(((response - response.mean()) ** 2).sum())
    explained = 1 - float((rest**2).sum()) / spread if spread else 0.0
    ec50 = float(np.exp(found[0]))
    inside = bool(doses[0] <= ec50 <= doses[-1])
    return FourParameters(float(bottom), float(top), ec50, float(found[1]), explained, inside)


def ec50_interval(dose: Floats, response: Floats, resamples: int, seed: int) -> tuple[float, float]:
    """The 95 % interval of the EC50 over draws of as many wells of each dose, with replacement; NaN without draws."""
    if resamples < 1:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    wells = [np.flatnonzero(dose == one) for one in np.unique(dose)]
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([rng.choice(well, len(well)) for well in wells])
        drawn.append(four_parameter_fit(dose[rows], response[rows]).ec50)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def dose_medians(dose: Floats, response: Floats) -> tuple[Floats, Floats]:
    """The different doses (D,), ascending, and the median response of the wells of each."""
    doses = np.unique(dose)
    return doses, np.array([float(np.median(response[dose == one])) for one in doses])


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation of (N,) pairs, ties sharing their mean rank; NaN where either has fewer than two values."""
    if len(first) < 2:
        return float("nan")
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else float("nan")


def _risen(dose: Floats, log_ec50: Any, hill: Any) -> Floats:
    """How far the curve has risen at some doses, 0..1."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(1 / (1 + np.exp(hill * (log_ec50 - np.log(dose)))), np.float64)


def _fitted(response: Floats, risen: Floats) -> tuple[tuple[Floats, Floats], Floats]:
    """Bottom and top (...,) by linear regression of the response (N,) on rises (..., N), and what is left (..., N)."""
    away = risen - risen.mean(axis=-1, keepdims=True)
    slope = (away * response).sum(axis=-1) / np.maximum((away * away).sum(axis=-1), 1e-300)
    bottom = response.mean() - slope * risen.mean(axis=-1)
    return (bottom, bottom + slope), response - bottom[..., None] - slope[..., None] * risen
