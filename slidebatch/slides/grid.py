"""The plan's grid: which level of a slide a network sees, at what step, and reading it window by window.

    level pixels   |0|1|2|3|4|5|6|7|...      step 2.5: plan pixel i covers
    plan pixels    |  0  |  1  |  2  |...    level pixels [2.5 i, 2.5 (i + 1))

The grid hangs on the slide's origin and every plan pixel is a fixed sum of level pixels that its own index
names, added up in a fixed order: any window gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.slides.facts import Level
from slidebatch.slides.slide import Slide

SAME_WITHIN = 1.25  # a network takes pixels up to this much larger or smaller than it was trained on
EXACT_WITHIN = 1.001  # a stated scale that a level meets this closely takes the level's own pixels
BAND_PX = 2**22  # level pixels held at once while resampling, all channels together


@dataclass(frozen=True)
class Grid:
    """Where plan pixels lie on a slide.

    level    level of the slide that is read
    step     level pixels per plan pixel; 1: the level's own pixels
    shape    (Y, X) in plan pixels: as many whole plan pixels as the level holds
    scale    plan pixels per level-0 pixel
    assumed  nobody says how large the pixels are, and they were taken as the model's
    """

    level: int
    step: float
    shape: tuple[int, int]
    scale: float
    assumed: bool = False

    @property
    def level0_per_px(self) -> float:
        """Level-0 pixels per plan pixel."""
        return 1.0 / self.scale


def pick_grid(slide: Slide, model_mpp: float | None, scale: float | None, name: str) -> Grid:
    """The grid on which a network sees a slide.

    model_mpp  micrometres per pixel that the network was trained at; None: it does not care
    scale      plan pixels per level-0 pixel as the user states it: the confirmation, used as it is
    name       of the slide, for messages
    errors     InputError where the pixel size is unknown and cannot be assumed (a slide with a pyramid, or of
               a scanner), or where even level 0 is more than 25 % coarser than the network expects
    """
    if scale is not None:
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"slide {name}: input.scale is {scale}, expected a number above 0")
        return _resampled(slide, 1.0 / scale, EXACT_WITHIN, name)
    if model_mpp is None:
        return _own_pixels(slide, 0)
    if slide.mpp is not None:
        return _matching(slide, slide.mpp, model_mpp, name)
    if slide.vendor or slide.pyramid:
        raise InputError(
            f"slide {name}: nobody says how large its pixels are, the model expects {model_mpp:g} um; "
            "set input.mpp (micrometres per level-0 pixel) or input.scale"
        )
    return _own_pixels(slide, 0, assumed=True)


def _matching(slide: Slide, mpp: float, model_mpp: float, name: str) -> Grid:
    if mpp > SAME_WITHIN * model_mpp:
        raise InputError(
            f"slide {name}: its finest pixels are {mpp:g} um, over 25 % coarser than the {model_mpp:g} um that "
            f"the model expects; set input.scale (such as {mpp / model_mpp:.3g}, which enlarges them) to "
            "confirm, or take another model"
        )
    return _resampled(slide, model_mpp / mpp, SAME_WITHIN, name)


def _resampled(slide: Slide, level0_per_px: float, within: float, name: str) -> Grid:
    # The closest level where it is close enough, otherwise down from the coarsest level that is still finer.
    steps = [level.step_px for level in slide.levels]
    off = [abs(math.log(step / level0_per_px)) for step in steps]
    closest = off.index(min(off))
    if off[closest] <= math.log(within) + 1e-9:
        return _own_pixels(slide, closest)
    finer = [i for i, step in enumerate(steps) if step <= level0_per_px]
    level = max(finer, default=0, key=steps.__getitem__)
    step = level0_per_px / steps[level]
    height, width = (math.floor(size / step + 1e-9) for size in slide.levels[level].shape)
    if not height or not width:
        found = f"slide {name}: smaller than one pixel at scale {1 / level0_per_px:g}"
        raise InputError(f"{found}, expected at least one; raise input.scale")
    return Grid(level, step, (height, width), 1.0 / level0_per_px)


def _own_pixels(slide: Slide, level: int, assumed: bool = False) -> Grid:
    there: Level = slide.levels[level]
    return Grid(level, 1.0, there.shape, 1.0 / there.step_px, assumed)


def read_grid(slide: Slide, grid: Grid, box: Box, channels: Sequence[int] | None = None) -> npt.NDArray[Any]:
    """Pixels of a box of the plan's grid.

    box      in plan pixels, inside `grid.shape` (else ValueError); an empty box gives an empty array
    returns  (C, Y, X) C-order array of the slide's dtype (resampled pixels are rounded to it)
    errors   as `Slide.read`

    Downsampling weighs level pixels with a triangle as wide as two steps (so nothing aliases), upsampling
    is linear; pixels beyond the level's edge repeat the edge. Bit-identical for any window.
    """
    if not whole(grid.shape).contains(box):
        raise ValueError(f"box {box.tuple()} reaches out of the grid of {grid.shape} px")
    if grid.step == 1.0:
        return slide.read(box, grid.level, channels)
    count = len(slide.channels) if channels is None else len(channels)
    out = np.empty((count, *box.shape), slide.dtype)
    if out.size:
        for rows in _bands(box, grid.step, count):
            out[(slice(None), *rows.slices(box))] = _resample(slide, grid, rows, channels)
    return out


def _bands(box: Box, step: float, channels: int) -> list[Box]:
    level_width = (box.width + 2) * max(step, 1.0)
    rows = max(1, int(BAND_PX / (level_width * max(step, 1.0) * channels)))
    return [Box(y, box.x0, min(y + rows, box.y1), box.x1) for y in range(box.y0, box.y1, rows)]


def _resample(slide: Slide, grid: Grid, box: Box, channels: Sequence[int] | None) -> npt.NDArray[Any]:
    height, width = slide.levels[grid.level].shape
    rows, row_weights = _taps(box.y0, box.y1, grid.step, height)
    columns, column_weights = _taps(box.x0, box.x1, grid.step, width)
    source = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    pixels = slide.read(source, grid.level, channels)
    out = np.empty((len(pixels), *box.shape), slide.dtype)
    for channel, image in enumerate(pixels):
        tall = _blend(image.astype(np.float32), rows - source.y0, row_weights)  # (Y, x)
        done = _blend(np.ascontiguousarray(tall.T), columns - source.x0, column_weights).T  # (Y, X)
        out[channel] = done if slide.dtype.kind == "f" else np.rint(done)
    return out


def _taps(first: int, last: int, step: float, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For plan pixels first..last-1: (N, K) indices of level pixels and their (N, K) weights, sum 1."""
    centre = (np.arange(first, last) + 0.5) * step - 0.5
    reach = max(step, 1.0)
    index = np.floor(centre - reach).astype(np.intp)[:, None] + 1 + np.arange(math.ceil(2 * reach))
    weight = np.maximum(0.0, 1.0 - np.abs(index - centre[:, None]) / reach)
    total = np.zeros(len(weight))
    for k in range(weight.shape[1]):  # in this order for every window; numpy's sum picks its own
        total += weight[:, k]
    return np.clip(index, 0, size - 1), (weight / total[:, None]).astype(np.float32)


def _blend(
    image: npt.NDArray[np.float32], index: npt.NDArray[np.intp], weight: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(n, m) -> (N, m): row i is the sum over k, in order, of weight[i, k] * image[index[i, k]]."""
    out = image[index[:, 0]]
    out *= weight[:, :1]
    for k in range(1, index.shape[1]):
        part = image[index[:, k]]
        part *= weight[:, k : k + 1]
        out += part
    return out
