"""Stage decode, per tile: from stored maps or detections to the nuclei that the tile answers for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slidebatch import instances
from slidebatch.decode import claimed, decode_dense, extract
from slidebatch.geometry import Box
from slidebatch.instances import PIECE, WAITING, Instances
from slidebatch.job import Job, Made
from slidebatch.members import from_detections, from_maps, from_members, survivors
from slidebatch.plan import Plan
from slidebatch.settle import split_settled
from slidebatch.store import write_shard
from slidebatch.tiling import Tile, alone


def decode_tile(job: Job, number: int, core: Box) -> Made:
    """Decode one tile and write its shard of nuclei."""
    plan = job.plan
    tile = plan.tiles.tile(core, job.at(number).shape)
    found = from_maps(job, number, tile) if plan.joins_maps else _settled(job, number, tile)
    path = job.nuclei(number, core)
    write_shard(path, found.arrays(), plan.card.digest)
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


def _settled(job: Job, number: int, tile: Tile) -> Instances:
    """Nuclei that compete: groups that only this tile can judge are settled, all others wait for the seam stage."""
    plan, shape = job.plan, job.at(number).shape
    found = from_members(job, number, tile) if plan.members else from_detections(job, number, tile)
    # What another tile answers for reaches so far into this core, and no farther.
    reach = plan.tiles.halo_px if plan.members else plan.largest_px // 2 + 2
    done = split_settled(found, alone(tile.core, reach, shape))
    rest = found.take(~done)
    waiting = replace(rest, cut=np.where(rest.cut > 0, PIECE, WAITING).astype(np.uint8))
    return instances.concatenate([survivors(found.take(done), plan), waiting])
