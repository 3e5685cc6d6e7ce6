"""Sums over runs of pixels (see `runs`), added band by band in raster order, so that no cut changes a bit."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def add_moments(moments, spans, start, runs, corner, place):  # type: ignore[no-untyped-def]
    """Add each nucleus's pixels to its moments and spans, in place.

    moments  (N, 6) int64: pixels, sums of y, x, yy, xx, yx, from the corner of its box
    spans    (S, 2) int32: leftmost and rightmost column of each row of each box, from the box's corner
    start    (N,) int64: where the rows of each box begin in `spans`
    corner   (N, 2) int64: (y, x) of each box
    place    (y, x) of row 0 and column 0 of the runs
    """
    for r in range(len(runs)):
        i, n = runs[r, 3], np.int64(runs[r, 2] - runs[r, 1])
        v, u = runs[r, 0] + place[0] - corner[i, 0], runs[r, 1] + place[1] - corner[i, 1]
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
def add_values(count, total, runs, image):  # type: ignore[no-untyped-def]
    """Add each pixel's values to those of its owner, in place.

    count  (N,) int64: pixels
    total  (N, C, 5) float64: sum, first value, sum of squares about it, least, most
    image  (C, h, w)
    """
    for r in range(len(runs)):
        y, begun, end, i = runs[r]
        for c in range(image.shape[0]):
            if count[i] == 0:
                value = np.float64(image[c, y, begun])
                total[i, c, 1] = total[i, c, 3] = total[i, c, 4] = value
            pivot, low, high = total[i, c, 1], total[i, c, 3], total[i, c, 4]
            for x in range(begun, end):
                value = np.float64(image[c, y, x])
                total[i, c, 0] += value
                total[i, c, 2] += (value - pivot) * (value - pivot)
                low, high = min(low, value), max(high, value)
            total[i, c, 3], total[i, c, 4] = low, high
        count[i] += end - begun


@njit(nogil=True, cache=True)
def add_densities(density, runs, image, table):  # type: ignore[no-untyped-def]
    """Add the optical density of each pixel to those of its owner, in place.

    density  (N, 3) float64; image (3, h, w) of whole numbers
    table    (values,) float64: the density of every value
    """
    for r in range(len(runs)):
        y, begun, end, i = runs[r]
        for c in range(3):
            for x in range(begun, end):
                density[i, c] += table[image[c, y, x]]


@njit(nogil=True, cache=True)
def collect(runs, image):  # type: ignore[no-untyped-def]
    """Values (C, n) of the pixels of all runs, one run after another."""
    values = np.empty((image.shape[0], (runs[:, 2] - runs[:, 1]).sum()), image.dtype)
    for c in range(image.shape[0]):
        k = 0
        for r in range(len(runs)):
            for x in range(runs[r, 1], runs[r, 2]):
                values[c, k] = image[c, runs[r, 0], x]
                k += 1
    return values


@njit(nogil=True, cache=True)
def deal(out, filled, runs, values):  # type: ignore[no-untyped-def]
    """Put the values (n,) of runs to those of their rows in `out`, in place; `filled` (N,) int64: where to go on."""
    k = 0
    for r in range(len(runs)):
        i, n = runs[r, 3], runs[r, 2] - runs[r, 1]
        out[filled[i] : filled[i] + n] = values[k : k + n]
        filled[i] += n
        k += n


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
