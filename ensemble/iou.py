"""Which boxes and masks overlap, and by how much: sparse pairs, exact counts.

Everything here is per pair of rows, and pairs are found by a sweep over strips, so cost and memory follow the
number of boxes and of overlapping pairs, never the size of the slide or N squared. Boxes are half-open
(y0, x0, y1, x1), integers or floats, in whatever frame the caller uses; packed masks as in `ensemble.packed`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from ensemble.packed import Packed, as_words, ones_of_first, packed, sixty_four_bits

Pairs = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]

STEPS = 1_000_000
"""Thresholds are whole millionths: 0.3 means exactly 3/10, not the nearest binary fraction."""

STRIPS_PER_BOX = 4
"""At most this many strips per box, so that boxes strewn far apart do not cost memory."""


def box_pairs(box: npt.ArrayLike) -> Pairs:
    """All pairs of rows whose boxes share a positive area.

    box (N, 4) int or float -> (P, 2) int64, i < j in each pair, pairs in lexicographic order; (0, 2) if there
    are none. Boxes that only touch do not overlap, and a box without area overlaps nothing. Memory is linear
    in N + P. ValueError if the boxes are not (N, 4) or not finite.
    """
    return _all_pairs(as_boxes(box), -1)


def box_pairs_between(a: npt.ArrayLike, b: npt.ArrayLike) -> Pairs:
    """All pairs (i, j) of a box a[i] and a box b[j] that share a positive area.

    a (N, 4), b (M, 4) -> (P, 2) int64 in lexicographic order, (0, 2) if there are none. ValueError as
    `box_pairs`.
    """
    first, second = as_boxes(a), as_boxes(b)
    pairs = _all_pairs(np.concatenate([first, second]), len(first))
    pairs[:, 1] -= len(first)
    return pairs


def box_area(box: npt.ArrayLike) -> Numbers:
    """Areas of boxes (N, 4): (N,) int64 for integer boxes (exact), float64 for floats; 0 where inverted."""
    boxes = as_boxes(box)
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)


def box_overlap(a: npt.ArrayLike, b: npt.ArrayLike, pairs: Pairs) -> Numbers:
    """Shared area of a[i] and b[j] for pairs (P, 2): (P,) int64 if both are integer (exact), else float64."""
    left, right = as_boxes(a), as_boxes(b)
    known = as_pairs(pairs, len(left), len(right))
    one, two = left[known[:, 0]], right[known[:, 1]]
    height = np.minimum(one[:, 2], two[:, 2]) - np.maximum(one[:, 0], two[:, 0])
    width = np.minimum(one[:, 3], two[:, 3]) - np.maximum(one[:, 1], two[:, 1])
    return np.maximum(height, 0) * np.maximum(width, 0)


def box_iou(a: npt.ArrayLike, b: npt.ArrayLike, pairs: Pairs) -> npt.NDArray[np.float64]:
    """Intersection over union of the boxes a[i] and b[j] for pairs (P, 2): (P,) float64 in 0..1.

    Pass the same array twice for pairs within one set. Two boxes without area have IoU 0.
    """
    known = as_pairs(pairs, len(as_boxes(a)), len(as_boxes(b)))
    return iou(box_overlap(a, b, known), box_area(a)[known[:, 0]], box_area(b)[known[:, 1]])


def mask_area(box: npt.ArrayLike, offset: npt.ArrayLike, bits: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Pixels of each of N packed masks: (N,) int64, exact. ValueError where the arrays do not fit."""
    masks = packed(box, offset, bits)
    return np.asarray(_mask_area(masks.box, masks.offset, as_words(masks.bits)))


def mask_overlap(box: npt.ArrayLike, offset: npt.ArrayLike, bits: npt.ArrayLike, pairs: Pairs) -> npt.NDArray[np.int64]:
    """Pixels that two packed masks share, for pairs (P, 2) of rows: (P,) int64, exact; 0 for boxes apart.

    ValueError where the arrays do not fit together or a pair names a row that is not there.
    """
    masks = packed(box, offset, bits)
    known = as_pairs(pairs, len(masks.box), len(masks.box))
    return np.asarray(_mask_overlap(masks.box, masks.offset, as_words(masks.bits), known))


