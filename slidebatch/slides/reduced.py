"""A small picture of a whole slide for statistics (tissue, contrast), in memory that does not grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.geometry import Box
from slidebatch.slides.slide import Slide

BLOCK_PX = 2048  # side of the parts that are read and reduced
READERS = 2  # parts under way at once: while one waits for the disk, another is decoded


def overview(
    slide: Slide, channels: Sequence[int] | None = None, most_px: int = 1_000_000
) -> tuple[npt.NDArray[np.float32], float]:
    """The slide reduced to at most `most_px` pixels a channel.

    Taken from the smallest level with at least a quarter of `most_px` pixels (level 0 if none has), reduced
    by the mean over blocks of f x f level pixels; a block that the edge cuts is the mean of what there is, and
    so is one with NaN or infinite pixels (a block of nothing else is NaN).

    returns  (C, y, x) float32 in the slide's own values, and the level-0 pixels per overview pixel
    errors   as `Slide.read`; ValueError for `most_px` below 1
    """
    if most_px < 1:
        raise ValueError(f"most_px is {most_px}, expected at least 1")
    level = _level(slide, most_px)
    shape = slide.levels[level].shape
    factor = _factor(shape, most_px)
    count = len(slide.channels) if channels is None else len(channels)
    out = np.empty((count, -(-shape[0] // factor), -(-shape[1] // factor)), np.float32)

    def reduce(box: Box) -> None:
        y, x = box.y0 // factor, box.x0 // factor
        part = _block_means(slide.read(box, level, channels), factor)
        out[:, y : y + part.shape[1], x : x + part.shape[2]] = part

    _all(reduce, list(_blocks(shape, factor)))
    return out, factor * slide.levels[level].step_px


def _all(reduce: Callable[[Box], None], boxes: Sequence[Box]) -> None:
    """Every part; a small image is one, for which no thread is started."""
    if len(boxes) == 1:
        return reduce(boxes[0])
    with ThreadPoolExecutor(READERS) as readers:
        for _ in readers.map(reduce, boxes):
            pass


def _level(slide: Slide, most_px: int) -> int:
    areas = [level.shape[0] * level.shape[1] for level in slide.levels]
    enough = [i for i, area in enumerate(areas) if 4 * area >= most_px]
    return min(enough, key=areas.__getitem__, default=0)


def _factor(shape: tuple[int, int], most_px: int) -> int:
    factor = max(1, math.isqrt(shape[0] * shape[1] // most_px))
    while -(-shape[0] // factor) * -(-shape[1] // factor) > most_px:
        factor += 1
    return factor


def _blocks(shape: tuple[int, int], factor: int) -> Iterator[Box]:
    # Whole multiples of the factor, so that no mean straddles two parts.
    side = max(1, BLOCK_PX // factor) * factor
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            yield Box(y, x, min(y + side, shape[0]), min(x + side, shape[1]))


def _block_means(pixels: npt.NDArray[np.generic], factor: int) -> npt.NDArray[np.float32]:
    """(C, Y, X) -> (C, ceil(Y / factor), ceil(X / factor)) means."""
    if factor == 1:
        return pixels.astype(np.float32)
    count: npt.NDArray[Any] = _block_sizes(pixels.shape[1], factor)[:, None] * _block_sizes(pixels.shape[2], factor)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        finite = np.isfinite(pixels)
        pixels, count = np.where(finite, pixels, 0), _sums(finite, factor)
    total = _sums(pixels, factor)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0).astype(np.float32)


def _sums(pixels: npt.NDArray[Any], factor: int) -> npt.NDArray[np.float64]:
    return _every(_every(pixels, factor, axis=1), factor, axis=2)


def _every(pixels: npt.NDArray[Any], factor: int, axis: int) -> npt.NDArray[np.float64]:
    # Sums of runs of `factor`, the last run shorter; adding strided slices is far faster than reduceat.
    shape = list(pixels.shape)
    shape[axis] = -(-shape[axis] // factor)
    total = np.zeros(shape)
    for offset in range(min(factor, pixels.shape[axis])):
        part = pixels[:, offset::factor] if axis == 1 else pixels[:, :, offset::factor]
        target = total[:, : part.shape[1]] if axis == 1 else total[:, :, : part.shape[2]]
        target += part
    return total


def _block_sizes(size: int, factor: int) -> npt.NDArray[np.intp]:
    starts = np.arange(0, size, factor)
    return np.minimum(starts + factor, size) - starts
