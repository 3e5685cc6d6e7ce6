"""Stage decode, per tile: from stored maps or detections to the nuclei that the tile answers for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slidebatch import instances
from slidebatch.decode import claimed, decode_dense, extract
from slidebatch.geometry import Box, whole
from slidebatch.infer import blocks_near, centred
from slidebatch.instances import Instances
from slidebatch.job import Job, Made
from slidebatch.models.protocol import Detections
from slidebatch.paste import paste
from slidebatch.plan import Plan
from slidebatch.settle import in_limits, settle, split_settled
from slidebatch.store import read_shard, region_reader, write_shard
from slidebatch.tiling import Tile


def decode_tile(job: Job, number: int, core: Box) -> Made:
    """Decode one tile and write its shard of nuclei."""
    tile = job.plan.tiles.tile(core, job.at(number).shape)
    found = _from_maps(job, number, tile) if job.plan.card.family == "dense" else _from_detections(job, number, tile)
    path = job.nuclei(number, core)
    write_shard(path, found.arrays(), job.plan.card.digest)
    return Made((path,), nuclei=len(found))


def load_compiled(plan: Plan) -> None:
    """Have the compiled code of a dense network's tiles loaded now, not within the first tile: decode a spot."""
    side = plan.tiles.core_px // 8
    core = Box(0, 0, side, side)
    tile = Tile(core, core, core)
    maps = np.zeros((len(plan.card.maps), side, side), np.uint8)
    maps[0, 1 : side // 2, 1 : side // 2] = 255
    found = extract(decode_dense(maps, tile.read, plan.decode), tile.valid, plan.decode)
    claimed(found, tile, plan.tiles, (side, side))


def _from_maps(job: Job, number: int, tile: Tile) -> Instances:
    plan, shape = job.plan, job.at(number).shape
    maps = region_reader(job.maps(number))(tile.read)
    found = extract(decode_dense(maps, tile.read, plan.decode), tile.valid, plan.decode)
    return claimed(found, tile, plan.tiles, shape)


def _from_detections(job: Job, number: int, tile: Tile) -> Instances:
    """Detections centred in the core; those that only this tile can judge are settled, others marked cut."""
    plan, slide = job.plan, job.at(number)
    shards = [read_shard(job.detections(number, b)) for b in blocks_near(plan, slide, tile.core)]
    parts = [centred(Detections(s["box"], s["score"], s["mask"]), tile.core, slide.shape) for s in shards]
    pasted = instances.concatenate([paste(d, whole(slide.shape)) for d in parts])
    found = in_limits(pasted, plan.decode, plan.largest_px)
    safe = _safe(tile, plan.largest_px, slide.shape)
    done = split_settled(found, safe)
    settled = settle(found.take(done), plan.decode.iou_threshold)
    rest = found.take(~done)
    return instances.concatenate([settled, replace(rest, cut=np.ones(len(rest), np.uint8))])


def _safe(tile: Tile, largest_px: int, shape: tuple[int, int]) -> Box:
    """The part of the core that no detection centred in another core can reach."""
    reach, core = largest_px // 2 + 2, tile.core
    return Box(
        core.y0 + reach if core.y0 > 0 else 0,
        core.x0 + reach if core.x0 > 0 else 0,
        core.y1 - reach if core.y1 < shape[0] else core.y1,
        core.x1 - reach if core.x1 < shape[1] else core.x1,
    )