def areas_and_overlaps(masks: Packed) -> tuple[npt.NDArray[np.int64], Pairs, npt.NDArray[np.int64]]:
    """Of checked masks `mask_area` (N,), `box_pairs` (P, 2) and what the masks of these share (P,), int64 all.

    The same numbers as from each by itself, for less: the masks are checked and turned into words once.
    """
    words, pairs = as_words(masks.bits), _all_pairs(masks.box, -1)
    area = _mask_area(masks.box, masks.offset, words)
    return area, pairs, _mask_overlap(masks.box, masks.offset, words, pairs)


def iou(inter: npt.ArrayLike, area_a: npt.ArrayLike, area_b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union from counts (P,) each: float64 (P,), 0 where both areas are 0."""
    shared = np.asarray(inter)
    return _ratio(shared, np.asarray(area_a) + np.asarray(area_b) - shared)


def over_smaller(inter: npt.ArrayLike, area_a: npt.ArrayLike, area_b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over the smaller, from counts (P,) each: float64 (P,), 0 where that one is empty."""
    return _ratio(np.asarray(inter), np.minimum(area_a, area_b))


def exceeds(part: npt.ArrayLike, whole: npt.ArrayLike, threshold: float) -> npt.NDArray[np.bool_]:
    """Whether part / whole > threshold, strictly (as torchvision does): (P,) bool, False where whole is 0.

    The threshold is rounded to a millionth and multiplied out, so counts (integers, below 2**43) are compared
    exactly and a ratio equal to the threshold never exceeds it; floats are compared in float64.
    ValueError unless 0 <= threshold <= 1.
    """
    return np.asarray(np.asarray(part) * STEPS > np.asarray(whole) * millionths(threshold, "the overlap threshold"))


def millionths(share: float, name: str) -> int:
    """A share of 0..1 in whole millionths, rounded. ValueError, which calls it by name, if it is not in 0..1."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{name} is {share}, expected 0 to 1")
    return round(share * STEPS)


def as_boxes(box: npt.ArrayLike) -> Numbers:
    """Boxes as a contiguous (N, 4) array of int64 or float64. ValueError if not (N, 4) or not finite."""
    boxes = np.asarray(box)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iuf":
        raise ValueError(f"boxes are {boxes.dtype} {boxes.shape}, expected numbers (N, 4) as (y0, x0, y1, x1)")
    if boxes.dtype.kind == "f" and not np.isfinite(boxes).all():
        raise ValueError("boxes hold NaN or infinity, expected finite numbers: drop such rows first")
    return np.ascontiguousarray(boxes, np.float64 if boxes.dtype.kind == "f" else np.int64)


def as_pairs(pairs: npt.ArrayLike, rows_a: int, rows_b: int) -> Pairs:
    """Pairs as a contiguous (P, 2) int64 array. ValueError if a pair names a row that is not there."""
    known = np.ascontiguousarray(pairs, np.int64).reshape(-1, 2)
    if known.size and (known.min() < 0 or (known.max(axis=0) >= (rows_a, rows_b)).any()):
        raise ValueError(f"pairs name rows outside 0..{rows_a - 1} and 0..{rows_b - 1}: pass pairs of these rows")
    return known


def _ratio(part: Numbers, whole: Numbers) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(np.shape(part), np.float64), where=whole > 0)


def _all_pairs(box: Numbers, split: int) -> Pairs:
    """Overlapping pairs i < j; with split >= 0 only those with i < split <= j."""
    solid = np.flatnonzero((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))
    if len(solid) < 2:
        return np.zeros((0, 2), np.int64)
    y0, y1 = box[solid, 0].astype(np.float64), box[solid, 2].astype(np.float64)
    low, high = y0.min(), y1.max()
    # Strips as high as the mean box: a box is in at most 2 + height / mean strips, so in total at most 3 N.
    strip_px = max(float((y1 - y0).mean()), float(high - low) / (STRIPS_PER_BOX * len(solid)))
    first, last = np.zeros(len(box), np.int64), np.zeros(len(box), np.int64)
    first[solid], last[solid] = (y0 - low) // strip_px, (y1 - low) // strip_px
    by_x = solid[np.argsort(box[solid, 1], kind="stable")]
    start, entry = _strips(first, last, by_x)
    cursor = np.zeros(len(box), np.int64)
    _sweep(box, (first, start, entry), split, cursor, np.zeros(0, np.int64))
    return _listed(box, (first, start, entry), split, cursor)


@njit(cache=True, nogil=True)
def _strips(first, last, by_x):  # type: ignore[no-untyped-def]
    """Rows of every strip, each strip's in the order of `by_x` (a counting sort): starts and rows."""
    start = np.zeros(last.max() + 2, np.int64)
    for row in by_x:
        for strip in range(first[row], last[row] + 1):
            start[strip + 1] += 1
    start = np.cumsum(start)
    cursor = start[:-1].copy()
    entry = np.empty(start[-1], np.int64)
    for row in by_x:
        for strip in range(first[row], last[row] + 1):
            entry[cursor[strip]] = row
            cursor[strip] += 1
    return start, entry


@njit(cache=True, nogil=True)
def _sweep(box, strips, split, cursor, partner):  # type: ignore[no-untyped-def]
    """Count every pair at its smaller row in `cursor`; write the larger one there if `partner` has room."""
    first, start, entry = strips
    for strip in range(start.size - 1):
        for k in range(start[strip], start[strip + 1]):
            a = entry[k]
            for m in range(k + 1, start[strip + 1]):
                b = entry[m]
                if box[b, 1] >= box[a, 3]:
                    break  # sorted by x0: nothing further right reaches back
                if max(first[a], first[b]) != strip:
                    continue  # met before: a pair counts in the first strip that both are in
                if box[a, 0] >= box[b, 2] or box[b, 0] >= box[a, 2]:
                    continue
                i, j = min(a, b), max(a, b)
                if split >= 0 and (i >= split or j < split):
                    continue
                if partner.size:
                    partner[cursor[i]] = j
                cursor[i] += 1


@njit(cache=True, nogil=True)
def _listed(box, strips, split, count):  # type: ignore[no-untyped-def]
    """The pairs in lexicographic order, from how many each row leads."""
    end = np.cumsum(count)
    partner = np.empty(end[-1], np.int64)
    _sweep(box, strips, split, end - count, partner)
    pairs = np.empty((partner.size, 2), np.int64)
    for i in range(count.size):
        mine = np.sort(partner[end[i] - count[i] : end[i]])
        for k in range(mine.size):
            pairs[end[i] - count[i] + k, 0] = i
            pairs[end[i] - count[i] + k, 1] = mine[k]
    return pairs


@njit(cache=True, nogil=True)
def _mask_area(box, offset, words):  # type: ignore[no-untyped-def]
    area = np.zeros(len(box), np.int64)
    for i in range(len(box)):
        pixels = (box[i, 2] - box[i, 0]) * (box[i, 3] - box[i, 1])
        for k in range(0, pixels, 64):  # never beyond the last pixel: the last byte may be padded
            area[i] += ones_of_first(sixty_four_bits(words, offset[i] * 8 + k), pixels - k)
    return area


@njit(cache=True, nogil=True)
def _mask_overlap(box, offset, words, pairs):  # type: ignore[no-untyped-def]
    shared = np.zeros(len(pairs), np.int64)
    for p in range(len(pairs)):
        i, j = pairs[p]
        x0, x1 = max(box[i, 1], box[j, 1]), min(box[i, 3], box[j, 3])
        for y in range(max(box[i, 0], box[j, 0]), min(box[i, 2], box[j, 2])):
            at_i = offset[i] * 8 + (y - box[i, 0]) * (box[i, 3] - box[i, 1]) - box[i, 1]
            at_j = offset[j] * 8 + (y - box[j, 0]) * (box[j, 3] - box[j, 1]) - box[j, 1]
            for x in range(x0, x1, 64):
                both = sixty_four_bits(words, at_i + x) & sixty_four_bits(words, at_j + x)
                shared[p] += ones_of_first(both, x1 - x)
    return shared
