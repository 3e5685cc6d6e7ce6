"""Who keeps a pixel that several nuclei claim, and which nuclei are slivers.

A label image holds one id a pixel, so masks that overlap must be settled before ids are given: each pixel
goes to the best nucleus, in the total order of `ensemble.nms`, of all that cover it. What a nucleus keeps
therefore does not depend on what the others lost, and painting from worst to best gives the same picture.

A nucleus that keeps too small a share of itself is a sliver. It is dropped when its turn comes, from best to
worst, and takes nothing: its pixels go to the best of those after it that cover them. Whether it is one depends
on better nuclei that share pixels with it alone, so slivers fall into components of overlap as suppression does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from ensemble.iou import STEPS, box_pairs, mask_area, mask_overlap, millionths
from ensemble.nms import rank_of, toward
from ensemble.packed import ONES, add_eight, eight_bits, keep_first, packed

LEADING = np.array([8 - byte.bit_length() for byte in range(256)], np.int64)
"""Zero bits before the first set one of a byte."""

TRAILING = np.array([8] + [(byte & -byte).bit_length() - 1 for byte in range(1, 256)], np.int64)
"""Zero bits after the last set one of a byte."""


class Kept(NamedTuple):
    """What each of N nuclei keeps; the last three are the packed masks of it.

    area         (N,) int64      pixels left, 0 where it lost all or was a sliver
    first_pixel  (N, 2) int64    (y, x) of its first pixel in raster order, (-1, -1) where it keeps none
    box          (N, 4) int64    the tight box of what is left, without area at its old corner where it keeps none
    offset       (N + 1,) int64  where each mask starts in `bits`
    bits         (B,) uint8      the masks of what is left, cropped to `box`
    """

    area: npt.NDArray[np.int64]
    first_pixel: npt.NDArray[np.int64]
    box: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint8]


def resolve_overlaps(
    order: npt.ArrayLike, box: npt.ArrayLike, offset: npt.ArrayLike, bits: npt.ArrayLike, least_share: float = 0.0
) -> Kept:
    """Give each pixel to the best-ordered nucleus that covers it, and report what every nucleus keeps.

    order (N,) int64 permutation, best first; packed masks of N nuclei as in `ensemble.packed`, in any frame,
    which is also the frame of the answer. A nucleus that would keep less than `least_share` (0..1, in whole
    millionths, compared exactly; one that keeps just this share stays) of its own pixels is dropped. N = 0 gives
    empty arrays. Only masks that share pixels cost more than a few passes over their bytes. ValueError where the
    arrays do not fit one another or the share is not in 0..1.
    """
    masks, least = packed(box, offset, bits), millionths(least_share, "the least share that a nucleus keeps")
    rank = rank_of(order)
    if len(rank) != len(masks.box):
        raise ValueError(f"an order of {len(rank)} rows for {len(masks.box)} masks: pass the order of these")
    pairs = box_pairs(masks.box)
    pairs = pairs[mask_overlap(*masks, pairs) > 0]
    start, better = toward(rank, pairs, worse=False)
    own = mask_area(*masks) * least
    left, area, first, tight = _kept(masks, np.asarray(order, np.int64), start, better, own)
    size = ((tight[:, 2] - tight[:, 0]) * (tight[:, 3] - tight[:, 1]) + 7) // 8
    end = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    return Kept(area, first, tight, end, _cropped(masks.box, masks.offset, left, tight, end))


@njit(cache=True, nogil=True)
def _kept(masks, order, start, better, least):  # type: ignore[no-untyped-def]
    """What is left of every mask in its old box, its area, first pixel and tight box; `least` area in millionths."""
    box, offset, bits = masks
    n, left = len(box), bits.copy()
    area, first, tight = np.zeros(n, np.int64), np.full((n, 2), -1, np.int64), np.zeros((n, 4), np.int64)
    for i in order:
        mine = left[offset[i] : offset[i + 1]]
        # What a better one lost belongs to a still better one, which is among `better` too: so `left` will do.
        for k in range(start[i], start[i + 1]):
            _clear(mine, i, better[k], box, offset, left)
        area[i] = _extent(mine, box[i], first[i], tight[i])
        if area[i] * STEPS < least[i]:
            mine[:] = 0
            first[i] = -1
            area[i] = _extent(mine, box[i], first[i], tight[i])
    return left, area, first, tight


@njit(cache=True, nogil=True)
def _cropped(box, offset, bits, tight, end):  # type: ignore[no-untyped-def]
    """Packed masks moved from their boxes into the tight ones."""
    out = np.zeros(end[-1], np.uint8)
    for i in range(len(box)):
        wide, width = box[i, 3] - box[i, 1], tight[i, 3] - tight[i, 1]
        mine, target = bits[offset[i] : offset[i + 1]], out[end[i] : end[i + 1]]
        for y in range(tight[i, 2] - tight[i, 0]):
            at = (y + tight[i, 0] - box[i, 0]) * wide + tight[i, 1] - box[i, 1]
            for x in range(0, width, 8):
                add_eight(target, y * width + x, keep_first(eight_bits(mine, at + x), width - x))
    return out


@njit(cache=True, nogil=True)
def _clear(mine, i, j, box, offset, bits):  # type: ignore[no-untyped-def]
    """Take the pixels of mask j out of `mine`, the packed crop of row i."""
    x0, x1 = max(box[i, 1], box[j, 1]), min(box[i, 3], box[j, 3])
    for y in range(max(box[i, 0], box[j, 0]), min(box[i, 2], box[j, 2])):
        at_i = (y - box[i, 0]) * (box[i, 3] - box[i, 1]) - box[i, 1]
        at_j = offset[j] * 8 + (y - box[j, 0]) * (box[j, 3] - box[j, 1]) - box[j, 1]
        for x in range(x0, x1, 8):
            gone = keep_first(eight_bits(bits, at_j + x), x1 - x)
            byte, shift = (at_i + x) >> 3, (at_i + x) & 7
            mine[byte] &= 255 ^ (gone >> shift)
            if shift != 0 and byte + 1 < mine.size:
                mine[byte + 1] &= 255 ^ ((gone << (8 - shift)) & 255)


@njit(cache=True, nogil=True)
def _extent(mine, box, first, tight):  # type: ignore[no-untyped-def]
    """Area of a packed crop; writes its first pixel and its tight box."""
    height, width = box[2] - box[0], box[3] - box[1]
    tight[0], tight[1], tight[2], tight[3] = box[0], box[1], box[0], box[1]
    area, left, right = np.int64(0), width, np.int64(0)
    for y in range(height):
        for x in range(0, width, 8):
            byte = keep_first(eight_bits(mine, y * width + x), width - x)
            if byte == 0:
                continue
            lead = x + LEADING[byte]
            if area == 0:
                first[0], first[1], tight[0] = box[0] + y, box[1] + lead, box[0] + y
            area += ONES[byte]
            left, right, tight[2] = min(left, lead), max(right, x + 8 - TRAILING[byte]), box[0] + y + 1
    if area > 0:
        tight[1], tight[3] = box[1] + left, box[1] + right
    return area
