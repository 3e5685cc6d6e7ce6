"""Outlines of nuclei: from label images to polygons along the edges of pixels, which hold exactly their pixels.

Rings go along the edges between pixels, clockwise where y points down; those around holes go the other way. Pixels
that touch at a corner alone are not joined: a nucleus has a ring for each of its 4-connected pieces, and a ring may
touch itself at a corner but never crosses itself. Points where a ring goes straight on are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit


@dataclass(frozen=True)
class Rings:
    """The rings of N nuclei.

    owner  (R,) int64: the row of each ring's nucleus, ascending
    start  (R + 1,) int64: where each ring's points begin
    point  (P, 2) int32: (y, x) of corners of pixels; pixel (y, x) lies between (y, x) and (y + 1, x + 1)
    """

    owner: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    point: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.owner)


def trace(labels: npt.NDArray[np.unsignedinteger], label: npt.NDArray[np.int64], box: npt.NDArray[np.int64]) -> Rings:
    """The rings of some nuclei of a label image.

    labels  (Y, X) unsigned
    label   (N,) the nuclei's labels
    box     (N, 4) half-open boxes (y0, x0, y1, x1) inside the image that hold them; may be larger than need be
    A label that its box does not hold has no ring.
    """
    owner, start, point = _trace(labels, label.astype(np.int64), box.astype(np.int64))
    return Rings(owner, start, point)


@njit(nogil=True, cache=True)
def _trace(labels, label, box):  # type: ignore[no-untyped-def]
    owner, start, rings = np.empty(max(len(label), 16), np.int64), np.empty(max(len(label), 16) + 1, np.int64), 0
    point, points = np.empty((1024, 2), np.int32), 0
    for i in range(len(label)):
        y0, x0, y1, x1 = box[i]
        crop = labels[y0:y1, x0:x1]
        seen = np.zeros(crop.shape, np.bool_)  # pixels whose upper edge has been passed
        for y in range(crop.shape[0]):
            for x in range(crop.shape[1]):
                if crop[y, x] != label[i] or seen[y, x] or (y > 0 and crop[y - 1, x] == label[i]):
                    continue
                if rings == len(owner):
                    owner, start = _doubled(owner), _doubled(start)
                owner[rings], start[rings] = i, points
                rings += 1
                point, points = _follow(crop, label[i], seen, (y, x), (y0, x0), point, points)
    start[rings] = points
    return owner[:rings].copy(), start[: rings + 1].copy(), point[:points].copy()


@njit(nogil=True, cache=True)
def _doubled(array):  # type: ignore[no-untyped-def]
    larger = np.empty(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger


@njit(nogil=True, cache=True)
def _follow(crop, mine, seen, begin, corner, point, points):  # type: ignore[no-untyped-def]
    """Go around once from the upper edge of pixel `begin`, marking upper edges passed; the points with those added."""
    y, x = begin
    dy, dx = 0, 1
    while True:
        if dx == 1:
            seen[y, x] = True
        y, x = y + dy, x + dx
        # The pixels ahead of this corner: on the right hand, where the nucleus is, and on the left.
        right = _is_mine(crop, mine, y + _before(dy + dx), x + _before(dx - dy))
        left = _is_mine(crop, mine, y + _before(dy - dx), x + _before(dx + dy))
        if right and not left:
            continue
        if points == len(point):
            larger = np.empty((2 * points, 2), np.int32)
            larger[:points] = point
            point = larger
        point[points, 0], point[points, 1] = y + corner[0], x + corner[1]
        points += 1
        dy, dx = (-dx, dy) if right else (dx, -dy)
        if (y, x) == begin and (dy, dx) == (0, 1):  # always at a corner: the first edge of its row in raster order
            return point, points


@njit(nogil=True, cache=True)
def _before(step):  # type: ignore[no-untyped-def]
    """From a corner to the pixel on the side that a step of one to either side points to: 0 after it, -1 before it."""
    return 0 if step > 0 else -1


@njit(nogil=True, cache=True)
def _is_mine(crop, mine, y, x):  # type: ignore[no-untyped-def]
    return 0 <= y < crop.shape[0] and 0 <= x < crop.shape[1] and crop[y, x] == mine
