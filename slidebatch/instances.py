"""A columnar table of nuclei with bit-packed masks: what tiles write and what seams join.

One row per nucleus. A mask is the crop of the nucleus's own box, rows first, packed eight pixels a
byte (numpy's `packbits`, big bit order), each crop starting on a new byte; `offset[i]:offset[i + 1]` are
its bytes in `bits`. A 20 x 20 nucleus costs 50 bytes of mask and 31 bytes of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from slidebatch.geometry import Box

SCORE_MAX = 65535
"""A score of 1.0; scores are integers so that their order never depends on rounding."""

PIECE, WAITING = 1, 2
"""What `Instances.cut` says of nuclei that a tile has not settled."""


@dataclass(frozen=True)
class Instances:
    """N nuclei, in slide pixels at the plan's grid.

    box     (N, 4) int32   half-open (y0, x0, y1, x1)
    score   (N,)   uint16  0..65535 for 0..1
    member  (N,)   uint8   index of the network (or member of the ensemble) that found it
    votes   (N,)   uint8   how many members agreed
    cut     (N,)   uint8   0 where the tile has settled the nucleus; `PIECE` where it may not have seen the whole of
                           it; `WAITING` where it has, but not all that competes with it
    offset  (N+1,) int64   where each mask starts in `bits`
    bits    (B,)   uint8   packed masks
    """

    box: npt.NDArray[np.int32]
    score: npt.NDArray[np.uint16]
    member: npt.NDArray[np.uint8]
    votes: npt.NDArray[np.uint8]
    cut: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.box)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The columns by name, as they are stored."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def at(self, i: int) -> Box:
        """The box of row `i`."""
        y0, x0, y1, x1 = (int(v) for v in self.box[i])
        return Box(y0, x0, y1, x1)

    def mask(self, i: int) -> npt.NDArray[np.bool_]:
        """The mask of row `i`: bool (Y, X), the shape of its box."""
        shape = self.at(i).shape
        packed = self.bits[self.offset[i] : self.offset[i + 1]]
        return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)

    def take(self, rows: npt.ArrayLike) -> Instances:
        """The given rows (indices or a boolean mask), in the given order, with their masks."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        size = np.diff(self.offset)[index]
        offset = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        source = np.repeat(self.offset[:-1][index] - offset[:-1], size) + np.arange(offset[-1])
        columns = {n: getattr(self, n)[index] for n in ("box", "score", "member", "votes", "cut")}
        return Instances(**columns, offset=offset, bits=self.bits[source])


def mask_bytes(box: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Bytes that the packed mask of each box (N, 4) takes: (N,) int64."""
    area = (box[:, 2] - box[:, 0]).astype(np.int64) * (box[:, 3] - box[:, 1])
    return (area + 7) // 8


def offsets(box: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Where each packed mask starts, and the end of the last: (N + 1,) int64."""
    return np.concatenate([[0], np.cumsum(mask_bytes(box))]).astype(np.int64)


def none() -> Instances:
    """A table without rows."""
    return from_masks([], [])


def from_masks(
    boxes: Sequence[Box],
    masks: Sequence[npt.NDArray[np.bool_]],
    score: npt.ArrayLike | None = None,
    member: npt.ArrayLike | None = None,
    cut: npt.ArrayLike | None = None,
) -> Instances:
    """A table from boxes and their bool masks; scores 0..65535, by default 65535."""
    n = len(boxes)
    box = np.array([b.tuple() for b in boxes], np.int32).reshape(n, 4)
    packed = [np.packbits(m) for m in masks]
    return Instances(
        box=box,
        score=np.full(n, SCORE_MAX, np.uint16) if score is None else np.asarray(score, np.uint16),
        member=np.zeros(n, np.uint8) if member is None else np.asarray(member, np.uint8),
        votes=np.ones(n, np.uint8),
        cut=np.zeros(n, np.uint8) if cut is None else np.asarray(cut, np.uint8),
        offset=offsets(box),
        bits=np.concatenate(packed) if packed else np.zeros(0, np.uint8),
    )


def concatenate(tables: Sequence[Instances]) -> Instances:
    """All rows of all tables, in order."""
    if not tables:
        return none()
    columns = {n: np.concatenate([getattr(t, n) for t in tables]) for n in ("box", "score", "member", "votes", "cut")}
    ends = np.cumsum([0] + [int(t.offset[-1]) for t in tables])
    offset = np.concatenate([t.offset[:-1] + end for t, end in zip(tables, ends, strict=False)] + [ends[-1:]])
    return Instances(**columns, offset=offset.astype(np.int64), bits=np.concatenate([t.bits for t in tables]))


def painted(found: Instances, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """The label image (Y, X) int32 of nuclei that do not overlap; labels are row numbers from 1."""
    labels = np.zeros(shape, np.int32)
    for i in range(len(found)):
        labels[found.at(i).slices()][found.mask(i)] = i + 1
    return labels
