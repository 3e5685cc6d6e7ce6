"""What a parameter does to the score, on average over all that the other parameters did.

Pure functions of a table. In a full grid the means of a parameter's values compare like with like; where points were
left out or have failed, they do not quite, and the counts beside them tell.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slidebatch.sweep.collect import Collected

MOST_VALUES = 12
"""Numbers with more values than this are put together in as many quarters."""

PARTS = 4


@dataclass(frozen=True)
class Effect:
    """The effect of one parameter.

    values  a row for each value (or range of values): value, points, mean, low and high quartile of the measure
    share   share of the measure's variance that lies between those means, 0..1; NaN where it does not vary
    """

    parameter: str
    values: pd.DataFrame
    share: float


def effects(found: Collected) -> list[Effect]:
    """Effects of all parameters that vary, the strongest first. Without a measure: none."""
    if found.measure is None:
        return []
    made = [_effect(found.done, key, found.measure) for key in found.parameters if found.done[key].nunique() > 1]
    return sorted(made, key=lambda e: -e.share if e.share == e.share else 0.0)


def _effect(table: pd.DataFrame, key: str, measure: str) -> Effect:
    scores = table[measure].astype(float)
    grouped = scores.groupby(_groups(table[key]), sort=True, observed=True)
    values = pd.DataFrame(
        {
            "points": grouped.size(),
            "mean": grouped.mean(),
            "low": grouped.quantile(0.25),
            "high": grouped.quantile(0.75),
        }
    )
    total = float(((scores - scores.mean()) ** 2).sum())
    between = float((values["points"] * (values["mean"] - scores.mean()) ** 2).sum())
    values.insert(0, "value", [str(v) for v in values.index])
    return Effect(key, values.reset_index(drop=True), between / total if total > 0 else float("nan"))


def _groups(values: pd.Series) -> pd.Series:
    """Values, or the quarter that each lies in where there are too many."""
    if values.nunique() <= MOST_VALUES or values.dtype.kind not in "if":
        return values
    edges = np.unique(np.quantile(values, np.linspace(0, 1, PARTS + 1))).tolist()
    names = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    return pd.cut(values, edges, labels=names, include_lowest=True)


def front(cost: pd.Series, score: pd.Series, largest: bool) -> pd.Series:
    """Which points no other one beats in both: bool, as the given series. A dear one must score more to count."""
    order = pd.DataFrame({"cost": cost, "score": score if largest else -score}).sort_values(
        ["cost", "score"], ascending=[True, False]
    )
    best = order["score"].cummax()
    beaten = order["score"].le(best.shift(fill_value=-np.inf))
    return (~beaten).reindex(cost.index)
