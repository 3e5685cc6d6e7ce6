"""One mask from the masks of a group: a weighted vote on every pixel.

A pixel stays if the weight of the masks that have it exceeds a share of the group's whole weight; where it equals
that share, the leader's mask decides. Weights are integers, so the order of summing never matters: equal weights
give the majority, scores the score-weighted vote. What stays may fall apart, so its largest 4-connected piece is
the nucleus. A group sees nothing but its own rows, so it may be fused wherever these are all at hand.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from ensemble.groups import LARGEST_SUM, as_integers, as_leaders, as_weights
from ensemble.iou import STEPS, millionths
from ensemble.packed import bit, packed


class Fused(NamedTuple):
    """K fused nuclei, by the row of their leader; the last three are packed masks.

    row     (K,) int64      the leader of each group, ascending
    area    (K,) int64      pixels; 0 where no pixel won the vote: drop these
    box     (K, 4) int64    tight boxes, without area at the leader's corner where no pixel won
    offset  (K + 1,) int64  where each mask starts in `bits`
    bits    (B,) uint8      the masks, cropped to `box`
    """

    row: npt.NDArray[np.int64]
    area: npt.NDArray[np.int64]
    box: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint8]


def fuse_masks(
    leader: npt.ArrayLike,
    weight: npt.ArrayLike,
    masks: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    share: float = 0.5,
    absent: npt.ArrayLike | None = None,
) -> Fused:
    """The masks of each group as one, pixel by pixel, by weight.

    leader (N,) int64 as `ensemble.nms.leaders` gives it; weight (N,) integers >= 0: 1 for a majority, scores for
    a score-weighted vote, 0 for rows that are not to speak (`ensemble.groups.voices` names one row a member);
    masks (box, offset, bits) as in `ensemble.packed`; share 0..1 in whole millionths: 0 gives the union, 1 the
    intersection. absent (N,) integers >= 0, read at leaders alone: weight that speaks against every pixel of the
    group, such as the number of members that have no row in it; by default none, so that the rows of a group
    vote among themselves. A pixel stays if its weight > share * (weight of the group + absent), or equals that
    and the leader's mask has it; all is compared in integers. Of the 4-connected pieces the largest stays, of
    equally large ones the one whose first pixel comes first in raster order; holes stay holes.
    N = 0 gives K = 0. Memory: the hull boxes of the groups, a bit a pixel. ValueError where the arrays do not
    fit one another, or weights are negative or too large.
    Source: weighted voting with one weight a mask, as in Artaechevarria, Munoz-Barrutia and Ortiz-de-Solorzano
    2009, IEEE Trans. Med. Imaging 28:1266.
    """
    known, head = packed(*masks), as_leaders(leader)
    n, level = len(known.box), millionths(share, "the share of the weight")
    given = as_weights(as_integers(weight, n, "weights"))
    against = np.zeros(n, np.int64) if absent is None else as_weights(as_integers(absent, n, "absent weights"))
    if len(head) != n or (n and int(given.sum()) + int(against.max()) >= LARGEST_SUM):
        raise ValueError(f"{len(head)} leaders for {n} masks, expected one a mask, and weights that sum below 2**43")
    rows = np.argsort(head, kind="stable")
    lead = np.flatnonzero(head == np.arange(n))
    start = np.searchsorted(head[rows], np.append(lead, n)).astype(np.int64)
    hull = _hulls(known.box, lead, start, rows)
    return _trimmed(lead, _fused(known, (lead, start, rows, hull), given, against, level))


def _trimmed(lead: npt.NDArray[np.int64], found: tuple[npt.NDArray[np.int64], ...]) -> Fused:
    area, box, offset, bits = found
    return Fused(lead, area, box, offset, bits[: offset[-1]].astype(np.uint8))


@njit(cache=True, nogil=True)
def _hulls(box, lead, start, rows):  # type: ignore[no-untyped-def]
    """The box around all boxes of each group, and an edge of one pixel that no mask has."""
    hull = np.empty((lead.size, 4), np.int64)
    for g in range(lead.size):
        hull[g] = box[lead[g]]
        for k in range(start[g], start[g + 1]):
            for side in range(2):
                hull[g, side] = min(hull[g, side], box[rows[k], side])
                hull[g, side + 2] = max(hull[g, side + 2], box[rows[k], side + 2])
    hull[:, :2] -= 1
    hull[:, 2:] += 1
    return hull


@njit(cache=True, nogil=True)
def _fused(masks, groups, weight, absent, level):  # type: ignore[no-untyped-def]
    """Area, tight box and offset of each group's mask, and the bits, with room to spare at their end."""
    lead, start, rows, hull = groups
    most, room = np.int64(0), np.int64(0)
    for g in range(lead.size):
        pixels = (hull[g, 2] - hull[g, 0]) * (hull[g, 3] - hull[g, 1])
        most, room = max(most, pixels), room + (pixels + 7) // 8
    heap, piece, stack = np.zeros(most, np.int64), np.zeros(most, np.int32), np.zeros(most, np.int64)
    area, tight = np.zeros(lead.size, np.int64), np.zeros((lead.size, 4), np.int64)
    offset, out = np.zeros(lead.size + 1, np.int64), np.zeros(room, np.uint8)
    for g in range(lead.size):
        height, width = hull[g, 2] - hull[g, 0], hull[g, 3] - hull[g, 1]
        total = absent[lead[g]]
        heap[: height * width] = 0
        for k in range(start[g], start[g + 1]):
            total += weight[rows[k]]
            _heap_up(masks, rows[k], weight[rows[k]], hull[g], heap)
        _elect(masks, lead[g], hull[g], heap, (total, level), piece)
        name, area[g] = _largest(piece, height * width, width, stack)
        tight[g] = _tight(piece, name, hull[g], masks[0][lead[g]])
        offset[g + 1] = offset[g] + _pack(piece, name, hull[g], tight[g], out[offset[g] :])
    return area, tight, offset, out


