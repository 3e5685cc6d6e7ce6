"""Which nucleus each pixel is measured for: its own, or as part of a ring around it.

A pixel of the background belongs to the ring of the nucleus nearest to it, if the distance from pixel centre to
pixel centre lies beyond the ring's inner and not beyond its outer limit; of equally near pixels the first by
(dy, dx) decides. So rings share no pixel, hold none of a nucleus, and stay away from every nucleus, not only from
their own. What a pixel belongs to depends on the labels within the outer limit alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def owners(labels, place, first):  # type: ignore[no-untyped-def]
    """The row of each pixel's own nucleus, -1 where there is none that is measured: (h, w) int32.

    labels  (h, w) uint32
    place   (P,) int32, the row of label `first` + i, or -1
    """
    height, width = labels.shape
    out = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            k = np.int64(labels[y, x]) - first
            out[y, x] = place[k] if 0 <= k < len(place) else -1
    return out


@njit(nogil=True, cache=True)
def ring_owners(labels, halo, limits, place, first):  # type: ignore[no-untyped-def]
    """The row of the nucleus in whose ring each pixel lies, -1 where there is none that is measured: (h, w) int32.

    labels  (halo + h + halo, w) uint32; halo is at least the ring's reach
    limits  (inner, outer) in pixels
    place, first   as for `owners`
    """
    height, width = labels.shape[0] - 2 * halo, labels.shape[1]
    reach = np.int64(np.floor(limits[1]))
    inner2, outer2 = limits[0] * limits[0], limits[1] * limits[1]
    out = np.full((height, width), -1, np.int32)
    down = _rows_down(labels, halo, reach)
    up = np.full(width, reach + 1, np.uint8)
    near = np.empty(width, np.int64)
    for y in range(halo + height):
        for x in range(width):
            up[x] = 0 if labels[y, x] != 0 else min(up[x] + 1, reach + 1)
        if y < halo:
            continue
        for x in range(width):
            near[x] = min(up[x], down[y - halo, x])
        for x in _candidates(near, reach):
            dy, dx, far2 = _nearest(x, near, up, reach, inner2)
            if inner2 < far2 <= outer2:
                k = np.int64(labels[y + dy, x + dx]) - first
                if 0 <= k < len(place):
                    out[y - halo, x] = place[k]
    return out


@njit(nogil=True, cache=True)
def _candidates(near, reach):  # type: ignore[no-untyped-def]
    """Background pixels of a row with a labelled pixel at most `reach` columns and rows away: (K,) int64."""
    width = len(near)
    found = np.empty(width, np.int64)
    n, clear = 0, 0  # pixels before `clear` have been looked at
    for u in range(width):
        if near[u] <= reach:
            for x in range(max(clear, u - reach), min(u + reach + 1, width)):
                if near[x] > 0:
                    found[n] = x
                    n += 1
            clear = max(clear, min(u + reach + 1, width))
    return found[:n]


@njit(nogil=True, cache=True)
def _rows_down(labels, halo, reach):  # type: ignore[no-untyped-def]
    """Rows from each pixel down to the first labelled one, reach + 1 where there is none so near: (h, w) uint8."""
    rows, width = labels.shape
    height = rows - 2 * halo
    out = np.empty((height, width), np.uint8)
    down = np.full(width, reach + 1, np.uint8)
    for y in range(rows - 1, halo - 1, -1):
        for x in range(width):
            down[x] = 0 if labels[y, x] != 0 else min(down[x] + 1, reach + 1)
        if y < halo + height:
            out[y - halo] = down
    return out


@njit(nogil=True, cache=True)
def _nearest(x, near, up, reach, enough2):  # type: ignore[no-untyped-def]
    """Offset (dy, dx) and squared distance of the labelled pixel nearest to x of a row; any within `enough2` will do.

    near  (w,) rows to the nearest labelled pixel of each column, above or below; up (w,) the same, above only
    """
    best_y, best_x, best = 0, 0, 2 * (reach + 1) * (reach + 1)
    for far in range(reach + 1):
        if far * far > best or best <= enough2:
            break
        for dx in (-far, far):
            u = x + dx
            if u < 0 or u >= len(near) or near[u] > reach:
                continue
            dy = -near[u] if np.int64(up[u]) == near[u] else near[u]
            d2 = dy * dy + dx * dx
            if d2 < best or (d2 == best and (dy < best_y or (dy == best_y and dx < best_x))):
                best_y, best_x, best = dy, dx, d2
    return best_y, best_x, best
