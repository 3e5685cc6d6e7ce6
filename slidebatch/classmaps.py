"""Stages maps and infer of dense networks: the class maps of blocks, with reading and storing beside the network.

On a GPU the blocks of a task, of several small slides too, go through the network together: batches are full whatever
their blocks are, the next patches are read by several threads while it computes, and what is finished is stored by
another. Queues are bounded. On a CPU all of it is done in turn, because threads would take the core that the network
has. The answers are the same.
Maps are blank where no nucleus in tissue can reach, pixel by pixel, so that nothing depends on the cells.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.ahead import Behind, ahead
from slidebatch.errors import InputError
from slidebatch.geometry import Box
from slidebatch.infer import fed, live_cells, read_patch
from slidebatch.job import Job, Made
from slidebatch.models.protocol import DenseModel, Place, StreamingModel, streaming
from slidebatch.overlaps import Overlaps, overlaps
from slidebatch.plan import Item
from slidebatch.store import create_array, write_region

CHUNK_PX = 512
"""Largest chunk of the stored maps, in pixels."""

Maps = npt.NDArray[np.uint8]
Fed = tuple[npt.NDArray[np.float32], list[Place]]
"""Patches (N, C, Y, X), and where they lie."""


def create_maps(job: Job, number: int, _: Box) -> Made:
    """Lay out the maps of a slide, in place of any others: (K, Y, X) uint8, one shard per block."""
    plan, slide = job.plan, job.at(number)
    layers = len(plan.card.maps)
    cell = (_chunk(plan.patches.cell[0]), _chunk(plan.patches.cell[1]))
    path = job.maps(number)
    create_array(path, (layers, *slide.shape), "uint8", (layers, *cell), (layers, *plan.block), ("c", "y", "x"))
    return Made((path / "zarr.json",))


def _chunk(cell_px: int) -> int:
    """The largest divisor of a cell that is at most `CHUNK_PX`."""
    return next(cell_px // k for k in range(1, cell_px + 1) if cell_px % k == 0 and cell_px // k <= CHUNK_PX)


def infer_maps(job: Job, number: int, block: Box) -> Made:
    """Run a dense network on a block and store its class maps. InputError where its slide cannot be read."""
    [made] = infer_together(job, [Item(number, block)])
    assert isinstance(made, Made)  # a fault of a lone block is raised
    return made


def infer_together(job: Job, items: Sequence[Item], way: Overlaps | None = None) -> list[Made | InputError]:
    """Run a dense network on several blocks and store their class maps, as `infer_maps` would of each.

    Returns what was made of each block, or why its slide could not be read; other blocks do not mind (where there are
    no others, that is raised). Whatever else is raised comes as it is. Each block is told its share of the seconds, by
    the patches it fed. Empty in, empty out.
    """
    began = time.perf_counter()
    way, blocks, model = way or overlaps(job.plan.device), Blocks(job, items), _dense(job)
    before = model.busy_s, model.halvings
    batches = blocks.batches(job.plan.model.batch_on(job.plan.device))
    with (
        Behind(way.stores) as behind,
        Reader(blocks, model, way.readers) as reader,
        closing(ahead(reader.patches, batches, way.reads)) as patches,
    ):
        blank = deque(blocks.blank())
        each = math.ceil(len(blank) / max(1, len(batches)))  # stored beside the network, not before it
        for batch, answers in zip(batches, model.stream(reader.waited(patches)), strict=True):
            for cell, answer in zip(batch, answers, strict=True):
                if blocks.put(cell, answer):
                    behind.do(partial(blocks.store, cell.item))
            for _ in range(min(each, len(blank))):
                behind.do(partial(blocks.store, blank.popleft()))
        for number in blank:
            behind.do(partial(blocks.store, number))
    spent = {
        "seconds": time.perf_counter() - began,
        "network_s": model.busy_s - before[0],
        "wait_s": reader.wait_s,
        "store_s": behind.waited_s,
    }
    return blocks.made(spent, model.halvings - before[1])


def _dense(job: Job) -> StreamingModel:
    model: DenseModel = job.model  # type: ignore[assignment]
    return streaming(model)


@dataclass(frozen=True)
class Cell:
    """A cell of one of the blocks of a task, by the block's number among them."""

    item: int
    box: Box


