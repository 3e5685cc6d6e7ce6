"""Settling detections that compete for pixels: suppression, then every disputed pixel to the better one.

A tile settles the groups of overlapping detections that lie wholly where no other tile's detection can reach;
the seam stage settles all others, once. Both call `settle`, so the result equals one global pass exactly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from numba import njit

from ensemble import iou, nms
from slidebatch import instances
from slidebatch.decode import DecodeSpec
from slidebatch.geometry import Box
from slidebatch.instances import Instances


def settle(found: Instances, iou_threshold: float) -> Instances:
    """What stays of competing detections: disjoint masks, best first; those left without pixels are gone.

    Two detections conflict when the intersection over union of their masks exceeds `iou_threshold`; of two
    that conflict the better in the total order (score down, box, area, mask, member) stays.
    """
    if not len(found):
        return found
    keep = nms.mask_nms(found.score, found.box, found.offset, found.bits, found.member, iou_threshold)
    area = iou.mask_area(found.box, found.offset, found.bits)
    order = nms.total_order(found.score, found.box, area, found.offset, found.bits, found.member)
    kept = found.take(order[keep[order]])
    return _tighten(replace(kept, bits=_disjoint(kept.box, kept.offset, kept.bits.copy(), _pairs(kept))))


def in_limits(found: Instances, spec: DecodeSpec, largest_px: int) -> Instances:
    """Without detections outside the size and score limits, or wider than `largest_px`."""
    area = iou.mask_area(found.box, found.offset, found.bits)
    side = (found.box[:, 2:] - found.box[:, :2]).max(axis=1, initial=0)
    keep = (area >= spec.min_area_px) & (area <= spec.max_area_px) & (side <= largest_px)
    return found.take(keep & (found.score >= round(spec.score_threshold * instances.SCORE_MAX)))


def label_image(found: Instances, shape: tuple[int, int], spec: DecodeSpec, largest_px: int) -> npt.NDArray[np.int32]:
    """The label image (Y, X) int32 that a run makes of all detections of a whole image, up to renaming."""
    return instances.painted(settle(in_limits(found, spec, largest_px), spec.iou_threshold), shape)


def split_settled(found: Instances, safe: Box) -> npt.NDArray[np.bool_]:
    """Which detections belong to groups of overlapping masks whose boxes all lie in `safe`: (N,) bool."""
    pairs = _pairs(found)
    touching = iou.mask_overlap(found.box, found.offset, found.bits, pairs) > 0
    group = nms.components(len(found), pairs[touching])
    return nms.settled(group, found.box, np.array(safe.tuple()))


def _pairs(found: Instances) -> npt.NDArray[np.int64]:
    return iou.box_pairs(found.box)


@njit(nogil=True, cache=True)
def _disjoint(box, offset, bits, pairs):
    """Take from each mask, in place, the pixels of every earlier one; rows are best first, pairs i < j sorted.

    Pairs in lexicographic order compare against masks as they were reduced so far, which takes the same pixels:
    what an earlier mask lost belongs to a still earlier one, with which the later one is paired too.
    """
    for k in range(len(pairs)):
        i, j = pairs[k, 0], pairs[k, 1]
        wide_i, wide_j = np.int64(box[i, 3]) - box[i, 1], np.int64(box[j, 3]) - box[j, 1]
        for y in range(max(box[i, 0], box[j, 0]), min(box[i, 2], box[j, 2])):
            for x in range(max(box[i, 1], box[j, 1]), min(box[i, 3], box[j, 3])):
                a = (y - box[i, 0]) * wide_i + x - box[i, 1]
                b = (y - box[j, 0]) * wide_j + x - box[j, 1]
                if bits[offset[i] + (a >> 3)] & (128 >> (a & 7)):
                    bits[offset[j] + (b >> 3)] &= np.uint8(255 - (128 >> (b & 7)))
    return bits


def _tighten(found: Instances) -> Instances:
    """Boxes moved in to the pixels that are left; empty masks dropped."""
    boxes, masks, rows = [], [], []
    for i in range(len(found)):
        mask, box = found.mask(i), found.at(i)
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(ys):
            continue
        inner = Box(int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1)
        boxes.append(inner.shift(box.y0, box.x0))
        masks.append(mask[inner.slices()])
        rows.append(i)
    packed = instances.from_masks(boxes, masks)
    keep = np.array(rows, np.int64)
    return replace(packed, score=found.score[keep], member=found.member[keep], votes=found.votes[keep])
