"""What the members of an ensemble found, and what becomes of it: for the tiles, and for the seam stage.

A run without an ensemble has one member, itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from slidebatch import instances
from slidebatch.decode import DecodeSpec, claimed, decode_dense, extract
from slidebatch.fusion import fuse, joined_maps
from slidebatch.geometry import Box, whole
from slidebatch.infer import blocks_near, centred
from slidebatch.instances import Instances
from slidebatch.job import Job
from slidebatch.models.protocol import Detections
from slidebatch.paste import paste
from slidebatch.plan import Plan
from slidebatch.settle import in_limits, settle, suppressed
from slidebatch.store import read_shard, region_reader
from slidebatch.tiling import Tile

Maps = Callable[[Box], npt.NDArray[np.uint8]]
"""Reads a window (K, Y, X) of a slide's class maps."""


def read_maps(job: Job, number: int) -> Maps:
    """Class maps of a slide: a network's, or what an ensemble's rule makes of those of its members."""
    readers = [region_reader(view.maps(number)) for view in job.members]
    fusion = job.plan.fusion
    if fusion is None:
        return readers[0]
    weight = [m.weight for m in job.plan.members]
    return lambda box: joined_maps([read(box) for read in readers], weight, fusion)


def from_maps(job: Job, number: int, tile: Tile) -> Instances:
    """The nuclei that a tile answers for, decoded from class maps; some may be pieces."""
    return _decoded(job, number, tile, job.plan.decode)


def _decoded(job: Job, number: int, tile: Tile, spec: DecodeSpec) -> Instances:
    found = extract(decode_dense(read_maps(job, number)(tile.read), tile.read, spec), tile.valid, spec)
    return claimed(found, tile, job.plan.tiles, job.at(number).shape)


def from_detections(job: Job, number: int, tile: Tile) -> Instances:
    """The detections centred in a tile's core that are within the limits, competing as they do."""
    plan, slide = job.plan, job.at(number)
    shards = [read_shard(job.detections(number, b)) for b in blocks_near(plan, slide, tile.core)]
    parts = [centred(Detections(s["box"], s["score"], s["mask"]), tile.core, slide.shape) for s in shards]
    pasted = instances.concatenate([paste(d, whole(slide.shape)) for d in parts])
    return in_limits(pasted, plan.decode, plan.largest_px)


def from_members(job: Job, number: int, tile: Tile) -> Instances:
    """What each member of an ensemble found in a tile, one after another."""
    return instances.concatenate([_of_member(job, k, number, tile) for k in range(len(job.plan.members))])


def _of_member(job: Job, member: int, number: int, tile: Tile) -> Instances:
    view = job.of(member)
    found = _competing(view, number, tile) if view.plan.joins_maps else from_detections(view, number, tile)
    return named(found, job.plan, member)


def _competing(view: Job, number: int, tile: Tile) -> Instances:
    """A dense member's nuclei; the holes of those that some tile may see in pieces stay open.

    Another member's nucleus in such a hole touches none of the pieces, so a tile settles it: it must stay.
    """
    found, spec = from_maps(view, number, tile), view.plan.decode
    wide = _side(found) > view.plan.largest_px
    if not spec.fill_holes or not (wide & (found.cut == 0)).any():
        return found
    unfilled = _decoded(view, number, tile, open_holes(spec))
    return instances.concatenate([found.take(~wide), unfilled.take(_side(unfilled) > view.plan.largest_px)])


def open_holes(spec: DecodeSpec) -> DecodeSpec:
    """The same, but that holes stay open."""
    return spec.model_copy(update={"fill_holes": False})


def _side(found: Instances) -> npt.NDArray[np.int32]:
    """The longer side of each box: (N,)."""
    return np.asarray((found.box[:, 2:] - found.box[:, :2]).max(axis=1, initial=0))


def named(found: Instances, plan: Plan, member: int) -> Instances:
    """A member's nuclei with its number, and scores that can be compared with those of others."""
    calibration = plan.members[member].calibration
    score = found.score if calibration is None else calibration.apply(found.score).astype(np.uint16)
    return replace(found, score=score, member=np.full(len(found), member, np.uint8))


def survivors(found: Instances, plan: Plan) -> Instances:
    """What stays of whole nuclei that compete: of detections of one network, or of all members of an ensemble."""
    if plan.fusion is None:
        return settle(found, plan.decode.iou_threshold)
    parts = [found.take(found.member == k) for k in range(len(plan.members))]
    own = [
        part if m.card.family == "dense" else suppressed(part, m.decode.iou_threshold)
        for part, m in zip(parts, plan.members, strict=True)
    ]
    return fuse(instances.concatenate(own), [m.weight for m in plan.members], plan.fusion)
