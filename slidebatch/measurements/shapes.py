"""Outlines of nuclei as numbers: length of the border, and area of the convex hull.

Both are those of scikit-image: the border by Benkrid and Crookes (Design and FPGA Implementation of a Perimeter
Estimator, 2000), neighbourhood 4; the hull of the midpoints of all pixel edges, counted in pixel centres.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def add_border(steps, labels, halo, runs):  # type: ignore[no-untyped-def]
    """Count, in place, the border pixels of each nucleus by what they weigh.

    steps   (N, 3) int64: pixels of length 1, of sqrt(2), and of their mean
    labels  (halo + h + halo, w) uint32, halo at least 2
    runs    of the rows -1 to h, of which the first and the last are there for their neighbours
    """
    border = _borders(labels, halo, runs)
    for r in range(len(runs)):
        y, begun, end, i = runs[r]
        if 0 <= y < len(border) - 2:
            for x in range(begun, end):
                if border[y + 1, x]:
                    kind = _kind(border, labels[halo - 1 : len(labels) - halo + 1], y + 1, x)
                    if kind >= 0:
                        steps[i, kind] += 1


@njit(nogil=True, cache=True)
def _borders(labels, halo, runs):  # type: ignore[no-untyped-def]
    """Which pixels of the runs have another label, or none, on one of their four sides: (1 + h + 1, w) bool."""
    out = np.zeros((labels.shape[0] - 2 * halo + 2, labels.shape[1]), np.bool_)
    for r in range(len(runs)):
        y, begun, end, _ = runs[r]
        v, mine = y + halo, labels[y + halo, begun]
        out[y + 1, begun] = out[y + 1, end - 1] = True
        for x in range(begun + 1, end - 1):
            out[y + 1, x] = labels[v - 1, x] != mine or labels[v + 1, x] != mine
    return out


@njit(nogil=True, cache=True)
def _kind(border, labels, y, x):  # type: ignore[no-untyped-def]
    """Which length a border pixel has by its neighbours on the border: 0: 1, 1: sqrt(2), 2: their mean, -1: none."""
    code = 0
    for dy in (-1, 0, 1):
        for u in range(max(x - 1, 0), min(x + 2, labels.shape[1])):
            if border[y + dy, u] and labels[y + dy, u] == labels[y, x]:
                code += 2 if dy == 0 or u == x else 10
    if code in (6, 8, 16, 18, 26, 28):  # the pixel itself counts 2
        return 0
    if code in (22, 34):
        return 1
    if code in (14, 24):
        return 2
    return -1


@njit(nogil=True, cache=True)
def hull_areas(spans, start):  # type: ignore[no-untyped-def]
    """Pixels of each nucleus's convex hull: (N,) int64.

    spans  (S, 2) int32: leftmost and rightmost column of each row; left > right where a row is empty
    start  (N + 1,) int64: where the rows of each nucleus begin
    """
    out = np.zeros(len(start) - 1, np.int64)
    for i in range(len(start) - 1):
        out[i] = _hull_area(spans[start[i] : start[i + 1]])
    return out


@njit(nogil=True, cache=True)
def _hull_area(spans):  # type: ignore[no-untyped-def]
    """Pixel centres on or inside the hull of all edge midpoints. In half pixels, so that everything is whole."""
    rows = len(spans)
    left, right = np.empty((2 * rows + 1, 2), np.int64), np.empty((2 * rows + 1, 2), np.int64)
    lefts = rights = 0
    for t in range(-1, 2 * rows):  # half rows: even ones hold centres, odd ones lie between
        low, high = _ends(spans, t)
        if low <= high:
            lefts = _push(left, lefts, t, low)
            rights = _push(right, rights, t, -high)
    area = np.int64(0)
    a = b = 0
    for y in range(rows):
        while a + 2 < lefts and left[a + 1, 0] <= 2 * y:
            a += 1
        while b + 2 < rights and right[b + 1, 0] <= 2 * y:
            b += 1
        area += -_first(right, b, 2 * y) - _first(left, a, 2 * y) + 1
    return area


@njit(nogil=True, cache=True)
def _ends(spans, t):  # type: ignore[no-untyped-def]
    """Leftmost and rightmost midpoint, in half pixels, on half row t; low > high where there is none."""
    if t % 2 == 0:
        first, last = spans[t // 2]
        return (2 * np.int64(first) - 1, 2 * np.int64(last) + 1) if first <= last else (np.int64(1), np.int64(0))
    low, high = np.int64(2**62), np.int64(-(2**62))
    for y in ((t - 1) // 2, (t + 1) // 2):
        if 0 <= y < len(spans) and spans[y, 0] <= spans[y, 1]:
            low, high = min(low, 2 * np.int64(spans[y, 0])), max(high, 2 * np.int64(spans[y, 1]))
    return low, high


@njit(nogil=True, cache=True)
def _push(chain, n, t, value):  # type: ignore[no-untyped-def]
    """Put a point onto a chain that bends one way only, in place; how many points it has then."""
    while n >= 2:
        t0, v0, t1, v1 = chain[n - 2, 0], chain[n - 2, 1], chain[n - 1, 0], chain[n - 1, 1]
        if (v1 - v0) * (t - t0) < (value - v0) * (t1 - t0):
            break
        n -= 1
    chain[n, 0], chain[n, 1] = t, value
    return n + 1


@njit(nogil=True, cache=True)
def _first(chain, k, t):  # type: ignore[no-untyped-def]
    """The first whole pixel at or right of the chain's piece k on half row t."""
    t0, v0, t1, v1 = chain[k, 0], chain[k, 1], chain[k + 1, 0], chain[k + 1, 1]
    over, under = v0 * (t1 - t0) + (v1 - v0) * (t - t0), 2 * (t1 - t0)
    return -((-over) // under)
