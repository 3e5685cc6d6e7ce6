"""Sums over the pixels of nuclei and rings, added band by band in raster order, so that no cut changes a bit."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def add_moments(moments, spans, start, owner, corner, top, left):  # type: ignore[no-untyped-def]
    """Add each nucleus's pixels to its moments and spans, in place.

    moments  (N, 6) int64: pixels, sums of y, x, yy, xx, yx, from the corner of its box
    spans    (S, 2) int32: leftmost and rightmost column of each row of each box, from the box's corner
    start    (N,) int64: where the rows of each box begin in `spans`
    owner    (h, w) int32: the row of each pixel's nucleus, or -1; its corner lies at (top, left)
    corner   (N, 2) int64: (y, x) of each box
    """
    height, width = owner.shape
    for y in range(height):
        x = 0
        while x < width:
            i = owner[y, x]
            begun = x
            while x < width and owner[y, x] == i:
                x += 1
            if i < 0:
                continue
            n = np.int64(x - begun)
            v, u = y + top - corner[i, 0], begun + left - corner[i, 1]
            sum_x = n * u + n * (n - 1) // 2
            moments[i, 0] += n
            moments[i, 1] += n * v
            moments[i, 2] += sum_x
            moments[i, 3] += n * v * v
            moments[i, 4] += n * u * u + u * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
            moments[i, 5] += v * sum_x
            row = start[i] + v
            spans[row, 0] = min(spans[row, 0], u)
            spans[row, 1] = max(spans[row, 1], u + n - 1)


@njit(nogil=True, cache=True)
def add_values(count, total, owner, image):  # type: ignore[no-untyped-def]
    """Add each pixel's values to those of its owner, in place.

    count  (N,) int64: pixels
    total  (N, C, 5) float64: sum, first value, sum of squares about it, least, most
    owner  (h, w) int32; image (C, h, w)
    """
    height, width = owner.shape
    for y in range(height):
        x = 0
        while x < width:
            i = owner[y, x]
            begun = x
            while x < width and owner[y, x] == i:
                x += 1
            if i < 0:
                continue
            for c in range(image.shape[0]):
                if count[i] == 0:
                    value = np.float64(image[c, y, begun])
                    total[i, c, 1] = total[i, c, 3] = total[i, c, 4] = value
                pivot, low, high = total[i, c, 1], total[i, c, 3], total[i, c, 4]
                for u in range(begun, x):
                    value = np.float64(image[c, y, u])
                    total[i, c, 0] += value
                    total[i, c, 2] += (value - pivot) * (value - pivot)
                    low, high = min(low, value), max(high, value)
                total[i, c, 3], total[i, c, 4] = low, high
            count[i] += x - begun


@njit(nogil=True, cache=True)
def add_densities(density, owner, image, table):  # type: ignore[no-untyped-def]
    """Add the optical density of each pixel to those of its owner, in place.

    density  (N, 3) float64; owner (h, w) int32; image (3, h, w) of whole numbers
    table    (values,) float64: the density of every value
    """
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            i = owner[y, x]
            if i >= 0:
                for c in range(3):
                    density[i, c] += table[image[c, y, x]]


@njit(nogil=True, cache=True)
def collect(owner, image):  # type: ignore[no-untyped-def]
    """Owners (n,) int32 and values (C, n) of all owned pixels, in raster order."""
    height, width = owner.shape
    n = 0
    for y in range(height):
        for x in range(width):
            n += owner[y, x] >= 0
    rows = np.empty(n, np.int32)
    values = np.empty((image.shape[0], n), image.dtype)
    k = 0
    for y in range(height):
        for x in range(width):
            if owner[y, x] >= 0:
                rows[k] = owner[y, x]
                for c in range(image.shape[0]):
                    values[c, k] = image[c, y, x]
                k += 1
    return rows, values


@njit(nogil=True, cache=True)
def deal(out, filled, rows, values):  # type: ignore[no-untyped-def]
    """Put each value (n,) to those of its row in `out`, in place; `filled` (N,) int64 says where the next one goes."""
    for k in range(len(rows)):
        out[filled[rows[k]]] = values[k]
        filled[rows[k]] += 1


@njit(nogil=True, cache=True)
def percentiles_of(values, start, shares, counted):  # type: ignore[no-untyped-def]
    """Percentiles of the values of each row, between neighbouring values in proportion: (N, P) float64.

    values   (n,), sorted here row by row, in place; row i's are start[i]:start[i + 1]
    shares   (P,) in 0..1
    counted  (B,) int64, all zero: where rows of whole numbers that span less than B are counted instead of sorted;
             empty for values that are not whole
    NaN for a row without values or with a NaN among them.
    """
    out = np.full((len(start) - 1, len(shares)), np.nan)
    for i in range(len(start) - 1):
        mine = values[start[i] : start[i + 1]]
        if len(mine) == 0 or np.isnan(mine).any():
            continue
        low = np.int64(mine.min()) if len(counted) else np.int64(0)
        if len(counted) and np.int64(mine.max()) - low < len(counted):
            _sort_counting(mine, low, counted)
        else:
            mine.sort()
        for p in range(len(shares)):
            at = shares[p] * (len(mine) - 1)
            k = np.int64(at)
            below, above = np.float64(mine[k]), np.float64(mine[min(k + 1, len(mine) - 1)])
            out[i, p] = below + (above - below) * (at - k)
    return out


@njit(nogil=True, cache=True)
def _sort_counting(values, low, counted):  # type: ignore[no-untyped-def]
    """Sort whole numbers from `low` on, in place, by how often each occurs; `counted` is all zero again afterwards."""
    for value in values:
        counted[np.int64(value) - low] += 1
    k, step = 0, 0
    while k < len(values):
        times = counted[step]
        for _ in range(times):
            values[k] = low + step
            k += 1
        counted[step] = 0
        step += 1
