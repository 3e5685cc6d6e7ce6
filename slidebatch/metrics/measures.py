"""Measures of how well nuclei are outlined: SEG, PQ, AJI, merges and splits, and equality up to renaming.

Sums of ratios are exact (`math.fsum`), so that the ids of nuclei never change a score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from slidebatch.metrics.matching import Counts, counts_at, dsb_of
from slidebatch.metrics.overlaps import Ints, LabelImage, Overlap, overlap


@dataclass(frozen=True)
class Panoptic:
    """Panoptic quality: `pq` = `sq` (mean IoU of the pairs) times `rq` (their F1)."""

    pq: float
    sq: float
    rq: float


@dataclass(frozen=True)
class Scores:
    """Every measure of one pair of label images.

    by_threshold   counts at each threshold of the Data Science Bowl
    merged         predicted nuclei that hold more than half of two or more true ones
    split          true nuclei that hold more than half of two or more predicted ones
    """

    by_threshold: dict[float, Counts]
    seg: float
    panoptic: Panoptic
    aji: float
    merged: int
    split: int

    @property
    def dsb(self) -> float:
        """Mean AP over the thresholds of the Data Science Bowl."""
        return dsb_of(self.by_threshold)

    @property
    def half(self) -> Counts:
        """The counts at IoU 0.5."""
        return self.by_threshold[0.5]


def scores(pred: LabelImage, truth: LabelImage) -> Scores:
    """Every measure of two label images (Y, X) of one shape, from one overlap. ValueError: shapes differ."""
    return scores_of(overlap(pred, truth))


def scores_of(found: Overlap) -> Scores:
    """`scores` of an overlap that is already there."""
    by_threshold = counts_at(found)
    return Scores(by_threshold, seg_of(found), panoptic_of(found), aji_of(found), merged_of(found), split_of(found))


def seg(pred: LabelImage, truth: LabelImage) -> float:
    """Mean over true nuclei of the IoU with the one prediction that covers more than half of them, else 0.

    1.0 where there is no true nucleus: SEG never asks for what was found in vain. Source: Cell Tracking
    Challenge, Maska et al. 2014, Bioinformatics 30:1609, doi:10.1093/bioinformatics/btu080.
    """
    return seg_of(overlap(pred, truth))


def panoptic(pred: LabelImage, truth: LabelImage) -> Panoptic:
    """Panoptic quality over the pairs with IoU > 0.5, of one class.

    All three are 1.0 where both images are empty, 0.0 where no pair is found otherwise. Source: Kirillov et al.
    2019, Panoptic Segmentation, CVPR, arXiv:1801.00868.
    """
    return panoptic_of(overlap(pred, truth))


def aji(pred: LabelImage, truth: LabelImage) -> float:
    """Aggregated Jaccard index: shared pixels over united pixels, of all true nuclei with their best partners.

    Every true nucleus is paired with the prediction of highest IoU (one prediction may serve several); the
    areas of true nuclei without a partner and of predictions that served none are added to the union. Equal
    IoUs: the larger overlap, then the lower label. 1.0 where both images are empty. Source: Kumar et al. 2017,
    IEEE Trans. Med. Imaging 36:1550, doi:10.1109/TMI.2017.2677499.
    """
    return aji_of(overlap(pred, truth))


def equal_up_to_renaming(a: LabelImage, b: LabelImage) -> bool:
    """Whether two label images show the same nuclei pixel for pixel under any ids; background is 0 in both."""
    if tuple(a.shape) != tuple(b.shape):
        return False
    found = overlap(a, b)
    same = len(found.pred) == len(found.pred_label) == len(found.truth_label)
    return same and bool((found.shared_px == found.union_px).all())


def seg_of(found: Overlap) -> float:
    """`seg` of an overlap that is already there."""
    if not len(found.truth_label):
        return 1.0
    covered = 2 * found.shared_px > found.truth_px[found.truth_row]
    return math.fsum(found.iou()[covered]) / len(found.truth_label)


def panoptic_of(found: Overlap) -> Panoptic:
    """`panoptic` of an overlap that is already there."""
    nuclei = len(found.pred_label) + len(found.truth_label)
    if nuclei == 0:
        return Panoptic(1.0, 1.0, 1.0)
    pairs = 2 * found.shared_px > found.union_px  # in integers: exactly one half is no pair
    n = int(np.count_nonzero(pairs))
    total = math.fsum(found.iou()[pairs])
    return Panoptic(2 * total / nuclei, total / n if n else 0.0, 2 * n / nuclei)


def aji_of(found: Overlap) -> float:
    """`aji` of an overlap that is already there."""
    if not len(found.pred_label) and not len(found.truth_label):
        return 1.0
    best = _best_partner(found)
    unserved = np.setdiff1d(np.arange(len(found.pred_label)), found.pred_row[best])
    alone = np.setdiff1d(np.arange(len(found.truth_label)), found.truth_row[best])
    united = found.union_px[best].sum() + found.pred_px[unserved].sum() + found.truth_px[alone].sum()
    return float(found.shared_px[best].sum() / united)


def merged_of(found: Overlap) -> int:
    """Predicted nuclei that hold more than half of each of two or more true nuclei."""
    inside = 2 * found.shared_px > found.truth_px[found.truth_row]
    return int(np.count_nonzero(np.bincount(found.pred_row[inside]) > 1))


def split_of(found: Overlap) -> int:
    """True nuclei that hold more than half of each of two or more predicted nuclei."""
    inside = 2 * found.shared_px > found.pred_px[found.pred_row]
    return int(np.count_nonzero(np.bincount(found.truth_row[inside]) > 1))


def _best_partner(found: Overlap) -> Ints:
    """Row of the pair of highest IoU of each true nucleus that has any: (at most M,) int64."""
    order = np.lexsort((found.pred, -found.shared_px, -found.iou(), found.truth))
    return order[np.unique(found.truth[order], return_index=True)[1]]
