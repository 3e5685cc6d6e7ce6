"""The sparse overlap of two label images: which nuclei share pixels, how many, and every nucleus's area.

Owns the only pass over pixels that measures need. Memory grows with the nuclei and one band of rows, never with
the product of the two numbers of nuclei.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BAND_PX = 1 << 24
"""Pixels that are looked at together: large images stay where they are and are read by bands of rows."""


class LabelImage(Protocol):
    """Integer labels (Y, X), 0 = background, in memory or not: what can be sliced by rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True)
class Overlap:
    """The P pairs of nuclei that share pixels, of N predicted and M true ones.

    pred, truth             (P,) int64   labels of each pair, sorted by (pred, truth)
    shared_px               (P,) int64   pixels that the two share
    pred_label, pred_px     (N,) int64   every predicted nucleus, ascending, and its area
    truth_label, truth_px   (M,) int64   every true nucleus, ascending, and its area
    """

    pred: Ints
    truth: Ints
    shared_px: Ints
    pred_label: Ints
    pred_px: Ints
    truth_label: Ints
    truth_px: Ints

    @cached_property
    def pred_row(self) -> Ints:
        """Row of each pair's predicted nucleus in `pred_label`: (P,) int64."""
        return np.searchsorted(self.pred_label, self.pred)

    @cached_property
    def truth_row(self) -> Ints:
        """Row of each pair's true nucleus in `truth_label`: (P,) int64."""
        return np.searchsorted(self.truth_label, self.truth)

    @cached_property
    def union_px(self) -> Ints:
        """Pixels that either nucleus of each pair has: (P,) int64."""
        return self.pred_px[self.pred_row] + self.truth_px[self.truth_row] - self.shared_px

    def iou(self) -> Floats:
        """Intersection over union of each pair: (P,) float64 in (0, 1]."""
        return self.shared_px / self.union_px


def overlap(pred: LabelImage, truth: LabelImage) -> Overlap:
    """The sparse overlap of two label images (Y, X) of one shape, read by bands of rows.

    :raises ValueError: the shapes differ, or a label is negative.
    """
    if tuple(pred.shape) != tuple(truth.shape):
        raise ValueError(f"Label images of shapes {pred.shape} and {truth.shape} cannot be compared.")
    rows = max(1, BAND_PX // max(1, int(np.prod(pred.shape[1:]))))
    starts = range(0, pred.shape[0], rows)
    bands = [_pairs(np.asarray(pred[y : y + rows]), np.asarray(truth[y : y + rows])) for y in starts]
    none = np.zeros((3, 0), np.int64)
    p, t, shared = _summed(*np.concatenate([none, *bands], axis=1))
    if min(p.min(initial=0), t.min(initial=0)) < 0:
        raise ValueError(
            "A label image holds numbers below 0 or above 2^63; labels are whole numbers from 1, 0 is background."
        )
    both = (p > 0) & (t > 0)
    return Overlap(p[both], t[both], shared[both], *_areas(p, shared), *_areas(t, shared))


def nuclei(labels: LabelImage) -> int:
    """How many nuclei a label image (Y, X) has, read by bands of rows."""
    nothing = np.broadcast_to(np.uint8(0), tuple(labels.shape))
    return len(overlap(nothing, labels).truth_label)


def areas(labels: Labels) -> dict[int, int]:
    """Pixels of each nucleus, by label, ascending; background left out."""
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _pairs(pred: Labels, truth: Labels) -> Ints:
    """Distinct pairs of values (background too) and their pixels: (3, P) int64, sorted."""
    p, t = pred.ravel(), truth.ravel()
    if not p.size:
        return np.zeros((3, 0), np.int64)
    # Runs of equal pairs first: there are far fewer of them to sort than pixels.
    start = np.concatenate([[0], np.flatnonzero((p[1:] != p[:-1]) | (t[1:] != t[:-1])) + 1])
    return _summed(p[start].astype(np.int64), t[start].astype(np.int64), np.diff(start, append=p.size))


def _summed(p: Ints, t: Ints, px: Ints) -> Ints:
    """Pairs with their pixels added up: (3, P) int64, sorted by (p, t)."""
    order = np.lexsort((t, p))
    p, t = p[order], t[order]
    first = np.flatnonzero(np.concatenate([[True], (p[1:] != p[:-1]) | (t[1:] != t[:-1])])[: len(p)])
    total = np.add.reduceat(px[order], first) if len(first) else px[:0]
    return np.stack([p[first], t[first], total]).astype(np.int64)


def _areas(label: Ints, px: Ints) -> tuple[Ints, Ints]:
    """Every label above 0 in ascending order, and the sum of its pixels."""
    found, _, total = _summed(label, np.zeros_like(label), px)
    return found[found > 0], total[found > 0]
