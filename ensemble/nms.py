"""Greedy non-maximum suppression in one fixed total order, sparse, and the components it falls into.

The order is settled by what a nucleus is (score, box, area, mask, member), never by where it stands in the
input; so permuting the input, cutting it into tiles or meeting it in another order changes nothing. Greedy
suppression never acts across conflict components, so a component may be settled anywhere that sees all of it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ensemble.iou import (
    Pairs,
    areas_and_overlaps,
    as_boxes,
    as_pairs,
    box_area,
    box_overlap,
    box_pairs,
    exceeds,
)
from ensemble.packed import Packed, packed

Measure = Literal["iou", "over_smaller"]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def total_order(
    score: npt.ArrayLike,
    box: npt.ArrayLike,
    area: npt.ArrayLike,
    offset: npt.ArrayLike,
    bits: npt.ArrayLike,
    member: npt.ArrayLike,
) -> Indices:
    """Rows from best to worst: score down, then box (y0, x0, y1, x1), area, mask bytes and member, all up.

    score (N,), box (N, 4), area (N,), member (N,): integers or floats; packed masks as in `ensemble.packed`.
    -> (N,) int64, a permutation; (0,) if N is 0. Rows equal in everything are interchangeable and stay in
    input order. ValueError where lengths differ or a score is NaN.
    """
    masks = packed(box, offset, bits)
    return _order_of(score, masks, area, member)


def greedy_nms(order: Indices, pairs: Pairs, conflict: npt.ArrayLike) -> Flags:
    """Walk from best to worst: keep a row unless a kept one before it conflicts with it.

    order (N,) int64 permutation, best first; pairs (P, 2) of rows; conflict (P,) bool, which pairs conflict.
    -> keep (N,) bool. Rows in no pair are kept. ValueError if `order` is no permutation, the lengths of pairs
    and conflict differ, or a pair names a row twice.
    """
    leader = leaders(order, pairs, conflict)
    return np.asarray(leader == np.arange(len(leader)))


def leaders(order: Indices, pairs: Pairs, conflict: npt.ArrayLike) -> Indices:
    """Who suppressed each row in greedy suppression: the first kept row, in the order, that conflicts with it.

    Arguments and errors as `greedy_nms`. -> (N,) int64; a kept row is its own leader. The rows of one leader are
    a group, and all of them conflict with it. A group never reaches beyond a conflict component.
    """
    rank = rank_of(order)
    known = as_pairs(pairs, len(rank), len(rank))
    chosen = np.asarray(conflict, bool)
    if chosen.shape != (len(known),) or (known[:, 0] == known[:, 1]).any():
        raise ValueError(f"{len(known)} pairs and {chosen.shape} flags: expected a flag a pair, of two different rows")
    start, worse = toward(rank, known[chosen], worse=True)
    return np.asarray(_greedy(np.asarray(order, np.int64), start, worse))


def box_nms(box: npt.ArrayLike, score: npt.ArrayLike, iou_threshold: float) -> Flags:
    """Greedy suppression of boxes whose IoU exceeds the threshold (strictly; see `ensemble.iou.exceeds`).

    box (N, 4) int (compared exactly) or float (in float64); score (N,), higher is better, ties go to the
    lexicographically smaller box. -> keep (N,) bool, (0,) if N is 0. ValueError for NaN or a threshold that
    is not in 0..1.
    """
    boxes = as_boxes(box)
    n, area, pairs = len(boxes), box_area(boxes), box_pairs(boxes)
    shared = box_overlap(boxes, boxes, pairs)
    conflict = exceeds(shared, area[pairs[:, 0]] + area[pairs[:, 1]] - shared, iou_threshold)
    nothing = (np.zeros(n + 1, np.int64), np.zeros(0, np.uint8), np.zeros(n, np.int64))
    return greedy_nms(_ordered(_column(score, n), (boxes, area, *nothing)), pairs, conflict)


def mask_conflicts(
    box: npt.ArrayLike,
    offset: npt.ArrayLike,
    bits: npt.ArrayLike,
    threshold: float,
    measure: Measure = "iou",
) -> Pairs:
    """Pairs of packed masks whose overlap exceeds the threshold, strictly and exactly (integer counts).

    measure "iou": intersection over union; "over_smaller": intersection over the smaller mask.
    -> (P, 2) int64, i < j, lexicographic; (0, 2) if none. Masks that share no pixel never conflict.
    ValueError for arrays that do not fit one another or a threshold not in 0..1.
    """
    return _conflicts(areas_and_overlaps(packed(box, offset, bits)), threshold, measure)


def mask_nms(
    score: npt.ArrayLike,
    box: npt.ArrayLike,
    offset: npt.ArrayLike,
    bits: npt.ArrayLike,
    member: npt.ArrayLike,
    iou_threshold: float,
) -> Flags:
    """Greedy suppression of packed masks whose IoU exceeds the threshold, in `total_order`: keep (N,) bool.

    Arrays as in `total_order`. ValueError as in `total_order` and `mask_conflicts`.
    """
    masks = packed(box, offset, bits)
    found = areas_and_overlaps(masks)
    pairs = _conflicts(found, iou_threshold, "iou")
    return greedy_nms(_order_of(score, masks, found[0], member), pairs, np.ones(len(pairs), bool))


def components(n: int, pairs: Pairs) -> Indices:
    """Which connected component each of n rows is in: (n,) int64 labels from 0, by each one's first row."""
    known = as_pairs(pairs, n, n)
    if n == 0:  # scipy refuses a graph without nodes
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(known), np.int8), (known[:, 0], known[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def settled(component: npt.ArrayLike, box: npt.ArrayLike, core: npt.ArrayLike) -> Flags:
    """Rows of components all of whose boxes lie inside `core`: (N,) bool.

    component (N,) labels from 0; box (N, 4); core (4,) as (y0, x0, y1, x1), already shrunk by what views may
    differ. Whoever saw every box that meets the core has seen these components whole, so suppressing them
    there equals suppressing them among all rows.
    """
    boxes, edge, label = as_boxes(box), np.asarray(core), np.asarray(component, np.int64)
    outside = (boxes[:, :2] < edge[:2]).any(axis=1) | (boxes[:, 2:] > edge[2:]).any(axis=1)
    spoilt = np.zeros(int(label.max(initial=-1)) + 1, bool)
    spoilt[label[outside]] = True
    return ~spoilt[label]


def toward(rank: Indices, pairs: Pairs, worse: bool) -> tuple[Indices, Indices]:
    """Of each row its partners that come after it (`worse`), or before it, in the order.

    rank (N,) int64, place of each row, 0 best; pairs (P, 2).
    -> start (N + 1,), partner (P,): those of row i are partner[start[i]:start[i + 1]], in the order of pairs.
    """
    swap = (rank[pairs[:, 0]] < rank[pairs[:, 1]]) != worse
    source, target = np.where(swap, pairs.T[::-1], pairs.T)
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=len(rank)))]).astype(np.int64)
    return start, target[np.argsort(source, kind="stable")].astype(np.int64)


