"""Measuring a whole image at once, or cut into bands and windows, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import regionprops

from slidebatch.geometry import Box, whole
from slidebatch.measurements import Band, Nuclei, Recipe, columns_of, tally

Columns = dict[str, npt.NDArray[Any]]


def blobs(shape: tuple[int, int], rng: np.random.Generator, kinds: int = 12) -> npt.NDArray[np.uint32]:
    """Labels of every shape: lines, single pixels, pieces far apart under one label, holes, touching neighbours."""
    labels = np.zeros(shape, np.uint32)
    for label in range(1, kinds + 1):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        h, w = rng.integers(1, [max(2, shape[0] // 2), max(2, shape[1] // 2)])
        part = labels[y : y + h, x : x + w]
        part[rng.random(part.shape) < rng.choice([0.3, 0.9, 1.0])] = label
    return labels


def nuclei_of(labels: npt.NDArray[Any]) -> Nuclei:
    """All nuclei of a label image with their boxes."""
    found = regionprops(labels.astype(np.int64))
    boxes = np.array([p.bbox for p in found], np.int32).reshape(-1, 4)
    return Nuclei(np.array([p.label for p in found], np.int64), boxes)


def some_of(nuclei: Nuclei, rows: Sequence[int]) -> Nuclei:
    return Nuclei(nuclei.label[list(rows)], nuclei.box[list(rows)])


def bands_of(
    labels: npt.NDArray[Any], image: npt.NDArray[Any], recipe: Recipe, window: Box, cuts: Sequence[int] = ()
) -> Iterator[Band]:
    """The bands of a window, cut at the given rows; what lies outside the window is blank to them."""
    halo = recipe.halo_px
    seen = labels[window.slices()].astype(np.uint32)
    padded = np.pad(seen, ((halo, halo), (0, 0)))
    pixels = image[(slice(None), *window.slices())]
    inner = sorted({c for c in cuts if 0 < c < len(seen)})
    for y0, y1 in pairwise([0, *inner, len(seen)]):
        part = np.ascontiguousarray(pixels[:, y0:y1])
        halved = np.ascontiguousarray(padded[y0 : y1 + 2 * halo])
        yield Band(window.y0 + y0, window.x0, halved, part, part if recipe.stains else None)


def measured(
    labels: npt.NDArray[Any], image: npt.NDArray[Any], recipe: Recipe, mpp: float | None = None
) -> tuple[Nuclei, Columns]:
    """All nuclei of an image, measured in one piece."""
    nuclei = nuclei_of(labels)
    found = tally(bands_of(labels, image, recipe, whole((labels.shape[0], labels.shape[1]))), nuclei, recipe)
    return nuclei, columns_of(found, mpp)


def window_of(nuclei: Nuclei, recipe: Recipe, shape: tuple[int, int]) -> Box:
    """The smallest window that measures these nuclei rightly."""
    low, high = nuclei.box[:, :2].min(axis=0), nuclei.box[:, 2:].max(axis=0)
    box = Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    return box.grow(2 * recipe.reach_px).clip(whole(shape))
