"""Who keeps a pixel that several nuclei claim.

A label image holds one id a pixel, so masks that overlap must be settled before ids are given: each pixel
goes to the best nucleus, in the total order of `ensemble.nms`, of all that cover it. What a nucleus keeps
therefore does not depend on what the others lost, and painting from worst to best gives the same picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from ensemble.iou import box_pairs, mask_overlap
from ensemble.nms import rank_of, toward
from ensemble.packed import ONES, eight_bits, keep_first, packed

LEADING = np.array([8 - byte.bit_length() for byte in range(256)], np.int64)
"""Zero bits before the first set one of a byte."""

TRAILING = np.array([8] + [(byte & -byte).bit_length() - 1 for byte in range(1, 256)], np.int64)
"""Zero bits after the last set one of a byte."""


class Kept(NamedTuple):
    """What each of N nuclei keeps.

    area         (N,) int64    pixels left, 0 where it lost all
    first_pixel  (N, 2) int64  (y, x) of its first pixel in raster order, (-1, -1) where it lost all
    box          (N, 4) int64  the tight box of what is left, without area at its old corner where it lost all
    """

    area: npt.NDArray[np.int64]
    first_pixel: npt.NDArray[np.int64]
    box: npt.NDArray[np.int64]


def resolve_overlaps(order: npt.ArrayLike, box: npt.ArrayLike, offset: npt.ArrayLike, bits: npt.ArrayLike) -> Kept:
    """Give each pixel to the best-ordered nucleus that covers it, and report what every nucleus keeps.

    order (N,) int64 permutation, best first; packed masks of N nuclei as in `ensemble.packed`, in any frame,
    which is also the frame of the answer. N = 0 gives empty arrays. Only masks that share pixels cost more
    than one pass over their bytes. ValueError where the arrays do not fit one another.
    """
    masks = packed(box, offset, bits)
    rank = rank_of(order)
    if len(rank) != len(masks.box):
        raise ValueError(f"an order of {len(rank)} rows for {len(masks.box)} masks: pass the order of these")
    pairs = box_pairs(masks.box)
    pairs = pairs[mask_overlap(*masks, pairs) > 0]
    start, better = toward(rank, pairs, worse=False)
    return Kept(*_kept(masks, start, better))


@njit(cache=True, nogil=True)
def _kept(masks, start, better):  # type: ignore[no-untyped-def]
    box, offset, bits = masks
    n = len(box)
    area, first, tight = np.zeros(n, np.int64), np.full((n, 2), -1, np.int64), np.zeros((n, 4), np.int64)
    size = np.int64(0)
    for i in range(n):
        size = max(size, offset[i + 1] - offset[i])
    crop = np.zeros(size, np.uint8)
    for i in range(n):
        length = offset[i + 1] - offset[i]
        mine = crop[:length]
        mine[:] = bits[offset[i] : offset[i + 1]]
        for k in range(start[i], start[i + 1]):
            _clear(mine, i, better[k], masks)
        area[i] = _extent(mine, box[i], first[i], tight[i])
    return area, first, tight


@njit(cache=True, nogil=True)
def _clear(mine, i, j, masks):  # type: ignore[no-untyped-def]
    """Take the pixels of mask j out of `mine`, the packed crop of row i."""
    box, offset, bits = masks
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
