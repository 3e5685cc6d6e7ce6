"""Stage seams, once per slide: join what tiles cut, settle what they could not, give ids.

1. Read the shard of every tile. A nucleus that is whole and lies beyond the reach of all other tiles is final.
2. All others are candidates. Dense maps: candidates of different tiles that share a pixel are pieces of one
   nucleus; it is decoded again from the maps in a window of its own, so that it is exactly what one tile
   covering the slide would have found, however large it is. Detections: one greedy non-maximum suppression in
   a fixed total order over all candidates, then each disputed pixel goes to the better one. Ensembles that join
   nuclei: both, member by member, then the ensemble's rule over all candidates.
3. Nuclei outside tissue or the given regions are dropped, by their centre.
4. Ids 1..n follow the first pixel in raster order.

In memory: about 40 bytes a nucleus, and the masks of candidates only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numba import njit

from ensemble import iou, nms
from slidebatch import instances
from slidebatch.decode import DecodeSpec, decode_dense, extract
from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.instances import PIECE, Instances
from slidebatch.job import Job
from slidebatch.members import Maps, named, open_holes, read_maps, survivors
from slidebatch.plan import Plan
from slidebatch.regions import inside, read_regions
from slidebatch.store import read_instances
from slidebatch.tiling import Shape, Tile, TileGrid, alone, centres

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tiles:
    """What the tiles of a slide found: all rows' columns, masks of candidates only.

    start      (T + 1,) int64  first row of each tile's shard
    rows       columns of all rows, without masks (`bits` empty)
    first      (R, 2) int64    first pixel of each row's mask in raster order
    candidate  (K,) int64      rows that other tiles may have seen too
    masks      K nuclei        the candidates with their masks
    tile       (K,) int64      the tile of each candidate
    """

    start: Ints
    rows: Instances
    first: Ints
    candidate: Ints
    masks: Instances
    tile: Ints


@dataclass(frozen=True)
class Seamed:
    """The final nuclei of a slide.

    start, label   which label each row of each tile's shard is painted with, 0 = not painted
    extent         (T, 4) int32, box around the painted nuclei of each tile's shard, all zero where there are none
    joined         nuclei that no shard holds as they are; `joined_label` (J,) their labels
    box, score, member, votes   by label: row i is label i + 1
    counts         numbers for the seam report
    """

    start: Ints
    label: npt.NDArray[np.uint32]
    extent: npt.NDArray[np.int32]
    joined: Instances
    joined_label: npt.NDArray[np.uint32]
    box: npt.NDArray[np.int32]
    score: npt.NDArray[np.uint16]
    member: npt.NDArray[np.uint8]
    votes: npt.NDArray[np.uint8]
    counts: dict[str, int]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """As stored in one shard."""
        joined = {f"joined_{n}": a for n, a in self.joined.arrays().items()}
        columns = ("start", "label", "extent", "joined_label", "box", "score", "member", "votes")
        own = {n: getattr(self, n) for n in columns}
        return {**own, **joined}


def seam_slide(job: Job, number: int) -> Seamed:
    """Join, settle, drop and number the nuclei of a slide."""
    plan, slide = job.plan, job.at(number)
    tiles = plan.tiles.tiles(slide.shape)
    found = gather((read_instances(job.nuclei(number, t.core)) for t in tiles), tiles, plan.tiles, slide.shape)
    if plan.joins_maps:
        replaced, joined = join(found, read_maps(job, number), plan.decode, slide.shape)
    elif plan.members:
        replaced, joined = join_members(job, number, found)
    else:
        replaced, joined = suppress(found, plan)
    wanted = _wanted(job, number, np.concatenate([found.rows.box, joined.box]))
    return number_nuclei(found, replaced, joined, wanted)


def gather(shards: Iterable[Instances], tiles: Sequence[Tile], grid: TileGrid, shape: Shape) -> Tiles:
    """Columns of every tile's shard (in the order of `tiles`), keeping masks of candidates only."""
    tables, firsts, candidates, masks, owner, start = [], [], [], [], [], [0]
    for index, (tile, shard) in enumerate(zip(tiles, shards, strict=True)):
        near = np.flatnonzero((shard.cut > 0) | ~_within(shard.box, alone(tile.core, grid.halo_px, shape)))
        tables.append(_without_masks(shard))
        firsts.append(first_pixels(shard.box, shard.offset, shard.bits))
        candidates.append(near + start[-1])
        masks.append(shard.take(near))
        owner.append(np.full(len(near), index))
        start.append(start[-1] + len(shard))
    return Tiles(
        np.array(start, np.int64),
        instances.concatenate(tables),
        np.concatenate([*firsts, np.zeros((0, 2), np.int64)]),
        np.concatenate([*candidates, np.zeros(0, np.int64)]).astype(np.int64),
        instances.concatenate(masks),
        np.concatenate([*owner, np.zeros(0, np.int64)]).astype(np.int64),
    )


