"""Bootstrap intervals: how far a score would move had other groups of images been drawn.

Neighbouring crops of one micrograph are no independent observations, so whole groups are drawn with replacement;
images without groups stand for themselves. Percentile intervals, seeded. Source: Efron & Tibshirani 1993, An
Introduction to the Bootstrap, chapters 8 and 13.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slidebatch.evaluate.tables import Column

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
_MOST_CELLS = 4_000_000
"""Draws times groups that are held at once."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: the table of groups (None: each image is its own), draws, and the seed."""

    groups: Column | None = None
    resamples: int = 2000
    seed: int = 0


def ratio_intervals(over: Floats, under: Floats, groups: Sequence[str], bootstrap: Bootstrap, name: str) -> Floats:
    """95 % intervals of sum(over) / sum(under) over images, for each of M statistics: (M, 2) float64.

    :param over, under: (N, M) float64, a row per image; `under` of ones makes the statistic a mean.
    :param groups: of each image, N names.
    :param name: of what is estimated; with the seed it fixes the draws, so that other estimates change nothing.
    :returns: low and high; NaN where there are fewer than two groups or no draws.
    """
    distinct, row = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    n = len(distinct)
    if n < 2 or bootstrap.resamples < 1:
        return np.full((over.shape[1], 2), np.nan)
    sums = [np.zeros((n, over.shape[1])) for _ in range(2)]
    np.add.at(sums[0], row, over)
    np.add.at(sums[1], row, under)
    drawn = _draw(sums[0], sums[1], np.random.default_rng([bootstrap.seed, zlib.crc32(name.encode())]), bootstrap)
    edges = [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]
    return np.percentile(drawn, edges, axis=0).T


def _draw(over: Floats, under: Floats, rng: np.random.Generator, bootstrap: Bootstrap) -> Floats:
    """The statistics (R, M) of R draws of as many groups as there are (G rows)."""
    n = len(over)
    step = max(1, _MOST_CELLS // n)
    drawn = []
    for first in range(0, bootstrap.resamples, step):
        size = min(step, bootstrap.resamples - first)
        times = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        bottom = times @ under
        # Nothing to find and nothing found is perfect, in a draw as in an image.
        drawn.append(np.where(bottom > 0, times @ over / np.where(bottom > 0, bottom, 1), 1.0))
    return np.concatenate(drawn)
