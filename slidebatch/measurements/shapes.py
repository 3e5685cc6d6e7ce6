"""Outlines of nuclei as numbers: length of the border, and area of the convex hull.

Both are those of scikit-image: the border by Benkrid and Crookes (Design and FPGA Implementation of a Perimeter
Estimator, 2000), neighbourhood 4; the hull of the midpoints of all pixel edges, counted in pixel centres.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def add_border(steps, labels, halo, owner):  # type: ignore[no-untyped-def]
    """Count, in place, the border pixels of each nucleus by what they weigh.

    steps   (N, 3) int64: pixels of length 1, of sqrt(2), and of their mean
    labels  (halo + h + halo, w) uint32, halo at least 2; owner (h, w) int32
    """
    height, width = owner.shape
    border = _borders(labels, halo, height)
    for y in range(height):
        for x in range(width):
            i = owner[y, x]
            if i < 0 or not border[y + 1, x]:
                continue
            mine = labels[y + halo, x]
            straight = slant = 0
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    u = x + dx
                    if (dy == 0 and dx == 0) or u < 0 or u >= width:
                        continue
                    if border[y + 1 + dy, u] and labels[y + halo + dy, u] == mine:
                        if dy == 0 or dx == 0:
                            straight += 1
                        else:
                            slant += 1
            kind = _kind(straight, slant)
            if kind >= 0:
                steps[i, kind] += 1


@njit(nogil=True, cache=True)
def _borders(labels, halo, height):  # type: ignore[no-untyped-def]
    """Which labelled pixels have another label, or none, on one of their four sides: (1 + h + 1, w) bool."""
    width = labels.shape[1]
    out = np.zeros((height + 2, width), np.bool_)
    for y in range(height + 2):
        v = y + halo - 1
        for x in range(width):
            mine = labels[v, x]
            if mine != 0:
                sides = labels[v - 1, x] != mine or labels[v + 1, x] != mine
                ends = x == 0 or x == width - 1 or labels[v, x - 1] != mine or labels[v, x + 1] != mine
                out[y, x] = sides or ends
    return out


@njit(nogil=True, cache=True)
def _kind(straight, slant):  # type: ignore[no-untyped-def]
    """Which length a border pixel has by its neighbours on the border: 0: 1, 1: sqrt(2), 2: their mean, -1: none."""
    code = 2 * straight + 10 * slant
    if code in (4, 6, 14, 16, 24, 26):
        return 0
    if code in (20, 32):
        return 1
    if code in (12, 22):
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
