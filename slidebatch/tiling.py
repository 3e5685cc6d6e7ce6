"""Grids on a slide: cells that networks fill, patches they see, tiles that decoders see.

All grids are anchored at the slide's corner, so that nothing depends on who works on what:

        cell grid (infer)                     tile grid (decode)
    +-------+-------+---            . . . . . . . . . . . .  read  = valid + ring
    |       |       |               .  +-----------------+ .
    | cell  |       |               .  | valid           | .  labels are right in here
    |       |       |               .  |   +---------+   | .
    +-------+-------+---            .  |   |  core   |   | .  cores part the slide
    |  . . . . .    |               .  |   +---------+   | .
    patch = cell + margin           .  +-----------------+ .

Example: a slide 10 px wide, cores of 4 px, gives cores [0, 4), [4, 8), [8, 10).

>>> [b.tuple() for b in parts((4, 10), (4, 4))]
[(0, 0, 4, 4), (0, 4, 4, 8), (0, 8, 4, 10)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from slidebatch.geometry import Box, whole
from slidebatch.spec import Spec

Shape = tuple[int, int]
PatchSide = PositiveInt | Literal["auto"]

CELL_STEP_PX = 64
"""Cells are multiples of this, so that every network's stride divides them."""


class TilingSpec(Spec):
    """How slides are cut. Results do not depend on patches and tiles; time and memory do."""

    patch_px: PatchSide = Field(
        default="auto", description="Side of the patches that networks see, in pixels; auto times a few shapes once."
    )
    core_px: PositiveInt | Literal["auto"] = Field(
        default="auto", description="Side of the tiles that decoders answer for, in pixels."
    )
    largest_px: PositiveInt = Field(
        default=128,
        description="Largest expected nucleus, in pixels: how far beyond tissue networks look, and the largest "
        "detection kept. Larger nuclei of dense maps cost time, not correctness.",
    )
    bundle: bool = Field(
        default=True, description="Small images and tiles share tasks, which saves time; false: each has its own."
    )


def alone(core: Box, reach_px: int, shape: Shape) -> Box:
    """The part of a tile's core that nothing reaches which reaches `reach_px` into it from other cores."""
    return Box(
        core.y0 + reach_px if core.y0 > 0 else 0,
        core.x0 + reach_px if core.x0 > 0 else 0,
        core.y1 - reach_px if core.y1 < shape[0] else core.y1,
        core.x1 - reach_px if core.x1 < shape[1] else core.x1,
    )


def ceil_to(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def grid_shape(shape: Shape, step: Shape) -> Shape:
    """How many boxes of `step` (y, x) cover `shape` (Y, X)."""
    return -(-shape[0] // step[0]), -(-shape[1] // step[1])


def parts(shape: Shape, step: Shape, within: Box | None = None) -> list[Box]:
    """The boxes of a grid of `step` (y, x) that cover `within` (default: all of `shape`), clipped to the slide.

    Raster order. An empty slide has none.
    """
    area = (within or whole(shape)).clip(whole(shape))
    if area.empty:
        return []
    rows = range(area.y0 // step[0] * step[0], area.y1, step[0])
    columns = range(area.x0 // step[1] * step[1], area.x1, step[1])
    return [Box(y, x, y + step[0], x + step[1]).clip(whole(shape)) for y in rows for x in columns]


@dataclass(frozen=True)
class PatchGrid:
    """The one shape of patches of a run: cell (y, x) kept of each, margin thrown away at each side, in pixels."""

    cell: Shape
    margin_px: int

    @property
    def patch(self) -> Shape:
        return self.cell[0] + 2 * self.margin_px, self.cell[1] + 2 * self.margin_px

    def patch_box(self, cell: Box) -> Box:
        """The patch around the cell that starts where `cell` starts; it may reach beyond the slide."""
        return Box(cell.y0, cell.x0, cell.y0 + self.cell[0], cell.x0 + self.cell[1]).grow(self.margin_px)


def patch_grid(cell: Shape, margin_px: int, stride_px: int) -> PatchGrid:
    """A grid whose cells and margins are multiples of the network's stride."""
    return PatchGrid((ceil_to(cell[0], stride_px), ceil_to(cell[1], stride_px)), ceil_to(margin_px, stride_px))


def fed_px(shapes: Sequence[Shape], grid: PatchGrid) -> int:
    """Pixels that a network is fed for slides of these shapes: whole patches, margins included."""
    cells = sum(int(np.prod(grid_shape(s, grid.cell))) for s in shapes)
    return cells * grid.patch[0] * grid.patch[1]


def mirror_index(start: int, stop: int, size: int) -> npt.NDArray[np.int64]:
    """Indices of pixels start..stop-1 on a line of `size` pixels mirrored at its ends (edge pixel repeated).

    Depends on the absolute position alone, so that windows agree with each other.

    >>> mirror_index(-2, 5, 3).tolist()
    [1, 0, 0, 1, 2, 2, 1]
    """
    i = np.arange(start, stop) % (2 * size)
    return np.where(i < size, i, 2 * size - 1 - i)


@dataclass(frozen=True)
class Tile:
    """A decode task's boxes, all inside the slide: it reads `read`, is right in `valid`, answers for `core`."""

    read: Box
    valid: Box
    core: Box


@dataclass(frozen=True)
class TileGrid:
    """Tiles of `core_px` a side with `halo_px` of valid labels around the core and `ring_px` more to read."""

    core_px: int
    halo_px: int
    ring_px: int

    def tiles(self, shape: Shape) -> list[Tile]:
        """All tiles of a slide in raster order; their cores part it."""
        return [self.tile(core, shape) for core in parts(shape, (self.core_px, self.core_px))]

    def core_at(self, number: int, shape: Shape) -> Box:
        """The core of the tile that `tiles` lists at `number`."""
        row, column = divmod(number, grid_shape(shape, (self.core_px, self.core_px))[1])
        y, x = row * self.core_px, column * self.core_px
        return Box(y, x, y + self.core_px, x + self.core_px).clip(whole(shape))

    def tile(self, core: Box, shape: Shape) -> Tile:
        """The tile of one core of a slide of this shape."""
        valid = core.grow(self.halo_px).clip(whole(shape))
        return Tile(valid.grow(self.ring_px).clip(whole(shape)), valid, core)

    def valid_of(self, centre: npt.NDArray[np.int64], shape: Shape) -> npt.NDArray[np.int64]:
        """Valid boxes (N, 4) of the tiles whose cores hold the given pixels (N, 2)."""
        corner = centre // self.core_px * self.core_px
        low = np.maximum(corner - self.halo_px, 0)
        core_end = np.minimum(corner + self.core_px, np.array(shape))
        high = np.minimum(core_end + self.halo_px, np.array(shape))
        return np.concatenate([low, high], axis=1)


def tile_grid(core_px: int, largest_px: int, reach_px: int) -> TileGrid:
    """Tiles whose halo holds the other half of the largest nucleus.

    `reach_px` is how far a decoder looks from a pixel: the ring beyond the valid box, and the least halo.
    """
    return TileGrid(core_px, halo_px=largest_px // 2 + 1 + reach_px, ring_px=reach_px)


def centres(box: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The pixel (N, 2) at the centre of each box (N, 4); the upper left of four."""
    wide = box.astype(np.int64)
    return (wide[:, :2] + wide[:, 2:] - 1) // 2
