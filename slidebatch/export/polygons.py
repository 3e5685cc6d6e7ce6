"""Rings of nuclei as polygons: which holes lie in which piece."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from slidebatch.outlines import Rings

Polygon = list[int]
"""Rings by number: the one around the pixels, then those of its holes."""


def polygons(rings: Rings, count: int) -> Iterator[list[Polygon]]:
    """The polygons of each of `count` nuclei, from rings that pass no corner twice (`outlines.simple`)."""
    area = _areas(rings)
    first = np.searchsorted(rings.owner, np.arange(count + 1)).tolist()
    for begin, end in pairwise(first):
        yield [[begin]] if end - begin == 1 else _nested(rings, range(begin, end), area)


def _nested(rings: Rings, mine: range, area: npt.NDArray[np.int64]) -> list[Polygon]:
    """The pieces of one nucleus with their holes: a hole belongs to the smallest piece around it."""
    found: dict[int, Polygon] = {ring: [ring] for ring in mine if area[ring] > 0}
    for hole in (ring for ring in mine if area[ring] < 0):
        corner = _ring(rings, hole)
        y, x = corner[np.lexsort((corner[:, 1], corner[:, 0]))[0]]  # the first one: the pixel after it lies in the hole
        around = [piece for piece in found if len(found) == 1 or _holds(_ring(rings, piece), y + 0.5, x + 0.5)]
        found[min(around, key=lambda piece: area[piece])].append(hole)
    return list(found.values())


def _ring(rings: Rings, number: int) -> npt.NDArray[np.int32]:
    return rings.point[rings.start[number] : rings.start[number + 1]]


def _holds(ring: npt.NDArray[np.int32], y: float, x: float) -> bool:
    """Does the middle of a pixel lie in a ring? If the number of upright edges to its left is odd."""
    (y0, x0), (y1, x1) = ring.T, np.roll(ring, -1, axis=0).T
    crossed = (x0 == x1) & (x0 < x) & (np.minimum(y0, y1) < y) & (y < np.maximum(y0, y1))
    return bool(crossed.sum() % 2)


def _areas(rings: Rings) -> npt.NDArray[np.int64]:
    """Twice the signed area of each ring: positive around pixels, negative around holes; int64 (R,)."""
    if not len(rings):
        return np.zeros(0, np.int64)
    y, x = rings.point.astype(np.int64).T
    after = np.arange(1, len(y) + 1)
    after[rings.start[1:] - 1] = rings.start[:-1]
    return np.add.reduceat(x * y[after] - x[after] * y, rings.start[:-1])