class Blocks:
    """The blocks of a task while their maps fill up.

    faults  by the block's number: why its slide cannot be read
    """

    def __init__(self, job: Job, items: Sequence[Item]) -> None:
        self.job, self.items = job, items
        self.faults: dict[int, InputError] = {}
        self._live = [live_cells(job, item.slide, item.box) for item in items]
        self._left = [len(cells) for cells in self._live]
        self._maps: dict[int, Maps] = {}
        self._files: dict[int, list[Path]] = {}

    def batches(self, size: int) -> list[list[Cell]]:
        """All cells in order, up to `size` together; those of slides with other numbers of channels part."""
        cells = [Cell(number, box) for number, boxes in enumerate(self._live) for box in boxes]
        alike = [list(some) for _, some in groupby(cells, lambda cell: len(self.slide(cell).channels))]
        return [some[i : i + size] for some in alike for i in range(0, len(some), size)]

    def slide(self, cell: Cell) -> Any:
        """The slide of a cell, as planned."""
        return self.job.at(self.items[cell.item].slide)

    def blank(self) -> list[int]:
        """Numbers of the blocks that no patch is run for."""
        return [number for number, cells in enumerate(self._live) if not cells]

    def put(self, cell: Cell, answer: Maps) -> bool:
        """Keep a cell of an answer (K, Y, X) to the patch around it; whether its block is complete now."""
        block = self.items[cell.item].box
        if cell.item not in self._maps:
            self._maps[cell.item] = self._empty(block)
        kept = cell.box.shift(self.job.plan.patches.margin_px, self.job.plan.patches.margin_px)
        self._maps[cell.item][:, *cell.box.slices(block)] = answer[:, *kept.slices(cell.box)]
        self._left[cell.item] -= 1
        return self._left[cell.item] == 0

    def store(self, number: int) -> None:
        """Store the maps of a block that is complete, unless it has a fault."""
        item = self.items[number]
        maps = self._maps.pop(number, None)
        if number in self.faults:
            return
        if maps is None:
            maps = self._empty(item.box)
        mask = self.job.tissue(item.slide)
        if mask is not None:
            maps *= mask.reach_of(item.box)
        self._files[number] = write_region(self.job.maps(item.slide), maps, item.box)

    def made(self, spent: dict[str, float], halvings: int) -> list[Made | InputError]:
        """What became of each block; halvings are told by the first."""
        return [
            self.faults[number] if number in self.faults else self._made(number, spent, 0 if number else halvings)
            for number in range(len(self.items))
        ]

    def _made(self, number: int, spent: dict[str, float], halvings: int) -> Made:
        every, own = sum(map(len, self._live)), len(self._live[number])
        share = own / every if every else 1 / len(self.items)
        facts = {**fed(self.job.plan, self._live[number]), **{name: share * s for name, s in spent.items()}}
        return Made(tuple(self._files[number]), facts={**facts, "batch_halvings": halvings})

    def _empty(self, block: Box) -> Maps:
        return np.zeros((len(self.job.plan.card.maps), *block.shape), np.uint8)


class Reader:
    """Reads batches of patches, by several threads or, with 0, by the caller.

    wait_s  seconds for which the network's thread waited for patches
    """

    def __init__(self, blocks: Blocks, model: StreamingModel, threads: int) -> None:
        self.wait_s = 0.0
        self._blocks, self._model = blocks, model
        self._pool = ThreadPoolExecutor(threads) if threads else None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def patches(self, batch: Sequence[Cell]) -> Fed:
        """The patches around cells. One whose slide cannot be read is blank, and its block has the fault."""
        plan = self._blocks.job.plan
        boxes = [plan.patches.patch_box(cell.box) for cell in batch]
        slides = [self._blocks.slide(cell) for cell in batch]
        out = self._model.room((len(batch), len(slides[0].channels), *plan.patches.patch))
        todo = (batch, boxes, out)
        for _ in map(self._read, *todo) if self._pool is None else self._pool.map(self._read, *todo):
            pass
        return out, [Place(slide.slide, box) for slide, box in zip(slides, boxes, strict=True)]

    def waited(self, patches: Iterator[Fed]) -> Iterator[Fed]:
        """The same, with the time taken in which the one who asks has to wait."""
        while True:
            began = time.perf_counter()
            one = next(patches, None)
            self.wait_s += time.perf_counter() - began
            if one is None:
                return
            yield one

    def _read(self, cell: Cell, box: Box, out: npt.NDArray[np.float32]) -> None:
        blocks = self._blocks
        try:
            if cell.item not in blocks.faults:
                out[...] = read_patch(blocks.job, blocks.items[cell.item].slide, box)
                return
        except InputError as error:
            if len(blocks.items) == 1:
                raise
            blocks.faults.setdefault(cell.item, error)
        out[...] = 0
