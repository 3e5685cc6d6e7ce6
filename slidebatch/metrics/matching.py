"""Which predicted nucleus is which true one, at an IoU threshold; counts, AP and the Data Science Bowl's score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slidebatch.metrics.overlaps import Floats, Ints, LabelImage, Overlap, overlap

DSB_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""IoU thresholds of the 2018 Data Science Bowl: 0.50, 0.55, ..., 0.95."""

ROUNDING = 1e-9
"""IoU is a ratio of integers: a pair at the threshold must not fall to the rounding of 0.55 and the like."""


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


def matches(pred: LabelImage, truth: LabelImage, iou: float) -> Ints:
    """Pairs (pred label, truth label) with IoU >= `iou`: (M, 2) int64, each nucleus in one pair at most.

    Above 0.5 every nucleus has one such partner at most (two nuclei of one image share no pixel). Pairs are
    taken greedily by (IoU down, pred, truth), which settles exact halves and lower thresholds the same way
    every time.
    """
    found = overlap(pred, truth)
    rows = matched_rows(found, found.iou(), iou)
    return np.stack([found.pred[rows], found.truth[rows]], axis=1)


def matched_rows(found: Overlap, iou: Floats, least: float) -> Ints:
    """Rows of the pairs that `matches` takes: (M,) int64, IoU descending.

    Those at a higher threshold are the first of them: what comes later never undoes a pair.
    """
    rows = np.flatnonzero(iou >= least - ROUNDING)
    rows = rows[np.lexsort((found.truth[rows], found.pred[rows], -iou[rows]))]
    seen_pred: set[int] = set()
    seen_truth: set[int] = set()
    taken = np.zeros(len(rows), bool)
    for i, (p, t) in enumerate(zip(found.pred[rows].tolist(), found.truth[rows].tolist(), strict=True)):
        if p not in seen_pred and t not in seen_truth:
            seen_pred.add(p)
            seen_truth.add(t)
            taken[i] = True
    return rows[taken]


def partner_iou(found: Overlap) -> Floats:
    """IoU of each predicted nucleus with the true one that it shares most pixels with, 0 without any: (N,) float64.

    In the order of `found.pred_label`. Of several with equally many shared pixels the highest IoU counts. One true
    nucleus may be the partner of several.
    """
    iou = found.iou()
    worst_first = np.lexsort((iou, found.shared_px))
    best = np.zeros(len(found.pred_label))
    best[found.pred_row[worst_first]] = iou[worst_first]  # of rows that are set twice the last one stays
    return best


def counts(pred: LabelImage, truth: LabelImage, iou: float = 0.5) -> Counts:
    """True positives, false positives and misses at one IoU threshold."""
    return counts_at(overlap(pred, truth), (iou,))[iou]


def counts_by_threshold(pred: LabelImage, truth: LabelImage) -> dict[float, Counts]:
    """The counts at each of the ten thresholds of the Data Science Bowl; the overlap is computed once."""
    return counts_at(overlap(pred, truth))


def counts_at(found: Overlap, thresholds: tuple[float, ...] = DSB_THRESHOLDS) -> dict[float, Counts]:
    """The counts at each threshold, from one overlap and one matching."""
    iou = found.iou()
    reached = iou[matched_rows(found, iou, min(thresholds))]
    n_pred, n_truth = len(found.pred_label), len(found.truth_label)
    right = {t: int(np.count_nonzero(reached >= t - ROUNDING)) for t in thresholds}
    return {t: Counts(tp, n_pred - tp, n_truth - tp) for t, tp in right.items()}


def average_precision(pred: LabelImage, truth: LabelImage, iou: float = 0.5) -> float:
    """TP / (TP + FP + FN) at one IoU threshold; 1.0 for two empty images."""
    return counts(pred, truth, iou).average_precision


def f1(pred: LabelImage, truth: LabelImage, iou: float = 0.5) -> float:
    """2 TP / (2 TP + FP + FN) at one IoU threshold; 1.0 for two empty images."""
    return counts(pred, truth, iou).f1


def dsb_score(pred: LabelImage, truth: LabelImage) -> float:
    """Mean over IoU 0.50, 0.55, ..., 0.95 of TP / (TP + FP + FN), the 2018 Data Science Bowl's score.

    A pair counts where its IoU is at least the threshold. 1.0 for two empty images.
    Source: Caicedo et al. 2019, Nature Methods 16:1247, doi:10.1038/s41592-019-0612-7.
    """
    return dsb_of(counts_by_threshold(pred, truth))


def dsb_of(by_threshold: dict[float, Counts]) -> float:
    """The same from counts that are already there."""
    return float(np.mean([by_threshold[t].average_precision for t in DSB_THRESHOLDS]))
