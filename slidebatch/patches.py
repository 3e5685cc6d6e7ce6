"""Choosing the one patch shape of a run: most kept pixels per second.

A larger patch wastes less on margins; a smaller one wastes less at the edges of small images and keeps the
network's working set in the cache. Small runs go by a rule measured once; large ones time a few shapes.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slidebatch import models
from slidebatch.errors import EnvironmentFault
from slidebatch.geometry import whole
from slidebatch.models.protocol import Card, Model, Place
from slidebatch.models.spec import ModelSpec
from slidebatch.tiling import CELL_STEP_PX, Shape, TilingSpec, ceil_to, fed_px, grid_shape, patch_grid

CELLS_PX = (256, 384, 512, 768, 1024, 1536)
MOST_CELL_PX = 1536
TIMED_FROM_PX = 50_000_000
"""Runs smaller than this are over before timing would have paid."""

MOST_FED = 1.5
"""Pixels fed per pixel kept that a timed shape may cost: beyond, a moment's noise could pick a wasteful one."""

TIMED = 3
"""Shapes that are timed at most: the best by the rule."""

SLOWDOWN = 0.15
"""Share of its speed that the network loses for every doubling of the patch's side beyond 512, on a CPU."""


def margin_px(card: Card, largest_px: int) -> int:
    """A detector's patches overlap by the largest nucleus at least, so that one of them sees each whole."""
    return card.margin_px if card.family == "dense" else max(card.margin_px, largest_px)


def choose_cell(model: ModelSpec, card: Card, device: str, tiling: TilingSpec, shapes: Sequence[Shape]) -> Shape:
    """The cell (y, x) in pixels: from `tiling.patch_px`, or the best of a few for slides of these shapes."""
    margin = ceil_to(margin_px(card, tiling.largest_px), card.stride_px)
    if tiling.patch_px != "auto":
        side = max(ceil_to(tiling.patch_px - 2 * margin, CELL_STEP_PX), CELL_STEP_PX)
        return side, side
    ranked = sorted(candidates(shapes), key=lambda c: _by_rule(c, margin, card, shapes))
    kept = sum(s[0] * s[1] for s in shapes)
    if kept < TIMED_FROM_PX or card.family != "dense":
        return ranked[0]
    thrifty = [c for c in ranked if fed_px(shapes, patch_grid(c, margin, card.stride_px)) <= MOST_FED * kept]
    return _timed(model, card, device, (thrifty or ranked)[:TIMED], shapes)


def candidates(shapes: Sequence[Shape]) -> list[Shape]:
    """Square cells, and the cells that cover the commonest small image exactly or in a few parts."""
    found = {(c, c) for c in CELLS_PX}
    height, width = max(Counter(shapes).items(), key=lambda one: (one[1], one[0]))[0]
    for parts in (1, 2, 3):
        cell = (
            ceil_to(math.ceil(height / parts), CELL_STEP_PX),
            ceil_to(math.ceil(width / parts), CELL_STEP_PX),
        )
        if max(cell) <= MOST_CELL_PX:
            found.add(cell)
    return sorted(found)


def _by_rule(cell: Shape, margin: int, card: Card, shapes: Sequence[Shape]) -> tuple[float, Shape]:
    """Cost of a cell: pixels fed, over the speed that patches of its size reach."""
    grid = patch_grid(cell, margin, card.stride_px)
    side = math.sqrt(grid.patch[0] * grid.patch[1])
    speed = 1 - SLOWDOWN * max(0.0, math.log2(side / 512))
    return fed_px(shapes, grid) / max(speed, 0.3), cell


def _timed(model: ModelSpec, card: Card, device: str, cells: Sequence[Shape], shapes: Sequence[Shape]) -> Shape:
    """The cell with the least projected time, by one warm pass and the better of two timed ones each.

    On a GPU a cell that does not fit its memory in a whole batch is passed over; where none does, it is the smallest.
    """
    network = models.load(model, device)
    cost = {}
    for cell in cells:
        grid = patch_grid(cell, card.margin_px, card.stride_px)
        seconds = _patch_s(network, model.batch_on(device), grid.patch)
        if seconds is not None:
            cost[cell] = seconds * sum(int(np.prod(grid_shape(s, grid.cell))) for s in shapes)
        else:
            network = models.load(model, device)  # with its batch as it was
    del network
    models.give_back(device)  # the workers need it
    return min(cost, key=lambda c: (cost[c], c)) if cost else min(cells)


def _patch_s(network: Model, batch: int, patch: Shape) -> float | None:
    """Seconds that a patch takes in a batch; None where such a batch does not fit the GPU's memory."""
    blank = np.zeros((batch, network.card.channels, *patch), np.float32)
    places = [Place("", whole(patch))] * batch
    before = getattr(network, "halvings", 0)
    try:
        passes = [_pass_s(network, blank, places) for _ in range(3)]
    except EnvironmentFault:
        if before == getattr(network, "halvings", 0) and batch > 1:
            raise  # it was not the memory
        return None
    return None if getattr(network, "halvings", 0) > before else min(passes[1:]) / batch


def _pass_s(network: Model, patch: npt.NDArray[np.float32], places: Sequence[Place]) -> float:
    """Seconds of one forward pass."""
    begun = time.perf_counter()
    network.maps(patch, places)  # type: ignore[union-attr]
    return time.perf_counter() - begun