@njit(cache=True, nogil=True)
def _heap_up(masks, i, weight, hull, heap):  # type: ignore[no-untyped-def]
    """Add the weight of row i to every pixel of the hull that its mask has."""
    box, offset, bits = masks
    at = offset[i] * 8
    for y in range(box[i, 0] - hull[0], box[i, 2] - hull[0]):
        place = y * (hull[3] - hull[1]) + box[i, 1] - hull[1]
        for x in range(box[i, 3] - box[i, 1]):
            heap[place + x] += weight * bit(bits, at)
            at += 1


@njit(cache=True, nogil=True)
def _elect(masks, lead, hull, heap, vote, piece):  # type: ignore[no-untyped-def]
    """Write -1 into `piece` for every pixel that wins, 0 for all others."""
    box, offset, bits = masks
    total, level = vote
    width = hull[3] - hull[1]
    for k in range((hull[2] - hull[0]) * width):
        piece[k] = -1 if heap[k] * STEPS > total * level else 0
    at = offset[lead] * 8
    for y in range(box[lead, 0], box[lead, 2]):
        place = (y - hull[0]) * width + box[lead, 1] - hull[1]
        for x in range(box[lead, 3] - box[lead, 1]):
            if heap[place + x] * STEPS == total * level and bit(bits, at):
                piece[place + x] = -1
            at += 1


@njit(cache=True, nogil=True)
def _largest(piece, pixels, width, stack):  # type: ignore[no-untyped-def]
    """Number the 4-connected pieces of the -1 in raster order, in place: the largest one's name and size."""
    best, most, name = 0, 0, 0
    for first in range(pixels):
        if piece[first] != -1:
            continue
        name += 1
        size = _flood(piece, width, stack, first, name)
        if size > most:
            best, most = name, size
    return best, most


@njit(cache=True, nogil=True)
def _flood(piece, width, stack, first, name):  # type: ignore[no-untyped-def]
    """Give a name to the piece around the pixel `first`: its size. A pixel is put on the stack once."""
    stack[0], depth, size = first, 1, 0
    piece[first] = name
    while depth > 0:
        depth -= 1
        here = stack[depth]
        size += 1
        for near in (here - width, here - 1, here + 1, here + width):  # the hull's edge holds no -1
            if piece[near] == -1:
                piece[near] = name
                stack[depth] = near
                depth += 1
    return size


@njit(cache=True, nogil=True)
def _tight(piece, name, hull, corner):  # type: ignore[no-untyped-def]
    """The tight box of a piece; without one (name 0), no area at a corner."""
    tight = np.array([hull[2], hull[3], hull[0], hull[1]])
    if name == 0:
        tight[0], tight[1], tight[2], tight[3] = corner[0], corner[1], corner[0], corner[1]
        return tight
    k = 0
    for y in range(hull[0], hull[2]):
        for x in range(hull[1], hull[3]):
            if piece[k] == name:
                tight[0], tight[1] = min(tight[0], y), min(tight[1], x)
                tight[2], tight[3] = max(tight[2], y + 1), max(tight[3], x + 1)
            k += 1
    return tight


@njit(cache=True, nogil=True)
def _pack(piece, name, hull, tight, out):  # type: ignore[no-untyped-def]
    """Set the bits of a piece, cropped to its tight box, from the first byte of `out` on: how many bytes."""
    k = 0
    for y in range(tight[0], tight[2]):
        place = (y - hull[0]) * (hull[3] - hull[1]) - hull[1]
        for x in range(tight[1], tight[3]):
            if piece[place + x] == name:
                out[k >> 3] |= 128 >> (k & 7)
            k += 1
    return (k + 7) // 8