def rank_of(order: npt.ArrayLike) -> Indices:
    """Place of each row in the order. ValueError if the order is no permutation."""
    rows = np.asarray(order, np.int64)
    rank = np.full(len(rows), -1, np.int64)
    if rows.ndim != 1 or (len(rows) and (rows.min() < 0 or rows.max() >= len(rows))):
        raise ValueError(f"the order {rows.shape} names rows that are not there, expected a permutation of 0..N-1")
    rank[rows] = np.arange(len(rows))
    if len(rows) and rank.min() < 0:
        raise ValueError("the order names a row twice, expected a permutation of 0..N-1")
    return rank


def _column(values: npt.ArrayLike, n: int) -> npt.NDArray[Any]:
    """A column as (N,) int64 or float64. ValueError if it is of another length or holds NaN."""
    column = np.asarray(values)
    if column.shape != (n,):
        raise ValueError(f"a column is {column.shape} for {n} boxes, expected one value a box")
    if column.dtype.kind == "f" and np.isnan(column).any():
        raise ValueError("a column holds NaN, which has no place in an order: drop such rows first")
    return column.astype(np.float64 if column.dtype.kind == "f" else np.int64)


def _conflicts(found: tuple[Indices, Pairs, Indices], threshold: float, measure: Measure) -> Pairs:
    """Pairs above the threshold, of areas, pairs and what these share."""
    area, pairs, shared = found
    first, second = area[pairs[:, 0]], area[pairs[:, 1]]
    whole = first + second - shared if measure == "iou" else np.minimum(first, second)
    return pairs[exceeds(shared, whole, threshold)]


