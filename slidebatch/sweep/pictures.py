"""The pictures of a sweep's report: what each parameter does, and cost against score.

Figures of matplotlib in the style of `slidebatch.pages`, to be made and drawn inside `styled`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slidebatch.pages.charts import BLUE, ORANGE, plain_ticks
from slidebatch.sweep.collect import COST, SCORE, Collected
from slidebatch.sweep.effects import Effect, front

MOST_PANELS = 12
COLUMNS = 3
LOG_FROM = 30
"""An axis is logarithmic where the largest value is this many times the smallest."""


def effects_picture(found: Collected, effects: Sequence[Effect]) -> Figure:
    """A panel for each parameter, the strongest first: mean of the measure at each value, bars from quartile to
    quartile."""
    shown = list(effects[:MOST_PANELS])
    columns = min(COLUMNS, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, effect in zip(panels, shown, strict=False):
        _effect(panel, effect)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    figure.supylabel(_name(found))
    return figure


def _effect(panel: Axes, effect: Effect) -> None:
    values = effect.values
    at = range(len(values))
    bars = [values["mean"] - values["low"], values["high"] - values["mean"]]
    panel.errorbar(at, values["mean"], yerr=[b.clip(lower=0) for b in bars], fmt="o", capsize=3, color=BLUE)
    panel.set_xticks(list(at), [_short(v) for v in values["value"]], rotation=30, ha="right", fontsize="small")
    panel.set_title(f"{_short(effect.parameter)}: {effect.share:.0%} of the variance", fontsize="small")
    panel.set_xlabel(_short(effect.parameter))
    panel.grid(axis="y", alpha=0.3)


def cost_picture(found: Collected, by: str = "wall_s") -> Figure:
    """Each point's cost and score; those that no other beats in both are joined."""
    table = found.done
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    cost, score = table[COST + by].astype(float), table[str(found.measure)].astype(float)
    best = front(cost, score, found.sweep.spec.score.largest)
    panel.scatter(cost, score, s=14, alpha=0.6, color=BLUE, label="points")
    line = pd.DataFrame({"cost": cost[best], "score": score[best]}).sort_values("cost")
    panel.plot(line["cost"], line["score"], "o-", color=ORANGE, markersize=5, label="not beaten in both")
    if 0 < cost.min() * LOG_FROM < cost.max():
        panel.set_xscale("log")
        plain_ticks(panel)
    panel.set(xlabel="seconds of a point" if by == "wall_s" else by, ylabel=_name(found), title="Cost against score")
    panel.legend(fontsize="small")
    panel.grid(alpha=0.3)
    return figure


def _name(found: Collected) -> str:
    return str(found.measure).removeprefix(SCORE)


def _short(text: str) -> str:
    return text if len(text) <= 18 else f"{text[:15]}..."


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    packed = io.BytesIO()
    figure.savefig(packed, format="png", dpi=110)
    return packed.getvalue()
