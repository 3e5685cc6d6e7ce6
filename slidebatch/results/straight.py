"""The seam report of a slide: what tiles cut, and whether nuclei border on each other along seams more than elsewhere.

A nucleus that is cut in two shows as a pair of nuclei with a straight common border along the seam. Such borders exist
by chance too, so they are counted along equal lines halfway between seams; the ratio of both is the figure: about 1
where seams leave no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xarray as xr

LEAST_PX = 5
"""A common border along a line is straight if it is at least this long."""

COUNTS = ("seam_candidates", "seam_pieces", "seam_joined")


@dataclass(frozen=True)
class Seams:
    """Seams of one slide.

    candidates, pieces, joined   nuclei that several tiles may have seen, pieces that were put together, and nuclei
                                 made of them; None while the run goes on
    along, between               pairs of nuclei with a straight common border along seams, and along lines between
    along_px, between_px         how long those lines are together
    """

    candidates: int | None
    pieces: int | None
    joined: int | None
    along: int
    between: int
    along_px: int
    between_px: int

    @property
    def ratio(self) -> float | None:
        """Straight borders per length along seams over those between them; None where there are none to compare."""
        if not self.between or not self.along_px:
            return None
        return (self.along / self.along_px) / (self.between / self.between_px)


def seams(labels: xr.DataArray, grid: Mapping[str, Any], counts: Mapping[str, Any]) -> Seams:
    """The seam report of a label image (Y, X).

    grid    core_px of the tiles and cell_px (y, x) of the patches: seams are lines at their multiples
    counts  what the seam stage counted, see COUNTS
    """
    found = np.zeros((2, 2), np.int64)
    for axis in (0, 1):
        at = lines(labels.shape[axis], (grid["core_px"], grid["cell_px"][axis]))
        for row, places in enumerate((at, middles(at, labels.shape[axis]))):
            for place in places:
                found[row] += borders(labels, axis, place)
    (along, along_px), (between, between_px) = found.tolist()
    candidates, pieces, joined = (None if name not in counts else int(counts[name]) for name in COUNTS)
    return Seams(candidates, pieces, joined, along, between, along_px, between_px)


def lines(size: int, steps: Sequence[int]) -> list[int]:
    """Where grids of these steps part a side of `size` pixels, ascending.

    >>> lines(10, (4, 6))
    [4, 6, 8]
    """
    return sorted({place for step in steps for place in range(step, size, step)})


def middles(places: Sequence[int], size: int) -> list[int]:
    """Halfway between neighbouring places, and between them and the ends, where there is room.

    >>> middles([40, 60], 100)
    [20, 50, 80]
    """
    ends = pairwise([0, *places, size])
    return [(low + high) // 2 for low, high in ends if high - low >= 4 * LEAST_PX]


def borders(labels: xr.DataArray, axis: int, line: int) -> tuple[int, int]:
    """Straight common borders along one line, and its length in pixels."""
    window = labels[line - 1 : line + 1] if axis == 0 else labels[:, line - 1 : line + 1].T
    first, second = np.asarray(window)
    return straight(first, second), len(first)


def straight(first: npt.NDArray[np.unsignedinteger], second: npt.NDArray[np.unsignedinteger]) -> int:
    """How often two lines of labels (n,) face each other with one pair of different nuclei for LEAST_PX pixels."""
    touch = (first > 0) & (second > 0) & (first != second)
    changed = np.diff(first, prepend=first[:1]) != 0
    changed |= np.diff(second, prepend=second[:1]) != 0
    run = np.cumsum(changed | (np.diff(touch, prepend=False) != 0))
    return int((np.bincount(run[touch]) >= LEAST_PX).sum()) if touch.any() else 0
