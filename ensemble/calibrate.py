"""Scores of unlike members on one scale: a monotone map from raw score to the intersection over union to expect.

What a member calls 0.9 another calls 0.6. Where truth is known, each row of a member has a raw score and the
intersection over union with the true nucleus that it was matched with, 0 where it was matched with none. The mean
of that, as a function of the raw score that never falls, is what a score is worth; rows of all members then compete
by it. Fitted per member, stored beside its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from ensemble.groups import SCORE_TOP, as_integers
from ensemble.iou import STEPS
from ensemble.nms import Indices

MOST_KNOTS = 32
"""Knots of a fitted map, beside its two ends."""


@dataclass(frozen=True)
class Calibration:
    """A map from raw to calibrated scores, both integers 0..SCORE_TOP: straight between knots, flat beyond them.

    raw         (K,) K >= 1, ascending
    calibrated  (K,) never falling: the expected intersection over union on the scale of scores
    rows        how many rows it was fitted on
    """

    raw: tuple[int, ...]
    calibrated: tuple[int, ...]
    rows: int

    def __post_init__(self) -> None:
        knots, values = np.array(self.raw, np.int64), np.array(self.calibrated, np.int64)
        ends = [*knots[:1], *knots[-1:], *values[:1], *values[-1:]]
        if not len(knots) or len(knots) != len(values) or (np.diff(knots) <= 0).any() or (np.diff(values) < 0).any():
            raise ValueError(
                f"a calibration has knots {list(self.raw)} and values {list(self.calibrated)}: expected as many of "
                "both, one at least, knots that rise and values that never fall"
            )
        if min(ends) < 0 or max(ends) > SCORE_TOP:
            raise ValueError(f"a calibration goes from {min(ends)} to {max(ends)}, expected 0 to {SCORE_TOP}")

    def apply(self, score: npt.ArrayLike) -> Indices:
        """Calibrated scores of raw ones: (N,) integers 0..SCORE_TOP -> (N,) int64, rounded half up, exactly.

        N = 0 gives (0,). ValueError for floats: scores are integers here.
        """
        given = as_integers(score, None, "scores")
        knots, values = np.array(self.raw, np.int64), np.array(self.calibrated, np.int64)
        right = np.clip(np.searchsorted(knots, given, side="right"), 1, max(len(knots) - 1, 1))
        left, right = right - 1, np.minimum(right, len(knots) - 1)
        run = np.maximum(knots[right] - knots[left], 1)
        along = np.clip(given, knots[0], knots[-1]) - knots[left]
        return np.asarray(values[left] + (2 * along * (values[right] - values[left]) + run) // (2 * run), np.int64)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON beside weights."""
        return {"raw": list(self.raw), "calibrated": list(self.calibrated), "top": SCORE_TOP, "rows": self.rows}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Calibration:
        """What `as_dict` gave. ValueError where keys, scale or values are others."""
        if set(stored) != {"raw", "calibrated", "top", "rows"} or stored["top"] != SCORE_TOP:
            raise ValueError(
                f"a stored calibration has {sorted(stored)} and top {stored.get('top')}, expected calibrated, raw, "
                f"rows and top {SCORE_TOP}: fit it again"
            )
        raw, values = (as_integers(stored[name], None, name).tolist() for name in ("raw", "calibrated"))
        return cls(tuple(raw), tuple(values), int(stored["rows"]))


