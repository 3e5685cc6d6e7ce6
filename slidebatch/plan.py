"""The plan of a run as frozen values: which slides, which grids, which tasks, and what each depends on.

A plan is built and checked by `slidebatch.planning`, stored once as `work/plan.json`, and read by every
worker; tasks are named by stage and number alone, so that only small messages travel.

Stages, in order; a stage starts when the one before has ended:

    prepare   per slide    statistics for normalisation, tissue mask
    maps      per slide    lays out the class maps (dense networks)
    infer     per block    networks: class maps or detections, each patch once
    maps2, infer2 ...      the same of an ensemble's second member, and so on
    decode    per tile     nuclei that the tile answers for
    seams     per slide    joins what tiles cut, gives ids, lays out the label images
    paint     per region   labels (and the image's copy), with the lower levels that the region owns
    pyramid4, pyramid5 ... per region of each level below those, where a slide is so large
    measure   per region   rows of the table of nuclei
    table     per slide    one table per slide
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from ensemble.calibrate import Calibration
from slidebatch.decode import DecodeSpec
from slidebatch.fusion import FusionSpec
from slidebatch.geometry import Box, whole
from slidebatch.measurements import Recipe
from slidebatch.models.protocol import Card
from slidebatch.models.spec import ModelSpec
from slidebatch.normalise import NormaliseSpec
from slidebatch.slides import Grid
from slidebatch.slides.source import Source
from slidebatch.store import OutputSpec, read_json, write_atomically
from slidebatch.tiling import PatchGrid, Shape, TileGrid, grid_shape, parts
from slidebatch.tissue import TissueSpec

FORMAT = 1
"""Part of every fingerprint; raised whenever the same plan would give other results."""

BUNDLE_PX = {
    "prepare": 16e6,
    "infer": 1.5e6,
    "decode": 4e6,
    "seams": 16e6,
    "paint": 16e6,
    "measure": 16e6,
    "table": 16e6,
}
"""Small slides share a task up to this many pixels: a task must be worth its overhead."""

GPU_BUNDLE_PX = 128e6
"""Pixels fed that blocks share a task up to on a GPU: enough for several full batches, so that it seldom waits."""


NOTHING = Recipe((), ())
"""What plans of earlier versions say of measurements; they are still read, for their class maps."""


@dataclass(frozen=True)
class SlidePlan:
    """One slide (or field) of the plan. Shapes and boxes are in pixels of its grid.

    digest     of the source files
    channels   indices of the channels that the network sees
    names      names of all channels of the source, for the table and the image's copy
    group      whose statistics normalise it: the slide's own id, or its plate's
    tissue     whether only tissue is processed
    labels     group of the label image inside labels.zarr
    image      group of the image's copy inside labels.zarr, or None
    regions    GeoJSON file that restricts the slide, or None; `regions_digest` of its content
    measured   indices of the channels whose intensities are measured
    recipe     what is measured of its nuclei
    """

    source: Source
    digest: str
    grid: Grid
    channels: tuple[int, ...]
    names: tuple[str, ...]
    rgb: bool
    dtype: str
    mpp: float | None
    group: str
    tissue: bool
    labels: str
    image: str | None
    regions: str | None
    regions_digest: str | None
    measured: tuple[int, ...] = ()
    recipe: Recipe = NOTHING

    @property
    def slide(self) -> str:
        return self.source.slide

    @property
    def shape(self) -> Shape:
        return self.grid.shape

    @property
    def mpp_plan(self) -> float | None:
        """Micrometres per pixel of the plan's grid."""
        return None if self.mpp is None else self.mpp / self.grid.scale

    def levels(self, least_px: int = 512) -> int:
        """How many lower levels the label image has: until its longer side is at most `least_px`."""
        longest, levels = max(self.shape), 0
        while longest > least_px:
            longest, levels = -(-longest // 2), levels + 1
        return levels


@dataclass(frozen=True)
class Item:
    """A part of a task: a box of a slide (by its number in the plan)."""

    slide: int
    box: Box


@dataclass(frozen=True)
class Task:
    """What one call of a stage's function does."""

    stage: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Member:
    """A network of an ensemble: how it runs, and what becomes of its output. The fields are those of a `Plan`.

    weight       in means and votes
    calibration  from its scores to the overlap to expect, or None
    """

    name: str
    model: ModelSpec
    card: Card
    patches: PatchGrid
    block_cells: int
    decode: DecodeSpec
    weight: int = 1
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Plan:
    """Everything a worker must know. `z` is an index or "max"; `device` what `auto` became.

    members   of an ensemble; `card` then tells of them together, `model`, `patches` and `block_cells` are the first's
    fusion    how they become one; None: one network runs
    scratch   folder of each node for copies of images, environment variables in it not filled in; None: no copies
    bundle    whether small slides and tiles share tasks
    """

    name: str
    slides: tuple[SlidePlan, ...]
    model: ModelSpec
    card: Card
    device: str
    patches: PatchGrid
    block_cells: int
    tiles: TileGrid
    decode: DecodeSpec
    tissue: TissueSpec
    normalise: NormaliseSpec
    output: OutputSpec
    z: int | Literal["max"]
    attempts: int
    largest_px: int
    scratch: str | None = None
    bundle: bool = True
    members: tuple[Member, ...] = ()
    fusion: FusionSpec | None = None

    def of(self, member: int) -> Plan:
        """The plan of a run of this one member alone; of a run without an ensemble, the plan."""
        if not self.members:
            return self
        own = self.members[member]
        return replace(
            self,
            model=own.model,
            card=own.card,
            patches=own.patches,
            block_cells=own.block_cells,
            decode=own.decode,
            members=(),
            fusion=None,
        )

    @property
    def joins_maps(self) -> bool:
        """Whether tiles are decoded from one stack of class maps: of a dense network, or the mean of several."""
        return self.card.family == "dense"

    @property
    def stages(self) -> list[str]:
        """Names of the stages in order."""
        deepest = max((s.levels() for s in self.slides), default=0)
        pyramid = [f"pyramid{level}" for level in range(self.output.owned_levels + 1, deepest + 1)]
        networks = [stage for k in range(max(1, len(self.members))) for stage in _network_stages(self.of(k).card, k)]
        return ["prepare", *networks, "decode", "seams", "paint", *pyramid, "measure", "table"]

    @property
    def block(self) -> Shape:
        """Shape of the block of cells that one infer task owns, in pixels."""
        return self.patches.cell[0] * self.block_cells, self.patches.cell[1] * self.block_cells

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each slide by its id."""
        return {s.slide: i for i, s in enumerate(self.slides)}

    def tasks(self, stage: str) -> list[Task]:
        """The tasks of a stage, in a fixed order."""
        kind, member = network_of(stage)
        budget = BUNDLE_PX.get(kind, BUNDLE_PX["paint"])
        if kind == "infer" and self.device != "cpu":
            budget = GPU_BUNDLE_PX
        if not self.bundle:
            budget = 0
        cost = self.of(member)._fed_px if kind == "infer" else _area_px
        return [Task(stage, items) for items in _bundles(self._items(stage), cost, budget)]

    def _fed_px(self, item: Item) -> int:
        """Pixels that a network is fed for a block: an edge's narrow cell costs as much as any."""
        rows, columns = grid_shape(item.box.shape, self.patches.cell)
        return rows * columns * self.patches.patch[0] * self.patches.patch[1]

    def _items(self, stage: str) -> Iterator[Item]:
        for number, slide in enumerate(self.slides):
            for box in self.boxes(stage, slide):
                yield Item(number, box)

    def boxes(self, stage: str, slide: SlidePlan) -> list[Box]:
        """The parts of a slide that a stage works on, in raster order."""
        kind, member = network_of(stage)
        if kind == "infer":
            return parts(slide.shape, self.of(member).block)
        if stage == "decode":
            return parts(slide.shape, (self.tiles.core_px, self.tiles.core_px))
        if stage in {"paint", "measure"}:
            return parts(slide.shape, self._region())
        if stage.startswith("pyramid"):
            level = int(stage.removeprefix("pyramid"))
            return parts(level_shape(slide.shape, level), self._region()) if level <= slide.levels() else []
        return [whole(slide.shape)]

    def _region(self) -> Shape:
        return self.output.shard_px, self.output.shard_px


def _network_stages(card: Card, member: int) -> list[str]:
    """The stages of a network: the first one's have no number."""
    number = "" if member == 0 else str(member + 1)
    return [f"{kind}{number}" for kind in (("maps", "infer") if card.family == "dense" else ("infer",))]


def network_of(stage: str) -> tuple[str, int]:
    """What kind of stage it is, and of which member, counted from 0.

    >>> network_of("infer"), network_of("maps2"), network_of("pyramid4")
    (('infer', 0), ('maps', 1), ('pyramid4', 0))
    """
    named = re.fullmatch(r"(maps|infer)(\d*)", stage)
    return (named[1], int(named[2] or 1) - 1) if named else (stage, 0)


def level_shape(shape: Shape, level: int) -> Shape:
    """Shape of a lower level of a label image: halved, rounded up, `level` times."""
    for _ in range(level):
        shape = -(-shape[0] // 2), -(-shape[1] // 2)
    return shape


def _area_px(item: Item) -> int:
    return item.box.area


def _bundles(items: Iterable[Item], cost_px: Callable[[Item], int], budget_px: float) -> Iterator[tuple[Item, ...]]:
    """Consecutive items packed until the next would pass the budget; a large one stands alone."""
    bundle: list[Item] = []
    total = 0
    for item in items:
        if bundle and total + cost_px(item) > budget_px:
            yield tuple(bundle)
            bundle, total = [], 0
        bundle.append(item)
        total += cost_px(item)
    if bundle:
        yield tuple(bundle)


PLAN = TypeAdapter(Plan)


def write_plan(work: Path, plan: Plan) -> None:
    """Store the plan where the workers look for it."""
    write_atomically(work / "plan.json", PLAN.dump_json(plan, indent=1), durable=True)


def read_plan(work: Path) -> Plan:
    """The stored plan."""
    return PLAN.validate_json((work / "plan.json").read_bytes())


def read_normalisation(work: Path) -> dict[str, Any]:
    """The stored windows by group, as JSON values; none before the prepare stage has ended."""
    try:
        value: dict[str, Any] = read_json(work / "normalisation.json")
    except (FileNotFoundError, ValueError):  # not stored yet, or lost in a power cut
        return {}
    return value
