"""Soft masks of detections laid onto the slide's pixels: `Detections` become `Instances`.

All arithmetic on pixels is in integers: a bilinear sample at pixel centres has the common denominator
4 * height * width, so a pixel is compared with the threshold without any rounding, alike on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit

from slidebatch.errors import ModelError
from slidebatch.geometry import Box
from slidebatch.instances import SCORE_MAX, Instances, offsets

if TYPE_CHECKING:  # this floor lies below the models; only the name of the type is needed
    from slidebatch.models.protocol import Detections

Bytes = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.int32]
Pixels = npt.NDArray[np.bool_]

FARTHEST_PX = 2**30
"""No slide reaches this far; a network that says so is broken."""


def paste(detections: Detections, slide_box: Box, threshold: int = 128) -> Instances:
    """Resample each soft mask to its box's whole pixels, threshold it, and keep what lies on the slide.

    A box's corners are rounded half up, and a side has at least one pixel. Masks (N, M, M) are sampled
    bilinearly at pixel centres, clamped at the edges (torch's align_corners=False); a pixel is in where the
    sample is >= threshold (0..255). Masks are clipped to `slide_box`, those left without a pixel are dropped,
    boxes are tightened to the pixels. Scores become whole 65535ths. Rows stay in order; all is in slide
    pixels at the plan's grid; no detections give no rows. Member 0, one vote, not cut: callers know better.
    ModelError if boxes, scores or masks are not what the protocol promises.
    """
    _check(detections)
    box = _whole_pixels(detections.box)
    inside = _clipped(box, slide_box)
    tight, bits = _pasted(np.ascontiguousarray(detections.mask), box, inside, threshold, int(offsets(inside)[-1]))
    rows = np.flatnonzero(tight[:, 2] > tight[:, 0])
    score = np.floor(detections.score[rows].astype(np.float64) * SCORE_MAX + 0.5).astype(np.uint16)
    return Instances(
        box=tight[rows],
        score=score,
        member=np.zeros(len(rows), np.uint8),
        votes=np.ones(len(rows), np.uint8),
        cut=np.zeros(len(rows), np.uint8),
        offset=offsets(tight[rows]),  # dropped rows wrote no bytes
        bits=bits,
    )


def _check(detections: Detections) -> None:
    n, box, score, mask = len(detections.box), detections.box, detections.score, detections.mask
    square = mask.ndim == 3 and mask.shape[1] == mask.shape[2] and (mask.shape[1] > 0 or n == 0)
    if box.shape != (n, 4) or score.shape != (n,) or len(mask) != n or not square or mask.dtype != np.uint8:
        raise ModelError(
            f"the network answered boxes {box.shape}, scores {score.shape} and masks {mask.dtype} "
            f"{mask.shape}, expected (N, 4), (N,) and uint8 (N, M, M): correct its `detect`"
        )
    # Negated, because every comparison with NaN is false.
    bad = (
        ~(np.abs(box) < FARTHEST_PX).all(axis=1)
        | (box[:, 2:] < box[:, :2]).any(axis=1)
        | ~((score >= 0) & (score <= 1))
    )
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(
            f"the network answered box {box[row].tolist()} with score {float(score[row])}, expected finite "
            "(y0, x0, y1, x1) with y0 <= y1 and x0 <= x1 and a score in 0..1: check its weights and its input"
        )


def _whole_pixels(box: npt.NDArray[np.float32]) -> Boxes:
    """Corners (N, 4) rounded half up, each side at least one pixel: int32."""
    whole = np.floor(box.astype(np.float64) + 0.5).astype(np.int32)
    whole[:, 2:] = np.maximum(whole[:, 2:], whole[:, :2] + 1)
    return whole


def _clipped(box: Boxes, limit: Box) -> Boxes:
    """The part of each box (N, 4) inside `limit`; without area where there is none."""
    low = np.maximum(box[:, :2], (limit.y0, limit.x0))
    high = np.maximum(np.minimum(box[:, 2:], (limit.y1, limit.x1)), low)
    return np.concatenate([low, high], axis=1).astype(np.int32)


@njit(cache=True, nogil=True)
def _pasted(mask: Bytes, box: Boxes, inside: Boxes, threshold: int, most_bytes: int) -> tuple[Boxes, Bytes]:
    """Tight boxes (N, 4) int32, all zero where no pixel is left, and the packed masks of the others."""
    tight = np.zeros((len(box), 4), np.int32)
    bits = np.zeros(most_bytes, np.uint8)
    used = 0
    for i in range(len(box)):
        y0, x0, y1, x1 = inside[i]
        if y1 <= y0 or x1 <= x0:
            continue
        rows = _taps(y0 - box[i, 0], y1 - box[i, 0], box[i, 2] - box[i, 0], mask.shape[1])
        columns = _taps(x0 - box[i, 1], x1 - box[i, 1], box[i, 3] - box[i, 1], mask.shape[2])
        crop = _sampled(mask[i], rows, columns, threshold)
        top, left, bottom, right = _extent(crop)
        if bottom > top:
            tight[i] = (y0 + top, x0 + left, y0 + bottom, x0 + right)
            used = _pack(crop[top:bottom, left:right], bits, used)
    return tight, bits[:used].copy()


@njit(cache=True, nogil=True)
def _taps(start: int, stop: int, length: int, size: int) -> npt.NDArray[np.int64]:
    """For pixels start..stop of a side of `length` pixels over `size` samples: (pixels, 4) int64.

    Columns: first sample, second sample, weight of the first, weight of the second, in 1 / (2 * length).
    Pixel r's centre lies at sample (r + 1/2) * size / length - 1/2, clamped to the outermost samples.
    """
    taps = np.empty((stop - start, 4), np.int64)
    for k in range(stop - start):
        place = min(max((2 * (start + k) + 1) * size - length, 0), 2 * length * (size - 1))
        first, rest = place // (2 * length), place % (2 * length)
        taps[k, 0], taps[k, 1] = first, min(first + 1, size - 1)
        taps[k, 2], taps[k, 3] = 2 * length - rest, rest
    return taps


@njit(cache=True, nogil=True)
def _sampled(mask: Bytes, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], threshold: int) -> Pixels:
    """Bool (Y, X): where the bilinear sample is at least the threshold."""
    crop = np.zeros((len(rows), len(columns)), np.bool_)
    least = threshold * (rows[0, 2] + rows[0, 3]) * (columns[0, 2] + columns[0, 3])
    line = np.empty(mask.shape[1], np.int64)
    for y in range(len(rows)):
        above, below, near, far = rows[y]
        for x in range(columns[0, 0], columns[-1, 1] + 1):
            line[x] = near * mask[above, x] + far * mask[below, x]
        for x in range(len(columns)):
            value = columns[x, 2] * line[columns[x, 0]] + columns[x, 3] * line[columns[x, 1]]
            crop[y, x] = value >= least
    return crop


@njit(cache=True, nogil=True)
def _extent(crop: Pixels) -> tuple[int, int, int, int]:
    """Half-open (top, left, bottom, right) of the pixels that are set; bottom 0 if none is."""
    top, left, bottom, right = crop.shape[0], crop.shape[1], 0, 0
    for y in range(crop.shape[0]):
        for x in range(crop.shape[1]):
            if crop[y, x]:
                top, bottom = min(top, y), y + 1
                left, right = min(left, x), max(right, x + 1)
    return top, left, bottom, right


@njit(cache=True, nogil=True)
def _pack(crop: Pixels, bits: Bytes, used: int) -> int:
    """Append a crop's packed bits at byte `used`; the byte after it."""
    at = used * 8
    for y in range(crop.shape[0]):
        for x in range(crop.shape[1]):
            if crop[y, x]:
                bits[at >> 3] |= 128 >> (at & 7)
            at += 1
    return (at + 7) >> 3