def fit(score: npt.ArrayLike, iou: npt.ArrayLike, most_knots: int = MOST_KNOTS) -> Calibration:
    """The calibration of one member's rows.

    score (N,) integers 0..SCORE_TOP; iou (N,) floats 0..1, with the matched true nucleus, 0 for a row without one
    (taken in whole millionths, so that the order of rows never matters). Isotonic regression by least squares
    joins scores into steps; neighbouring steps are joined until about `most_knots` (>= 1) of equal numbers of rows
    are left, each a knot at its mean score; the lowest and the highest score are knots too. All scores equal: one
    knot at their mean. ValueError for no rows: nothing is known then; or for values outside their scales.
    Source: Zadrozny and Elkan 2002, KDD, "Transforming classifier scores into accurate multiclass probability
    estimates" (isotonic calibration).
    """
    given, worth = _checked(score, iou)
    if not len(given) or most_knots < 1:
        raise ValueError(f"a calibration of {len(given)} rows with {most_knots} knots: expected one or more of both")
    raw, place, count = np.unique(given, return_inverse=True, return_counts=True)
    summed = np.zeros(len(raw), np.int64)
    np.add.at(summed, place, worth)
    steps = isotonic_regression(summed / count / STEPS, weights=count)
    bounds = _joined(np.asarray(steps.blocks, np.int64), count, most_knots)
    knots = {int(raw[end]): round(float(steps.x[end]) * SCORE_TOP) for end in (0, -1)}
    sums = [np.add.reduceat(column, bounds).tolist() for column in (count, raw * count, summed)]
    for rows, place_sum, worth_sum in zip(*sums, strict=True):
        knots[_half_up(place_sum, rows)] = _half_up(worth_sum * SCORE_TOP, rows * STEPS)
    ascending = sorted(knots)
    values = np.maximum.accumulate([knots[k] for k in ascending]).tolist()
    return Calibration(tuple(ascending), tuple(values), len(given))


def cross_fitted(score: npt.ArrayLike, iou: npt.ArrayLike, group: npt.ArrayLike, folds: int = 5) -> Indices:
    """Scores of rows, each calibrated by a fit on other groups: (N,) int64, for judging what calibration is worth.

    score, iou as in `fit`; group (N,), any kind that sorts: rows of one group (an image, a slide) are never on both
    sides. Groups go whole into `folds` (>= 2) folds, the largest first, each into the fold with the fewest rows, of
    equal ones the first; with fewer groups than folds each group is a fold. N = 0 gives (0,). ValueError for rows
    of a single group: there is nothing else to fit on.
    Source: Stone 1974, J. R. Statist. Soc. B 36:111 (cross-validatory assessment).
    """
    given, worth = _checked(score, iou)
    names, place, count = np.unique(np.asarray(group), return_inverse=True, return_counts=True)
    if len(place) != len(given) or folds < 2 or len(names) == 1:
        raise ValueError(
            f"{len(given)} rows with {len(place)} names of {len(names)} groups in {folds} folds: expected a name a "
            "row, two groups and two folds at least"
        )
    fold = _dealt(count, min(folds, len(names)))[place]
    out = np.zeros(len(given), np.int64)
    for k in np.unique(fold):
        out[fold == k] = fit(given[fold != k], worth[fold != k] / STEPS).apply(given[fold == k])
    return out


def _checked(score: npt.ArrayLike, iou: npt.ArrayLike) -> tuple[Indices, Indices]:
    """Scores, and intersections over unions in whole millionths."""
    given, worth = as_integers(score, None, "scores"), np.asarray(iou, np.float64)
    if worth.shape != given.shape or not ((worth >= 0) & (worth <= 1)).all():
        raise ValueError(f"{len(given)} scores with ious {worth.shape}, expected one a score, from 0 to 1")
    if len(given) and (given.min() < 0 or given.max() > SCORE_TOP):
        raise ValueError(f"scores from {given.min()} to {given.max()}, expected integers from 0 to {SCORE_TOP}")
    return given, np.rint(worth * STEPS).astype(np.int64)


def _joined(blocks: Indices, count: Indices, most: int) -> Indices:
    """Where steps begin once neighbours are joined: those whose middle rows lie in one of `most` equal parts."""
    start = blocks[:-1]
    rows = np.add.reduceat(count, start)
    part = (2 * np.cumsum(rows) - rows) * most // (2 * rows.sum())
    return start[np.flatnonzero(np.diff(part, prepend=-1))]


def _half_up(part: int, whole: int) -> int:
    return (2 * part + whole) // (2 * whole)


def _dealt(count: Indices, folds: int) -> Indices:
    """The fold of each group."""
    load, fold = np.zeros(folds, np.int64), np.zeros(len(count), np.int64)
    for g in np.argsort(-count, kind="stable"):
        fold[g] = np.argmin(load)
        load[fold[g]] += count[g]
    return fold
