"""Stages maps and infer: networks on patches, each patch exactly once per slide.

A task of `infer` owns a block of whole cells. It runs the network on the patch around every cell that may hold
nuclei in tissue, and keeps the cell of each answer. Pixels beyond the slide are mirrored. Maps are blank where
no nucleus in tissue can reach, pixel by pixel, so that nothing depends on the cells.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from slidebatch.ahead import ahead
from slidebatch.geometry import Box, whole
from slidebatch.job import Job, Made
from slidebatch.models.protocol import DenseModel, Detections, Place
from slidebatch.plan import Plan, SlidePlan
from slidebatch.slides import read_grid
from slidebatch.store import create_array, write_region, write_shard
from slidebatch.tiling import Shape, mirror_index, parts

READ_AHEAD = 2
"""Batches that are read ahead for a GPU."""

CHUNK_PX = 512
"""Largest chunk of the stored maps, in pixels."""


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
    """Run a dense network on a block and store its class maps."""
    plan = job.plan
    maps = np.zeros((len(plan.card.maps), *block.shape), np.uint8)
    cells = live_cells(job, number, block)
    batches = list(_batches(cells, plan.model.batch_on(plan.device)))
    spent = Spent(_dense(job))
    for batch, found in zip(batches, spent.maps(job, number, batches), strict=True):
        for cell, answer in zip(batch, found, strict=True):
            kept = cell.shift(plan.patches.margin_px, plan.patches.margin_px)
            maps[:, *cell.slices(block)] = answer[:, *kept.slices(cell)]
    mask = job.tissue(number)
    if mask is not None:
        maps *= mask.reach_of(block)
    facts = {**_fed(plan, cells), **spent.facts()}
    return Made(tuple(write_region(job.maps(number), maps, block)), facts=facts)


class Spent:
    """Runs a network on batches and keeps what it cost: seconds in the network, seconds of waiting for patches.

    A GPU gets its next patches read while it computes. On a CPU reading would take the core that the network has.
    """

    def __init__(self, model: DenseModel) -> None:
        self.model, self.network_s, self.wait_s = model, 0.0, 0.0
        self._before = getattr(model, "halvings", 0)

    def maps(self, job: Job, number: int, batches: list[list[Box]]) -> Iterator[npt.NDArray[np.uint8]]:
        """The answers for each batch of cells, in order."""
        depth = 0 if job.plan.device == "cpu" else READ_AHEAD
        began = time.perf_counter()
        for patches, places in ahead(lambda batch: _patches(job, number, batch), batches, depth):
            ready = time.perf_counter()
            found = self.model.maps(patches, places)
            done = time.perf_counter()
            self.wait_s, self.network_s = self.wait_s + ready - began, self.network_s + done - ready
            yield found
            began = time.perf_counter()

    def facts(self) -> dict[str, float]:
        """For the ledger."""
        halvings = getattr(self.model, "halvings", 0) - self._before
        return {"network_s": self.network_s, "wait_s": self.wait_s, "batch_halvings": halvings}


def infer_detections(job: Job, number: int, block: Box) -> Made:
    """Run a detector on a block; a detection counts where its centre lies in the cell grown by the slack."""
    plan, cells = job.plan, live_cells(job, number, block)
    kept = [_empty_detections()]
    for cell in cells:  # one patch at a time: a detector's batch mates change its answer
        patches, places = _patches(job, number, [cell])
        for found in job.model.detect(patches, places):  # type: ignore[union-attr]
            kept.append(centred(found, cell.grow(plan.decode.slack_px), job.at(number).shape))
    kept = [d for d in kept if len(d)] or kept
    arrays = {n: np.concatenate([getattr(d, n) for d in kept]) for n in ("box", "score", "mask")}
    path = job.detections(number, block)
    write_shard(path, arrays, plan.card.digest)
    return Made((path,), nuclei=len(arrays["box"]), facts=_fed(plan, cells))


def live_cells(job: Job, number: int, block: Box) -> list[Box]:
    """The cells of a block that may hold pixels of a nucleus in tissue, in raster order."""
    plan, slide = job.plan, job.at(number)
    mask = job.tissue(number)
    cells = parts(slide.shape, plan.patches.cell, block)
    return [c for c in cells if mask is None or mask.any_in(c)]


def read_patch(job: Job, number: int, box: Box) -> npt.NDArray[np.float32]:
    """A normalised box (C, Y, X) float32 of a slide; it may reach beyond the slide, where it is mirrored."""
    slide = job.at(number)
    rows = mirror_index(box.y0, box.y1, slide.shape[0])
    columns = mirror_index(box.x0, box.x1, slide.shape[1])
    inside = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    image = read_grid(job.open(number), slide.grid, inside, slide.channels)
    if inside != box:
        image = image[:, rows - inside.y0][:, :, columns - inside.x0]
    return job.window(number).apply(image)


def _patches(job: Job, number: int, cells: list[Box]) -> tuple[npt.NDArray[np.float32], list[Place]]:
    boxes = [job.plan.patches.patch_box(c) for c in cells]
    name = job.at(number).slide
    return np.stack([read_patch(job, number, b) for b in boxes]), [Place(name, b) for b in boxes]


def _dense(job: Job) -> DenseModel:
    return job.model  # type: ignore[return-value]


def _batches(cells: list[Box], size: int) -> Iterator[list[Box]]:
    for i in range(0, len(cells), size):
        yield cells[i : i + size]


def _fed(plan: Plan, cells: list[Box]) -> dict[str, int]:
    """Pixels kept and fed, for the ledger."""
    patch = plan.patches.patch
    return {"kept_px": sum(c.area for c in cells), "fed_px": len(cells) * patch[0] * patch[1]}


def centred(found: Detections, box: Box, shape: Shape) -> Detections:
    """The detections whose centres lie in `box`; a centre beyond the slide counts at the slide's edge."""
    middle = (found.box[:, :2].astype(np.float64) + found.box[:, 2:]) / 2
    middle = np.clip(middle, 0, np.array(shape) - 0.5)
    keep = ((middle >= [box.y0, box.x0]) & (middle < [box.y1, box.x1])).all(axis=1)
    return Detections(found.box[keep], found.score[keep], found.mask[keep])


def _empty_detections() -> Detections:
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 28, 28), np.uint8))


def blocks_near(plan: Plan, slide: SlidePlan, box: Box) -> list[Box]:
    """The blocks whose detections may have their centre in `box`."""
    near = box.grow(plan.decode.slack_px + 1).clip(whole(slide.shape))
    block: Shape = plan.block
    return parts(slide.shape, block, near)
