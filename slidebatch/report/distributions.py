"""How measurements are distributed over all nuclei of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from slidebatch.pages import Gallery, Section, Table, Text, number
from slidebatch.pages.charts import Axis, histogram
from slidebatch.report.told import Told, words

if TYPE_CHECKING:
    import pandas as pd

MOST_NUCLEI = 2_000_000
"""Of more, every k-th is read, so that memory stays bounded."""

MOST_CHANNELS = 4
HEADS = ("measurement", "nuclei", "1 %", "25 %", "median", "75 %", "99 %")


def distributions(told: Told) -> Section | None:
    """Histograms and percentiles; None without nuclei."""
    names = _names(told)
    total = sum(int(e.get("nuclei") or 0) for e in told.done)
    if not total or not names:
        return None
    every = -(-total // MOST_NUCLEI)
    nuclei = read(told, names, every)
    rows, drawings = [], []
    for name in names:
        values = nuclei[name].to_numpy(np.float64)
        known = values[np.isfinite(values)]
        if not len(known):
            continue
        cuts = np.percentile(known, [1, 25, 50, 75, 99])
        rows.append([words(name), f"{len(known):,}", *(number(float(cut)) for cut in cuts)])
        drawings.append(histogram(values, Axis(words(name).partition(" (")[0], words(name), "nuclei per bin")))
    sampled = "" if every == 1 else f" Every {every}th nucleus was looked at."
    text = f"All nuclei of the run; the line is the median, the outermost bins hold what lies beyond.{sampled}"
    return Section("Distributions", [Text(text), Table(HEADS, rows), Gallery(drawings)])


def _names(told: Told) -> list[str]:
    shape = ["eccentricity", "solidity"]
    near = ["nearest_um" if told.area == "area_um2" else "nearest_px", "score"]
    many = [told.measured(prefix)[:MOST_CHANNELS] for prefix in ("mean_", "nucleus_to_ring_", "od_")]
    wanted = [told.area, *shape, *near, *(name for names in many for name in names)]
    return [name for name in wanted if name in told.columns]


def read(told: Told, names: list[str], every: int) -> pd.DataFrame:
    """Some columns of every `every`-th nucleus, in the run's order."""
    import pandas as pd

    parts, passed = [], 0
    for batch in told.results.dataset().to_batches(columns=names):
        parts.append(batch.slice((-passed) % every).to_pandas().iloc[::every])
        passed += len(batch)
    return pd.concat(parts) if parts else pd.DataFrame(columns=names)
