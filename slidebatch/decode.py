"""From class maps to nuclei, locally: what a pixel becomes depends only on pixels within `reach_px`.

1. Seeds: 4-connected components of nucleus > seed threshold; components below `min_seed_px` are dropped.
2. Foreground: nucleus + contour > foreground threshold. Each foreground pixel takes the first seed pixel met
   in a fixed list of offsets sorted by (dy^2 + dx^2, dy, dx), at most `grow_px` away. No queue, no watershed:
   their ties depend on the order in which a whole tile is visited.
3. Nuclei: the pixels of one seed component. Holes that no other nucleus fills are closed; nuclei outside the
   size limits are dropped.

The score of a nucleus is its mean foreground probability, as an integer sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit
from pydantic import Field, NonNegativeInt, PositiveInt
from scipy import ndimage

from ensemble.packed import set_bits
from slidebatch import instances
from slidebatch.geometry import Box, whole
from slidebatch.instances import Instances
from slidebatch.spec import Spec
from slidebatch.tiling import Tile, TileGrid, centres

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


class DecodeSpec(Spec):
    """How class maps and detections become nuclei. Thresholds are probabilities, sizes are in plan pixels."""

    seed_threshold: float = Field(
        default=0.5, ge=0, lt=1, description="Nucleus probability above which a pixel is a seed."
    )
    foreground_threshold: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Nucleus + contour probability above which a pixel belongs to some nucleus.",
    )
    grow_px: NonNegativeInt = Field(default=4, le=64, description="How far a foreground pixel may lie from its seed.")
    min_seed_px: PositiveInt = Field(default=4, le=256, description="Smallest seed, in pixels.")
    min_area_px: PositiveInt = Field(default=16, description="Smallest nucleus, in pixels.")
    max_area_px: PositiveInt = Field(default=1_000_000, description="Largest nucleus, in pixels.")
    fill_holes: bool = Field(default=True, description="Close holes inside a nucleus.")
    score_threshold: float = Field(default=0.0, ge=0, le=1, description="Nuclei that score below this are dropped.")
    iou_threshold: float = Field(
        default=0.3, ge=0, le=1, description="Of two detections that overlap more than this, the better stays."
    )
    slack_px: NonNegativeInt = Field(
        default=2, description="A detection counts in a patch if its centre lies in the cell grown by this."
    )

    @property
    def reach_px(self) -> int:
        """How far from a pixel the decoder looks."""
        return self.grow_px + self.min_seed_px


@dataclass(frozen=True)
class Window:
    """Decoded labels of a box: `labels` (Y, X) int32, 0 = background; `score_map` uint8, the foreground map."""

    box: Box
    labels: Labels
    foreground: Bytes


def decode_dense(maps: Bytes, box: Box, spec: DecodeSpec) -> Window:
    """Labels of class maps (K >= 1, Y, X) uint8 (nucleus, contour, ...) that cover `box`.

    Labels number the seeds in raster order of the window. A pixel's partition (which pixels share its label)
    is right where the window reaches `spec.reach_px` beyond it or ends with the slide.
    """
    nucleus = maps[0]
    foreground = nucleus if len(maps) == 1 else _saturated_sum(nucleus, maps[1])
    seeds, n = ndimage.label(nucleus > _level(spec.seed_threshold))
    seeds = seeds.astype(np.int32, copy=False)
    _drop_small(seeds, n, spec.min_seed_px)
    labels = _grow(seeds, foreground, _level(spec.foreground_threshold), _offsets(spec.grow_px))
    return Window(box, labels, foreground)


def extract(window: Window, within: Box, spec: DecodeSpec) -> Instances:
    """The nuclei of a window as far as they lie in `within`, whole ones finished, others marked cut.

    A nucleus is cut when its label also occurs in the window outside `within`. Whole nuclei have had their
    holes closed and passed the size and score limits; cut ones are raw pieces.
    """
    inside = within.slices(window.box)
    n = int(window.labels.max(initial=0))
    if n == 0 or within.empty:
        return instances.none()
    box = _boxes(window.labels[inside], n)
    rows = np.flatnonzero(box[:, 2] > 0)
    cut = _outside(window.labels, inside[0].start, inside[0].stop, inside[1].start, inside[1].stop, n)[rows]
    return _finish(window, within, rows + 1, box[rows], cut, spec)


def label_image(maps: Bytes, spec: DecodeSpec) -> npt.NDArray[np.int32]:
    """The label image (Y, X) int32 that a run makes of a whole image's class maps (K, Y, X) uint8, up to renaming."""
    box = whole(maps.shape[1:])
    found = extract(decode_dense(np.ascontiguousarray(maps), box, spec), box, spec)
    return instances.painted(found, box.shape)


