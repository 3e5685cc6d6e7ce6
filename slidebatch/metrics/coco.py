"""COCO's mean average precision (mAP): how well scores rank what was found.

The area under precision over recall while the least score falls, over all images together, at 101 points of recall
(Lin et al. 2014, arXiv:1405.0312; pycocotools' COCOeval). One class, every detection counts (COCO's own 100 an image
would leave out most nuclei), all sizes. It is another measure than `average_precision`, which needs no scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slidebatch.metrics.matching import DSB_THRESHOLDS, ROUNDING
from slidebatch.metrics.overlaps import Floats, Ints, Overlap

RECALLS = np.linspace(0, 1, 101)
"""Where precision is read off."""


@dataclass(frozen=True)
class Ranked:
    """What one image adds: its predicted nuclei with their scores, and the pairs that may be right at some threshold.

    score        (N,) float64, a higher one is surer
    pred, truth  (P,) int64 rows of the pairs with an IoU of 0.5 and more; `iou` (P,) float64
    truths       true nuclei in all
    """

    score: Floats
    pred: Ints
    truth: Ints
    iou: Floats
    truths: int


def ranked(found: Overlap, score: npt.ArrayLike) -> Ranked:
    """What an image with this overlap adds; score (N,) in the order of `found.pred_label`. ValueError: other than N."""
    scores = np.asarray(score, np.float64)
    if scores.shape != found.pred_label.shape:
        raise ValueError(f"{len(found.pred_label)} predicted nuclei need as many scores, found {scores.shape}.")
    iou = found.iou()
    near = iou >= min(DSB_THRESHOLDS) - ROUNDING
    return Ranked(scores, found.pred_row[near], found.truth_row[near], iou[near], len(found.truth_label))


def unpredicted(truths: int) -> Ranked:
    """What an image adds in which nothing was predicted."""
    none = np.zeros(0, np.int64)
    return Ranked(np.zeros(0), none, none, np.zeros(0), truths)


def coco_ap(images: Sequence[Ranked], iou: float) -> float:
    """COCO's AP of images at one IoU threshold, 0.5 or more: 0..1; NaN without any true nucleus."""
    truths = sum(image.truths for image in images)
    if not truths:
        return float("nan")
    score = np.concatenate([np.zeros(0), *(image.score for image in images)])
    right = np.concatenate([np.zeros(0, bool), *(_right(image, iou) for image in images)])
    right = right[np.argsort(-score, kind="stable")]
    if not len(right):
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / truths, RECALLS)
    reached = at < len(right)
    return float(np.where(reached, best_from_here[np.minimum(at, len(right) - 1)], 0.0).mean())


def coco_map(images: Sequence[Ranked]) -> float:
    """COCO's mAP: the mean AP at IoU 0.50, 0.55, ..., 0.95. NaN without any true nucleus."""
    return float(np.mean([coco_ap(images, t) for t in DSB_THRESHOLDS]))


def _right(image: Ranked, iou: float) -> npt.NDArray[np.bool_]:
    """Which predicted nuclei (N,) find a true one: the surer ones first, each the free one that it overlaps most."""
    pairs = np.flatnonzero(image.iou >= iou - ROUNDING)
    order = np.lexsort((image.truth[pairs], -image.iou[pairs], image.pred[pairs], -image.score[image.pred[pairs]]))
    right, taken = np.zeros(len(image.score), bool), np.zeros(image.truths, bool)
    for row in pairs[order].tolist():
        p, t = image.pred[row], image.truth[row]
        if not right[p] and not taken[t]:
            right[p] = taken[t] = True
    return right
