"""Outlines of a slide's nuclei, region by region."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

REGION_PX = 2048
"""Side of the regions whose labels are read at once."""


@dataclass(frozen=True)
class Outline:
    """A nucleus's `label` and its rings: (K, 2) float64 points (y, x) in level-0 pixels, not closed.

    The rings of its pieces go clockwise where y points down, those of holes the other way.
    """

    label: int
    rings: tuple[npt.NDArray[np.float64], ...]


def outlines(labels: xr.DataArray, table: pd.DataFrame, scale: float) -> Iterator[Outline]:
    """The outlines of the nuclei of a table (label, y0, x0, y1, x1) in a label image (Y, X).

    scale  label pixels per level-0 pixel. Regions in raster order, by label in each: a nucleus counts where its box
    begins.
    """
    from slidebatch.outlines import trace

    for label, box in regions(table, labels.shape, scale):
        low, high = box[:, :2].min(axis=0), box[:, 2:].max(axis=0)
        window = np.asarray(labels[low[0] : high[0], low[1] : high[1]])
        rings = trace(window, label, box - np.tile(low, 2))
        point = (rings.point + low) / scale - 0.5
        pieces = np.split(point, rings.start[1:-1]) if len(rings) else []
        first = np.searchsorted(rings.owner, np.arange(len(label) + 1))
        for row, name in enumerate(label):
            yield Outline(int(name), tuple(pieces[first[row] : first[row + 1]]))


def regions(
    table: pd.DataFrame, shape: tuple[int, ...], scale: float
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Labels (N,) and boxes (N, 4), in label pixels, of the nuclei of each region that has any."""
    label = table["label"].to_numpy(np.int64)
    level0 = table[["y0", "x0", "y1", "x1"]].to_numpy(np.float64)
    most = np.array([shape[0], shape[1]] * 2)
    box = np.concatenate([np.floor(level0[:, :2] * scale), np.ceil(level0[:, 2:] * scale)], axis=1)
    box = np.clip(box.astype(np.int64), 0, most)
    place = box[:, :2] // REGION_PX
    order = np.lexsort((label, place[:, 1], place[:, 0]))
    starts = np.flatnonzero((np.diff(place[order], axis=0, prepend=-1) != 0).any(axis=1))
    for rows in np.split(order, starts[1:]) if len(order) else []:
        yield label[rows], box[rows]