def _finish(
    window: Window, within: Box, label: npt.NDArray[np.int64], box: npt.NDArray[np.int32], cut: Bytes, spec: DecodeSpec
) -> Instances:
    """Fill, measure, filter and pack the nuclei `label`, whose boxes start from the corner of `within`."""
    inside = within.slices(window.box)
    offset = instances.offsets(box)
    labels, foreground = window.labels[inside], window.foreground[inside]
    bits, area, total = _pack(labels, foreground, label, box, offset, cut, spec.fill_holes)
    score = (total * (instances.SCORE_MAX // 255)) // np.maximum(area, 1)
    good = (area >= spec.min_area_px) & (area <= spec.max_area_px)
    good &= score >= round(spec.score_threshold * instances.SCORE_MAX)
    found = Instances(
        box=(box + np.array([within.y0, within.x0, within.y0, within.x0])).astype(np.int32),
        score=score.astype(np.uint16),
        member=np.zeros(len(box), np.uint8),
        votes=np.ones(len(box), np.uint8),
        cut=cut,
        offset=offset,
        bits=bits,
    )
    return found.take(good | (cut > 0))


def claimed(found: Instances, tile: Tile, tiles: TileGrid, shape: tuple[int, int]) -> Instances:
    """What a tile answers for, of the nuclei it sees in its valid box.

    A nucleus that its owner (the tile whose core holds the centre of its box) sees whole is answered for by
    the owner alone. Any other goes out from every tile that has a pixel of it in its core; the seam stage
    joins the pieces. Which of the two holds follows from the boxes, so all tiles agree.
    """
    if not len(found):
        return found
    middle = centres(found.box)
    core = np.array(tile.core.tuple())
    mine = ((middle >= core[:2]) & (middle < core[2:])).all(axis=1)
    valid = tiles.valid_of(middle, shape)
    whole_at_owner = (found.box[:, :2] >= valid[:, :2]).all(axis=1) & (found.box[:, 2:] <= valid[:, 2:]).all(axis=1)
    shared = (found.cut > 0) | ~whole_at_owner
    reaches = _touches_core(found.box, found.offset, found.bits, core.astype(np.int64))
    keep = np.where(shared, reaches, mine) | (mine & (found.cut == 0))
    return found.take(keep)


def _level(threshold: float) -> int:
    """The uint8 value that a map must exceed to lie above a probability."""
    return int(np.floor(threshold * 255))


def _saturated_sum(a: Bytes, b: Bytes) -> Bytes:
    """a + b in uint8, 255 where it would overflow."""
    total = a + b
    total[total < a] = 255
    return total


def _offsets(grow_px: int) -> npt.NDArray[np.int32]:
    """All offsets (M, 2) within `grow_px` but the centre, nearest first, ties by (dy, dx)."""
    span = np.arange(-grow_px, grow_px + 1)
    dy, dx = (a.ravel() for a in np.meshgrid(span, span, indexing="ij"))
    far = dy * dy + dx * dx
    order = np.lexsort((dx, dy, far))
    order = order[(far[order] > 0) & (far[order] <= grow_px * grow_px)]
    return np.stack([dy[order], dx[order]], axis=1).astype(np.int32)


@njit(nogil=True, cache=True)
def _drop_small(seeds, n, min_px):  # type: ignore[no-untyped-def]
    """Set to 0, in place, the components of fewer than `min_px` pixels."""
    count = np.zeros(n + 1, np.int64)
    for y in range(seeds.shape[0]):
        for x in range(seeds.shape[1]):
            count[seeds[y, x]] += 1
    for y in range(seeds.shape[0]):
        for x in range(seeds.shape[1]):
            if count[seeds[y, x]] < min_px:
                seeds[y, x] = 0


@njit(nogil=True, cache=True)
def _grow(seeds, foreground, level, offsets):  # type: ignore[no-untyped-def]
    """Seeds and, for every other foreground pixel, the first seed met in the list of offsets."""
    height, width = seeds.shape
    labels = seeds.copy()
    for y in range(height):
        for x in range(width):
            if seeds[y, x] != 0 or foreground[y, x] <= level:
                continue
            for k in range(offsets.shape[0]):
                v, u = y + offsets[k, 0], x + offsets[k, 1]
                if 0 <= v < height and 0 <= u < width and seeds[v, u] != 0:
                    labels[y, x] = seeds[v, u]
                    break
    return labels


@njit(nogil=True, cache=True)
def _boxes(labels, n):  # type: ignore[no-untyped-def]
    """Boxes (n, 4) int32 of labels 1..n; all zero where a label is absent."""
    box = np.zeros((n, 4), np.int32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            i = labels[y, x] - 1
            if i < 0:
                continue
            if box[i, 2] == 0:
                box[i, 0], box[i, 1], box[i, 2], box[i, 3] = y, x, y + 1, x + 1
            else:
                box[i, 1], box[i, 3] = min(box[i, 1], x), max(box[i, 3], x + 1)
                box[i, 2] = y + 1
    return box


@njit(nogil=True, cache=True)
def _outside(labels, y0, y1, x0, x1, n):  # type: ignore[no-untyped-def]
    """1 for each label 1..n that occurs outside rows y0..y1 and columns x0..x1: (n,) uint8."""
    seen = np.zeros(n + 1, np.uint8)
    height, width = labels.shape
    for y in range(height):
        if y0 <= y < y1:
            for x in range(x0):
                seen[max(labels[y, x], 0)] = 1
            for x in range(x1, width):
                seen[max(labels[y, x], 0)] = 1
        else:
            for x in range(width):
                seen[max(labels[y, x], 0)] = 1
    return seen[1:]


@njit(nogil=True, cache=True)
def _pack(labels, foreground, label, box, offset, cut, fill):  # type: ignore[no-untyped-def]
    """Packed masks, areas and foreground sums of the given labels; holes of whole ones are closed first."""
    n = len(label)
    bits = np.zeros(offset[n], np.uint8)
    area, total = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for i in range(n):
        y0, x0, y1, x1 = box[i]
        crop, seen, mine = labels[y0:y1, x0:x1], foreground[y0:y1, x0:x1], bits[offset[i] : offset[i + 1]]
        area[i], total[i], concave = _pack_runs(crop, label[i], seen, mine)
        if concave and fill and cut[i] == 0:
            filled = crop == label[i]
            _fill(filled, crop)
            area[i], total[i], _ = _pack_runs(filled, True, seen, mine)
    return bits, area, total


@njit(nogil=True, cache=True)
def _pack_runs(crop, value, foreground, bits):  # type: ignore[no-untyped-def]
    """Set the bits of the pixels that equal `value`, run by run; their number, their foreground sum, and whether
    a row has more than one run: where none has, there is no hole to fill."""
    height, width = crop.shape
    area = total = 0
    concave = False
    for y in range(height):
        x = runs = 0
        while x < width:
            while x < width and crop[y, x] != value:
                x += 1
            start = x
            while x < width and crop[y, x] == value:
                total += foreground[y, x]
                x += 1
            if x > start:
                runs += 1
                area += x - start
                set_bits(bits, y * width + start, y * width + x)
        concave |= runs > 1
    return area, total, concave


@njit(nogil=True, cache=True)
def _fill(crop, labels):  # type: ignore[no-untyped-def]
    """Close, in place, the background pixels of a crop that no 4-connected path leads out of."""
    height, width = crop.shape
    reached = np.zeros((height, width), np.bool_)
    stack = np.empty((height * width, 2), np.int32)
    top = 0
    for y in range(height):
        for x in range(width):
            edge = y == 0 or x == 0 or y == height - 1 or x == width - 1
            if edge and not crop[y, x]:
                reached[y, x] = True
                stack[top, 0], stack[top, 1] = y, x
                top += 1
    while top > 0:
        top -= 1
        y, x = np.int64(stack[top, 0]), np.int64(stack[top, 1])
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width and not crop[v, u] and not reached[v, u]:
                reached[v, u] = True
                stack[top, 0], stack[top, 1] = v, u
                top += 1
    for y in range(height):
        for x in range(width):
            if not reached[y, x] and labels[y, x] == 0:
                crop[y, x] = True


@njit(nogil=True, cache=True)
def _touches_core(box, offset, bits, core):  # type: ignore[no-untyped-def]
    """True for each packed mask with a pixel inside `core` (y0, x0, y1, x1): (N,) bool."""
    found = np.zeros(len(box), np.bool_)
    for i in range(len(box)):
        width = box[i, 3] - box[i, 1]
        for y in range(max(box[i, 0], core[0]), min(box[i, 2], core[2])):
            for x in range(max(box[i, 1], core[1]), min(box[i, 3], core[3])):
                k = (y - box[i, 0]) * width + x - box[i, 1]
                if bits[offset[i] + (k >> 3)] & (128 >> (k & 7)):
                    found[i] = True
                    break
            if found[i]:
                break
    return found