def _within(box: npt.NDArray[np.int32], outer: Box) -> npt.NDArray[np.bool_]:
    low, high = np.array([outer.y0, outer.x0]), np.array([outer.y1, outer.x1])
    return np.asarray(((box[:, :2] >= low) & (box[:, 2:] <= high)).all(axis=1))


def _without_masks(table: Instances) -> Instances:
    return replace(table, offset=np.zeros(len(table) + 1, np.int64), bits=np.zeros(0, np.uint8))


def join(found: Tiles, maps: Maps, spec: DecodeSpec, shape: Shape) -> tuple[Ints, Instances]:
    """Rows that joined nuclei replace, and the joined nuclei (dense maps)."""
    pairs = iou.box_pairs(found.masks.box)
    pairs = pairs[found.tile[pairs[:, 0]] != found.tile[pairs[:, 1]]]
    shared = iou.mask_overlap(found.masks.box, found.masks.offset, found.masks.bits, pairs) > 0
    group = nms.components(len(found.masks), pairs[shared])
    size = np.bincount(group, minlength=1)
    pieces = np.flatnonzero((size[group] > 1) | (found.masks.cut == PIECE)) if len(group) else np.zeros(0, np.int64)
    order = pieces[np.argsort(group[pieces], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []
    joined = [decode_again(found.masks.take(rows), maps, spec, shape) for rows in groups if _small(found, rows, spec)]
    return found.candidate[order], instances.concatenate(joined)


def _small(found: Tiles, rows: Ints, spec: DecodeSpec) -> bool:
    """Whether pieces may belong to a nucleus within the size limit: none alone exceeds it.

    What does (a fold, a pen's mark) would be dropped after it was decoded, which could take the whole slide.
    """
    pieces = found.masks.take(rows)
    return int(iou.mask_area(pieces.box, pieces.offset, pieces.bits).max()) <= spec.max_area_px


def decode_again(pieces: Instances, maps: Maps, spec: DecodeSpec, shape: Shape) -> Instances:
    """The whole nucleus that all pieces belong to: one row, or none if the size or score limits drop it."""
    box = Box(*(int(v) for v in (*pieces.box[:, :2].min(axis=0), *pieces.box[:, 2:].max(axis=0))))
    y, x = (int(v) for v in first_pixels(pieces.box[:1], pieces.offset, pieces.bits)[0])
    while True:
        box = box.clip(whole(shape))
        read = box.grow(spec.reach_px + 1).clip(whole(shape))
        window = decode_dense(maps(read), read, spec)
        only = replace(window, labels=_one_label(window.labels, y - read.y0, x - read.x0))
        if not _leaves(only.labels, box.slices(read)):
            return extract(only, box, spec)
        box = box.grow(max(box.shape))


def _one_label(labels: npt.NDArray[np.int32], y: int, x: int) -> npt.NDArray[np.int32]:
    """Labels with the nucleus at (y, x) as 1 and all others as -1, which is neither nucleus nor hole."""
    mine = labels[y, x]
    return np.where(labels == mine, np.int32(1), np.where(labels > 0, np.int32(-1), np.int32(0)))


def _leaves(labels: npt.NDArray[np.int32], inner: tuple[slice, slice]) -> bool:
    """Whether the nucleus goes on outside the inner box."""
    return int((labels == 1).sum()) > int((labels[inner] == 1).sum())


def suppress(found: Tiles, plan: Plan) -> tuple[Ints, Instances]:
    """Rows that suppression replaces, and what stays of them (detections)."""
    pending = np.flatnonzero(found.masks.cut > 0)
    return found.candidate[pending], survivors(found.masks.take(pending), plan)


def join_members(job: Job, number: int, found: Tiles) -> tuple[Ints, Instances]:
    """Rows that the rule of an ensemble replaces, and what it makes of them: pieces of each member are joined first."""
    plan = job.plan
    whole_ones = []
    for k, member in enumerate(plan.members):
        own = _of_member(found, k)
        if member.card.family == "dense":
            spec = open_holes(member.decode)
            replaced, joined = join(own, read_maps(job.of(k), number), spec, job.at(number).shape)
            whole_ones += [own.masks.take(~np.isin(own.candidate, replaced)), named(joined, plan, k)]
        else:
            whole_ones.append(own.masks)
    return found.candidate, survivors(instances.concatenate(whole_ones), plan)


def _of_member(found: Tiles, member: int) -> Tiles:
    """The same with one member's candidates alone."""
    rows = np.flatnonzero(found.masks.member == member)
    return replace(found, candidate=found.candidate[rows], masks=found.masks.take(rows), tile=found.tile[rows])


def number_nuclei(found: Tiles, replaced: Ints, joined: Instances, wanted: npt.NDArray[np.bool_]) -> Seamed:
    """Drop what is not wanted, then give ids in raster order of first pixels."""
    final = np.ones(len(found.rows), bool)
    final[replaced] = False
    box = np.concatenate([found.rows.box, joined.box])
    first = np.concatenate([found.first, first_pixels(joined.box, joined.offset, joined.bits)])
    keep = np.concatenate([final, np.ones(len(joined), bool)])
    rows = np.flatnonzero(keep & wanted)
    rows = rows[np.lexsort((first[rows, 1], first[rows, 0]))]
    if len(rows) > np.iinfo(np.uint32).max:
        raise InputError(f"{len(rows)} nuclei do not fit the 32 bits of a label; restrict the slide by input.regions")
    label = np.zeros(len(box), np.uint32)
    label[rows] = np.arange(1, len(rows) + 1)
    names = ("score", "member", "votes")
    columns = {n: np.concatenate([getattr(found.rows, n), getattr(joined, n)])[rows] for n in names}
    counts = {
        "seam_candidates": len(found.candidate),
        "seam_pieces": len(replaced),
        "seam_joined": len(joined),
        "outside_tissue": int((keep & ~wanted).sum()),
    }
    split = len(found.rows)
    extent = _extents(found.start, label[:split], found.rows.box)
    return Seamed(found.start, label[:split], extent, joined, label[split:], box[rows], counts=counts, **columns)


def _extents(start: Ints, label: npt.NDArray[np.uint32], box: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The box around the painted rows of each tile: (T, 4)."""
    extent = np.zeros((len(start) - 1, 4), np.int32)
    for tile, (first, last) in enumerate(pairwise(start)):
        painted = box[first:last][label[first:last] > 0]
        if len(painted):
            extent[tile] = (*painted[:, :2].min(axis=0), *painted[:, 2:].max(axis=0))
    return extent


def _wanted(job: Job, number: int, box: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Which nuclei lie in tissue and in the given regions, by the centre of their boxes."""
    slide, mask = job.at(number), job.tissue(number)
    middle = centres(box)
    wanted = np.ones(len(box), bool) if mask is None else mask.at(middle)
    if slide.regions is None or not len(box):
        return wanted
    level0 = (middle + 0.5) / slide.grid.scale
    return wanted & inside(read_regions(slide.regions), level0[:, 0], level0[:, 1])


@njit(nogil=True, cache=True)
def first_pixels(box, offset, bits):
    """The first pixel (y, x) of each packed mask in raster order: (N, 2) int64, slide pixels."""
    first = np.zeros((len(box), 2), np.int64)
    for i in range(len(box)):
        width = np.int64(box[i, 3]) - box[i, 1]
        start = offset[i]
        while start < offset[i + 1] and bits[start] == 0:
            start += 1
        if start == offset[i + 1]:
            continue
        k = (start - offset[i]) * 8
        while not bits[start] & (128 >> (k & 7)):
            k += 1
        first[i, 0], first[i, 1] = box[i, 0] + k // width, box[i, 1] + k % width
    return first
