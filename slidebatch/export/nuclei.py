"""A slide's nuclei, window by window, each with its row of the table; and the arrays of its labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from slidebatch.results import Results, Window, datasets, open_group, outlined, windows

BATCH_ROWS = 16_384
"""Rows of the table that are decoded at once."""

BUFFER_BYTES = 1 << 16
"""Of each column that are read at once."""

PLACES = ("label", "y0", "x0", "y1", "x1")


@dataclass(frozen=True)
class Part:
    """Some nuclei of a slide: their window (N nuclei), and by column their values (N,)."""

    window: Window
    columns: dict[str, npt.NDArray[Any]]


def levels(results: Results, slide: str) -> list[Any]:
    """The label image of a slide that is done: its zarr arrays (Y, X), finest first."""
    group: Any = open_group(results.path / "labels.zarr" / results.entry(slide)["labels"])
    return [group[level["path"]] for level in datasets(group)]


def parts(results: Results, slide: str, columns: Sequence[str]) -> Iterator[Part]:
    """All nuclei of a slide, a part for each region that has any; memory holds one band of regions of the table.

    Regions of a band of rows follow one another, as nuclei do in the table, which is read once from front to back.
    """
    scale = results.entry(slide).get("scale") or 1.0
    labels = levels(results, slide)[0]
    names = list(dict.fromkeys(["label", *columns]))
    for table in _bands(batches(results, slide, [*PLACES, *columns]), scale):
        values = {name: table.column(name).to_numpy() for name in names}
        for window in windows(labels, table.select(PLACES).to_pandas(), scale):
            yield Part(window, {name: column[window.row] for name, column in values.items()})


def batches(results: Results, slide: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a slide's table, some rows at a time. No nuclei: one table without rows.

    Not by the dataset behind `results`, which reads far ahead.
    """
    (path,) = results.dataset(slide).files
    file = pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    own = [name for name in dict.fromkeys(columns) if name in file.schema_arrow.names]
    yield file.schema_arrow.empty_table().select(own)
    for batch in file.iter_batches(BATCH_ROWS, columns=own, use_threads=False):
        yield pa.Table.from_batches([batch])


def _bands(tables: Iterator[pa.Table], scale: float) -> Iterator[pa.Table]:
    """The same rows, those together whose boxes begin in one band of regions and that follow one another."""
    held: list[pa.Table] = []
    last = -1
    for table in tables:
        band = np.floor(table.column("y0").to_numpy() * scale).astype(np.int64) // outlined.REGION_PX
        edges = [0, *(np.flatnonzero(np.diff(band)) + 1).tolist(), len(band)]
        for first, end in pairwise(edges):
            if first < end and band[first] != last and held:
                yield pa.concat_tables(held)
                held = []
            if first < end:
                held.append(table.slice(first, end - first))
                last = int(band[first])
    if held:
        yield pa.concat_tables(held)
