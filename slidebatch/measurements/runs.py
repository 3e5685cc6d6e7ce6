"""Which pixels are measured for which nucleus: its own, and those of the ring around it, as runs along rows.

Runs (R, 4) int32 are in raster order: row y, columns x0 to x1 (half-open), and the nucleus's row in the table. Where
nothing is, hardly any work is done: most pixels of most slides belong to no nucleus.

A pixel of the background belongs to the ring of the nucleus nearest to it, if the distance from pixel centre to
pixel centre lies beyond the ring's inner and not beyond its outer limit; of equally near pixels the first by
(dy, dx) decides. So rings share no pixel, hold none of a nucleus, and stay away from every nucleus, not only from
their own. What a pixel belongs to depends on the labels within the outer limit alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK_PX = 64
"""Pixels of a row that are passed over at once where nothing is."""

MIDDLE = 128
"""What is added to offsets so that they are not negative in a key."""

NOWHERE = 30_000 << 16
"""The key where nothing is within reach: further than any, and small enough for 32 bits when more is added."""


@njit(nogil=True, cache=True)
def label_runs(labels, top, place, first):  # type: ignore[no-untyped-def]
    """The runs of the nuclei's own pixels.

    labels  (h, w) uint32; its first row is row `top` of what is returned
    place   (P,) int32, the row in the table of label `first` + i, or -1 where that is not measured
    """
    height, width = labels.shape
    runs, n = np.empty((1024, 4), np.int32), 0
    for y in range(height):
        x = 0
        while x < width:
            mine = labels[y, x]
            if mine == 0:
                x = _past_blank(labels[y], x)
                continue
            begun = x
            while x < width and labels[y, x] == mine:
                x += 1
            k = np.int64(mine) - first
            if 0 <= k < len(place) and place[k] >= 0:
                runs, n = _appended(runs, n, (y + top, begun, x, place[k]))
    return runs[:n]


@njit(nogil=True, cache=True)
def _past_blank(line, x):  # type: ignore[no-untyped-def]
    """The first pixel from x on that may be labelled: whole blank blocks are passed over."""
    while x + BLOCK_PX <= len(line):
        seen = np.uint32(0)
        for u in range(x, x + BLOCK_PX):
            seen |= line[u]
        if seen != 0:
            break
        x += BLOCK_PX
    while x < len(line) and line[x] == 0:
        x += 1
    return x


@njit(nogil=True, cache=True)
def _appended(runs, n, run):  # type: ignore[no-untyped-def]
    """Runs with one more at place n, in a larger array where the old one is full; how many there are."""
    if n == len(runs):
        larger = np.empty((2 * n, 4), np.int32)
        larger[:n] = runs
        runs = larger
    runs[n, 0], runs[n, 1], runs[n, 2], runs[n, 3] = run
    return runs, n + 1


@njit(nogil=True, cache=True)
def ring_runs(labels, halo, limits, place, first):  # type: ignore[no-untyped-def]
    """The runs of the nuclei's rings in the rows within the halo, of which the first is row 0.

    labels  (halo + h + halo, w) uint32; halo is at least the ring's reach
    limits  (inner, outer) in pixels
    place, first   as for `label_runs`
    """
    width, reach = labels.shape[1], np.int64(np.floor(limits[1]))
    inner2, outer2 = limits[0] * limits[0], limits[1] * limits[1]
    down, up = _rows_to_labels(labels, reach)
    key = np.empty(width, np.uint32)
    runs, n = np.empty((1024, 4), np.int32), 0
    for y in range(halo, labels.shape[0] - halo):
        x = 0
        while x < width:
            begun, x = _next_span(up[y], down[y], x, reach)
            _nearest(key, up[y], down[y], begun, x, reach)
            owner = -1
            for u in range(begun, x):
                mine, far2 = -1, key[u] >> 16
                if inner2 < far2 <= outer2:
                    k = _label_at(labels, y, u, key[u]) - first
                    mine = place[k] if 0 <= k < len(place) else -1
                if mine >= 0 and mine == owner:
                    runs[n - 1, 2] = u + 1
                elif mine >= 0:
                    runs, n = _appended(runs, n, (y - halo, u, u + 1, mine))
                owner = mine
    return runs[:n]


@njit(nogil=True, cache=True)
def _label_at(labels, y, x, key):  # type: ignore[no-untyped-def]
    """The label that a pixel's key leads to: int64."""
    dy, dx = np.int64((key >> 8) & 255) - MIDDLE, np.int64(key & 255) - MIDDLE
    return np.int64(labels[y + dy, x + dx])


@njit(nogil=True, cache=True)
def _rows_to_labels(labels, reach):  # type: ignore[no-untyped-def]
    """Rows from each pixel down, and up, to the first labelled one, reach + 1 where none is so near: (H, w) uint8 each.

    In bytes throughout, so that many pixels are done at once.
    """
    mask = (labels != 0).astype(np.uint8)
    most = np.uint8(reach + 1)
    down, up = np.empty(mask.shape, np.uint8), np.empty(mask.shape, np.uint8)
    below, above = np.full(mask.shape[1], most, np.uint8), np.full(mask.shape[1], most, np.uint8)
    for y in range(len(mask)):
        z = len(mask) - 1 - y
        for x in range(mask.shape[1]):
            far = np.uint8(above[x] + (above[x] < most))
            above[x] = np.uint8(0) if mask[y, x] else far
            up[y, x] = above[x]
        for x in range(mask.shape[1]):
            far = np.uint8(below[x] + (below[x] < most))
            below[x] = np.uint8(0) if mask[z, x] else far
            down[z, x] = below[x]
    return down, up


@njit(nogil=True, cache=True)
def _next_span(up, down, x, reach):  # type: ignore[no-untyped-def]
    """The next columns (begin, end), from x on, with a labelled pixel within reach rows and columns: whole blocks of
    them, and `reach` on either side."""
    width = len(up)
    begin, end = -1, width
    for first in range(max(0, x - reach), width, BLOCK_PX):
        last, least = min(first + BLOCK_PX, width), np.uint8(255)
        for u in range(first, last):
            least = min(least, min(up[u], down[u]))
        if least <= reach:
            if begin < 0:
                begin = max(x, first - reach)
        elif begin >= 0:
            end = min(first + reach, width)
            break
    return (begin, end) if begin >= 0 else (width, width)


@njit(nogil=True, cache=True)
def _nearest(key, up, down, begin, end, reach):  # type: ignore[no-untyped-def]
    """For the columns begin..end of a row the nearest labelled pixel within reach: `key` (w,) uint32, in place.

    A key is dy^2 + dx^2, dy + 128 and dx + 128, one after another in 16 and twice 8 bits: the least key is that of the
    nearest pixel, of equally near ones the first. Column by column of offsets, so that many pixels are done at once.
    """
    low, high = max(0, begin - reach), min(len(up), end + reach)
    column = np.empty(high - low, np.uint32)
    for u in range(low, high):
        near = np.int64(min(up[u], down[u]))
        dy = -near if up[u] == near else near
        column[u - low] = (near * near << 16) + (dy + MIDDLE << 8) if near <= reach else NOWHERE
    key[begin:end] = NOWHERE
    for dx in range(-reach, reach + 1):
        more = np.uint32((dx * dx << 16) + dx + MIDDLE)
        first = max(begin, low - dx)
        last = max(first, min(end, high - dx))
        mine, other = key[first:last], column[first + dx - low : last + dx - low]
        for x in range(len(mine)):
            mine[x] = min(mine[x], np.uint32(other[x] + more))
