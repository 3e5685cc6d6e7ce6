"""How well one label image agrees with another: counts, AP, F1, SEG, equality up to renaming.

AP here is TP / (TP + FP + FN) at one IoU threshold, as the 2018 Data Science Bowl scored it; COCO's measure
is another one. Label images are integer arrays (Y, X), 0 for background; a label is one nucleus, whether its
pixels are connected or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]
DSB_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""IoU thresholds of the 2018 Data Science Bowl: 0.50, 0.55, ..., 0.95."""


@dataclass(frozen=True)
class Overlap:
    """The pairs of nuclei of two label images that share pixels, and every nucleus's area.

    pred, truth    (P,) int64   labels of each pair, sorted by (pred, truth)
    shared_px      (P,) int64   pixels of each pair
    pred_area_px, truth_area_px   dicts label -> pixels, of all nuclei, paired or not
    """

    pred: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    shared_px: npt.NDArray[np.int64]
    pred_area_px: dict[int, int]
    truth_area_px: dict[int, int]

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union of each pair: (P,) float64 in (0, 1]."""
        areas = [self.pred_area_px[int(p)] + self.truth_area_px[int(t)] for p, t in self._pairs()]
        return self.shared_px / np.maximum(np.array(areas, np.int64) - self.shared_px, 1)

    def _pairs(self) -> zip[tuple[np.int64, np.int64]]:
        return zip(self.pred, self.truth, strict=True)


@dataclass(frozen=True)
class Counts:
    """Nuclei found rightly, found wrongly, and missed at one IoU threshold."""

    tp: int
    fp: int
    fn: int

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN); 1.0 where there is nothing to find and nothing was found."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else 1.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1.0 where there is nothing to find and nothing was found."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 1.0 where nothing was found."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 1.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 1.0 where there is nothing to find."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 1.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def overlap(pred: Labels, truth: Labels) -> Overlap:
    """The sparse overlap of two label images (Y, X) of one shape; ValueError where the shapes differ."""
    if pred.shape != truth.shape:
        raise ValueError(f"Label images of shapes {pred.shape} and {truth.shape} cannot be compared.")
    p, t = pred.ravel().astype(np.int64), truth.ravel().astype(np.int64)
    span = int(t.max(initial=0)) + 1
    code, shared = np.unique((p * span + t)[(p > 0) & (t > 0)], return_counts=True)
    return Overlap(code // span, code % span, shared.astype(np.int64), areas(pred), areas(truth))


def areas(labels: Labels) -> dict[int, int]:
    """Pixels of each nucleus, by label, ascending; background left out."""
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def matches(pred: Labels, truth: Labels, iou: float) -> npt.NDArray[np.int64]:
    """Pairs (pred label, truth label) with IoU >= `iou`: (M, 2) int64, each nucleus in one pair at most.

    At and above 0.5 every nucleus has one such partner at most (two nuclei of one image share no pixel), but
    for exact halves. Pairs are taken greedily by (IoU down, pred, truth), which settles those and lower
    thresholds the same way every time.
    """
    found = overlap(pred, truth)
    return _match(found, found.iou(), iou)


def counts(pred: Labels, truth: Labels, iou: float = 0.5) -> Counts:
    """True positives, false positives and misses at one IoU threshold."""
    found = overlap(pred, truth)
    return _count(found, found.iou(), iou)


def average_precision(pred: Labels, truth: Labels, iou: float = 0.5) -> float:
    """TP / (TP + FP + FN) at one IoU threshold; 1.0 for two empty images."""
    return counts(pred, truth, iou).average_precision


def f1(pred: Labels, truth: Labels, iou: float = 0.5) -> float:
    """2 TP / (2 TP + FP + FN) at one IoU threshold; 1.0 for two empty images."""
    return counts(pred, truth, iou).f1


def dsb_score(pred: Labels, truth: Labels) -> float:
    """Mean over IoU 0.50, 0.55, ..., 0.95 of TP / (TP + FP + FN), the 2018 Data Science Bowl's score.

    A pair counts where its IoU is at least the threshold. 1.0 for two empty images.
    Source: Caicedo et al. 2019, Nature Methods 16:1247, doi:10.1038/s41592-019-0612-7.
    """
    return dsb_of(counts_by_threshold(pred, truth))


def dsb_of(by_threshold: dict[float, Counts]) -> float:
    """The same from counts that are already there."""
    return float(np.mean([by_threshold[t].average_precision for t in DSB_THRESHOLDS]))


def counts_by_threshold(pred: Labels, truth: Labels) -> dict[float, Counts]:
    """The counts at each of the ten thresholds of the Data Science Bowl; the overlap is computed once."""
    found = overlap(pred, truth)
    iou = found.iou()
    return {t: _count(found, iou, t) for t in DSB_THRESHOLDS}


def seg(pred: Labels, truth: Labels) -> float:
    """Mean over true nuclei of the IoU with the one prediction that covers more than half of them, else 0.

    1.0 where there is no true nucleus. Source: Cell Tracking Challenge, Maska et al. 2014, Bioinformatics
    30:1609, doi:10.1093/bioinformatics/btu080.
    """
    found = overlap(pred, truth)
    if not found.truth_area_px:
        return 1.0
    area = np.array([found.truth_area_px[int(t)] for t in found.truth], np.int64)
    covered = 2 * found.shared_px > area
    return math.fsum(found.iou()[covered]) / len(found.truth_area_px)  # fsum: ids must not change the rounding


def equal_up_to_renaming(a: Labels, b: Labels) -> bool:
    """Whether two label images show the same nuclei pixel for pixel under any ids; background is 0 in both."""
    if a.shape != b.shape or not np.array_equal(a > 0, b > 0):
        return False
    found = overlap(a, b)
    return len(found.pred) == len(found.pred_area_px) == len(found.truth_area_px)


def _match(found: Overlap, iou: npt.NDArray[np.float64], least: float) -> npt.NDArray[np.int64]:
    """The greedy one-to-one pairs with IoU of at least `least`."""
    # IoU is a ratio of integers: a pair at the threshold must not fall to the rounding of 0.55 and the like.
    rows = np.flatnonzero((iou >= least - 1e-9) & (iou > 0))
    rows = rows[np.lexsort((found.truth[rows], found.pred[rows], -iou[rows]))]
    seen_pred: set[int] = set()
    seen_truth: set[int] = set()
    pairs = []
    for p, t in zip(found.pred[rows].tolist(), found.truth[rows].tolist(), strict=True):
        if p not in seen_pred and t not in seen_truth:
            seen_pred.add(p)
            seen_truth.add(t)
            pairs.append((p, t))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _count(found: Overlap, iou: npt.NDArray[np.float64], least: float) -> Counts:
    tp = len(_match(found, iou, least))
    return Counts(tp, len(found.pred_area_px) - tp, len(found.truth_area_px) - tp)
