"""How well one label image agrees with another: counts, AP, F1, SEG, PQ, AJI, equality up to renaming.

AP here is TP / (TP + FP + FN) at one IoU threshold, as the 2018 Data Science Bowl scored it; COCO's measure
is another one (`coco_ap`, `coco_map`), and needs scores. Label images are integers (Y, X), 0 for background; a label
is one nucleus, whether its pixels are connected or not. Each measure is a function of two label images; `scores` gives
all of them from one pass.
"""

from __future__ import annotations

from slidebatch.metrics.coco import Ranked, coco_ap, coco_map, ranked, unpredicted
from slidebatch.metrics.matching import (
    DSB_THRESHOLDS,
    Counts,
    average_precision,
    counts,
    counts_at,
    counts_by_threshold,
    dsb_of,
    dsb_score,
    f1,
    matches,
    partner_iou,
)
from slidebatch.metrics.measures import Panoptic, Scores, aji, equal_up_to_renaming, panoptic, scores, scores_of, seg
from slidebatch.metrics.overlaps import LabelImage, Labels, Overlap, areas, overlap

__all__ = [
    "DSB_THRESHOLDS",
    "Counts",
    "LabelImage",
    "Labels",
    "Overlap",
    "Panoptic",
    "Ranked",
    "Scores",
    "aji",
    "areas",
    "average_precision",
    "coco_ap",
    "coco_map",
    "counts",
    "counts_at",
    "counts_by_threshold",
    "dsb_of",
    "dsb_score",
    "equal_up_to_renaming",
    "f1",
    "matches",
    "overlap",
    "panoptic",
    "partner_iou",
    "ranked",
    "scores",
    "scores_of",
    "seg",
    "unpredicted",
]
