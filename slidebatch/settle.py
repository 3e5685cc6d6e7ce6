"""Settling detections that compete for pixels: suppression, then every disputed pixel to the better one.

A tile settles the groups of overlapping detections that lie wholly where no other tile's detection can reach;
the seam stage settles all others, once. Both call `settle`, so the result equals one global pass exactly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ensemble import iou, nms
from ensemble.fuse import resolve_overlaps
from slidebatch import instances
from slidebatch.decode import DecodeSpec
from slidebatch.geometry import Box
from slidebatch.instances import Instances


def settle(found: Instances, iou_threshold: float) -> Instances:
    """What stays of competing detections: disjoint masks, best first; those left without pixels are gone.

    Two detections conflict when the intersection over union of their masks exceeds `iou_threshold`; of two
    that conflict the better in the total order (score down, box, area, mask, member) stays.
    """
    return disjoint(suppressed(found, iou_threshold))


def suppressed(found: Instances, iou_threshold: float) -> Instances:
    """What greedy non-maximum suppression by masks leaves, in the given order, masks as they are."""
    keep = nms.mask_nms(found.score, found.box, found.offset, found.bits, found.member, iou_threshold)
    return found.take(keep)


def disjoint(found: Instances, least_share: float = 0.0) -> Instances:
    """Nuclei best first, each disputed pixel with the best; gone are those that keep none, or less than their share."""
    if not len(found):
        return found
    area = iou.mask_area(found.box, found.offset, found.bits)
    order = nms.total_order(found.score, found.box, area, found.offset, found.bits, found.member)
    best = found.take(order)
    kept = resolve_overlaps(np.arange(len(best)), best.box, best.offset, best.bits, least_share)
    left = replace(best, box=kept.box.astype(np.int32), offset=kept.offset, bits=kept.bits)
    return left.take(kept.area > 0)


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
    """Which nuclei belong to groups of overlapping masks whose boxes all lie in `safe`, none of them cut: (N,) bool."""
    pairs = iou.box_pairs(found.box)
    touching = iou.mask_overlap(found.box, found.offset, found.bits, pairs) > 0
    group = nms.components(len(found), pairs[touching])
    cut = np.bincount(group, found.cut > 0, minlength=1)[group] > 0
    return nms.settled(group, found.box, np.array(safe.tuple())) & ~cut