def _order_of(score: npt.ArrayLike, masks: Packed, area: npt.ArrayLike, member: npt.ArrayLike) -> Indices:
    n = len(masks.box)
    return _ordered(_column(score, n), (masks.box, _column(area, n), masks.offset, masks.bits, _column(member, n)))


def _ordered(score: npt.NDArray[Any], rows: tuple[npt.NDArray[Any], ...]) -> Indices:
    """The total order. rows: box, area, offset, bits, member.

    Sorting by the first three keys is left to numpy; what then still ties is sorted by the full comparison.
    """
    order, same = _by_score_and_corner(score, rows[0])
    _sort_runs(order, same, rows)
    return order


def _by_score_and_corner(score: npt.NDArray[Any], box: npt.NDArray[Any]) -> tuple[Indices, Flags]:
    """Rows by score down and then the box's first corner, and which of neighbours in this order tie (N - 1,)."""
    if len(box) and score.dtype == box.dtype == np.int64:
        span = [int(column.max()) - int(column.min()) + 1 for column in (score, box[:, 0], box[:, 1])]
        if span[0] * span[1] * span[2] < 2**63:  # one number a row sorts three times as fast as three
            corner = box[:, :2] - box[:, :2].min(axis=0)
            key = ((score.max() - score) * span[1] + corner[:, 0]) * span[2] + corner[:, 1]
            order = np.argsort(key, kind="stable").astype(np.int64)
            ascending = key[order]
            return order, ascending[1:] == ascending[:-1]
    order = np.lexsort((box[:, 1], box[:, 0], -score)).astype(np.int64)
    before, after = order[:-1], order[1:]
    return order, (score[after] == score[before]) & (box[after, :2] == box[before, :2]).all(axis=1)


@njit(cache=True, nogil=True)
def _greedy(order, start, worse):  # type: ignore[no-untyped-def]
    leader = np.full(order.size, -1, np.int64)
    for i in order:
        if leader[i] < 0:
            leader[i] = i
            for k in range(start[i], start[i + 1]):
                if leader[worse[k]] < 0:
                    leader[worse[k]] = i
    return leader


@njit(cache=True, nogil=True)
def _before(a, b, rows):  # type: ignore[no-untyped-def]
    """Whether row a comes strictly before row b of the same score and corner."""
    box, area, offset, bits, member = rows
    for side in range(2, 4):
        if box[a, side] != box[b, side]:
            return box[a, side] < box[b, side]
    if area[a] != area[b]:
        return area[a] < area[b]
    for k in range(offset[a + 1] - offset[a]):  # equal boxes have equally many bytes
        if bits[offset[a] + k] != bits[offset[b] + k]:
            return bits[offset[a] + k] < bits[offset[b] + k]
    return member[a] < member[b]


@njit(cache=True, nogil=True)
def _sort_runs(order, same, rows):  # type: ignore[no-untyped-def]
    """Sort every run of `order` whose neighbours are the `same` so far, in place."""
    low = 0
    while low < order.size:
        high = low + 1
        while high < order.size and same[high - 1]:
            high += 1
        if high - low > 1:
            order[low:high] = _merge_sorted(order[low:high], rows)
        low = high


@njit(cache=True, nogil=True)
def _merge_sorted(run, rows):  # type: ignore[no-untyped-def]
    """The rows of a run by `_before`, stable (bottom-up merge sort)."""
    source, target = run.copy(), run.copy()
    width = 1
    while width < run.size:
        for low in range(0, run.size, 2 * width):
            middle, high = min(low + width, run.size), min(low + 2 * width, run.size)
            i, j = low, middle
            for k in range(low, high):
                if i < middle and (j >= high or not _before(source[j], source[i], rows)):
                    target[k] = source[i]
                    i += 1
                else:
                    target[k] = source[j]
                    j += 1
        source, target = target, source
        width *= 2
    return source
