"""Stage infer: networks on patches, each patch exactly once per slide.

A task of `infer` owns blocks of whole cells. It runs the network on the patch around every cell that may hold
nuclei in tissue, and keeps the cell of each answer. Pixels beyond the slide are mirrored. What dense networks
leave is made in `classmaps`; here are the patches of both families, and what detectors leave.
"""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial

import numpy as np
import numpy.typing as npt

from slidebatch.ahead import ahead
from slidebatch.geometry import Box, whole
from slidebatch.job import Job, Made
from slidebatch.models.protocol import Detections, Place
from slidebatch.overlaps import overlaps
from slidebatch.plan import Plan, SlidePlan
from slidebatch.slides import read_grid
from slidebatch.store import write_shard
from slidebatch.tiling import Shape, mirror_index, parts


def infer_detections(job: Job, number: int, block: Box) -> Made:
    """Run a detector on a block; a detection counts where its centre lies in the cell grown by the slack.

    One patch at a time, because a detector's batch mates change its answer; on a GPU the next ones are read meanwhile.
    """
    plan, cells = job.plan, live_cells(job, number, block)
    kept, spent = [_empty_detections()], {"network_s": 0.0, "wait_s": 0.0}
    boxes = [plan.patches.patch_box(cell) for cell in cells]
    began = time.perf_counter()
    with closing(ahead(partial(read_patch, job, number), boxes, overlaps(plan.device).reads)) as patches:
        for cell, box, patch in zip(cells, boxes, patches, strict=True):
            ready = time.perf_counter()
            [found] = job.model.detect(patch[None], [Place(job.at(number).slide, box)])  # type: ignore[union-attr]
            kept.append(centred(found, cell.grow(plan.decode.slack_px), job.at(number).shape))
            spent["wait_s"] += ready - began
            began = time.perf_counter()
            spent["network_s"] += began - ready
    kept = [d for d in kept if len(d)] or kept
    arrays = {n: np.concatenate([getattr(d, n) for d in kept]) for n in ("box", "score", "mask")}
    path = job.detections(number, block)
    write_shard(path, arrays, plan.card.digest)
    return Made((path,), nuclei=len(arrays["box"]), facts={**fed(plan, cells), **spent})


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


def fed(plan: Plan, cells: list[Box]) -> dict[str, int]:
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
