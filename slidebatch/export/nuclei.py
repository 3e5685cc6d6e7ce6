"""A slide's nuclei, window by window, each with its row of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from slidebatch.results import Results, Window, outlined, windows

BATCH_ROWS = 16_384
"""Rows of the table that are decoded at once."""

PLACES = ("label", "y0", "x0", "y1", "x1")


@dataclass(frozen=True)
class Part:
    """Some nuclei of a slide: their window (N nuclei), and by column their values (N,)."""

    window: Window
    columns: dict[str, npt.NDArray[Any]]


def parts(results: Results, slide: str, columns: Sequence[str]) -> Iterator[Part]:
    """All nuclei of a slide, a part for each region that has any; memory holds five columns and one band of the rest.

    Regions of a band of rows follow one another, as nuclei do in the table, which is read once from front to back.
    """
    places = results.instances(slide, PLACES)
    scale = results.entry(slide).get("scale") or 1.0
    labels = results.labels(slide)
    rows = _Rows(results, slide, ["label", *columns])
    band = np.floor(places["y0"].to_numpy() * scale).astype(np.int64) // outlined.REGION_PX
    edges = [*np.flatnonzero(np.diff(band, prepend=-1)).tolist(), len(band)]
    for first, last in pairwise(edges):
        values = rows.take(last - first)
        for window in windows(labels, places.iloc[first:last], scale):
            yield Part(window, {name: column[window.row] for name, column in values.items()})


class _Rows:
    """Rows of some columns of a slide's table, from front to back."""

    def __init__(self, results: Results, slide: str, columns: Sequence[str]) -> None:
        dataset = results.dataset(slide)
        self.schema = pa.schema([dataset.schema.field(name) for name in columns])
        self.batches = dataset.to_batches(columns=list(columns), batch_size=BATCH_ROWS, batch_readahead=1)
        self.left = self.schema.empty_table()

    def take(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """The next `count` rows, by column."""
        held, rows = [self.left], self.left.num_rows
        while rows < count:
            batch = pa.Table.from_batches([next(self.batches)])
            held.append(batch)
            rows += batch.num_rows
        table = pa.concat_tables(held)
        self.left = table.slice(count)
        return {name: table.column(name).slice(0, count).to_numpy() for name in table.column_names}
