"""Nuclei as runs down the columns of their image: what the Data Science Bowl's CSV and COCO write.

Places count pixels down the columns from 0: pixel (y, x) of an image of H rows is at x * H + y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

MOST_PX = 2**32 - 1
"""Pixels of the largest image that COCO's run lengths can number: its tools count in 32 bits."""


@dataclass(frozen=True)
class Runs:
    """The runs of N nuclei.

    start   (N + 1,) int64: where each nucleus's runs begin
    place   (R,) int64: first pixel of a run, ascending within a nucleus; runs of a nucleus do not touch
    length  (R,) int64
    """

    start: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


def down_columns(
    pixels: npt.NDArray[np.unsignedinteger],
    label: npt.NDArray[np.int64],
    box: npt.NDArray[np.int64],
    corner: tuple[int, int],
    rows: int,
) -> Runs:
    """The runs of some nuclei of a window of a label image.

    pixels  (h, w) unsigned, the window; its first pixel is `corner` (y, x) of an image of `rows` rows
    label   (N,), box (N, 4) half-open (y0, x0, y1, x1) in the window, which hold the nuclei
    A label that its box does not hold has no runs.
    """
    return Runs(*_down_columns(pixels, label, box, corner, rows))


@njit(nogil=True, cache=True)
def _down_columns(pixels, label, box, corner, rows):  # type: ignore[no-untyped-def]
    start = np.zeros(len(label) + 1, np.int64)
    place, length, runs = np.empty(1024, np.int64), np.empty(1024, np.int64), 0
    for i in range(len(label)):
        y0, x0, y1, x1 = box[i]
        end = np.int64(-1)  # of this nucleus's last run: one that goes on at the top of the next column is the same
        for x in range(x0, x1):
            for y in range(y0, y1):
                if pixels[y, x] != label[i]:
                    continue
                at = (x + corner[1]) * rows + y + corner[0]
                if at == end:
                    length[runs - 1] += 1
                else:
                    if runs == len(place):
                        place, length = np.append(place, np.empty_like(place)), np.append(length, np.empty_like(place))
                    place[runs], length[runs] = at, 1
                    runs += 1
                end = at + 1
        start[i + 1] = runs
    return start, place[:runs].copy(), length[:runs].copy()


def coco_counts(place: npt.NDArray[np.int64], length: npt.NDArray[np.int64], size: int) -> list[int]:
    """COCO's plain run lengths of one nucleus in an image of `size` pixels: background first, then in turn.

    >>> coco_counts(np.array([1, 5]), np.array([2, 1]), 7)
    [1, 2, 2, 1, 1]
    """
    edges = np.stack([place, place + length], axis=1).ravel()
    counts: list[int] = np.diff(edges, prepend=0, append=size).tolist()
    return counts


def coco_packed(counts: list[int], shape: tuple[int, int]) -> dict[str, Any]:
    """A COCO segmentation of plain run lengths over an image (Y, X): `size`, and `counts` packed as text.

    The image must have at most MOST_PX pixels. Source: https://cocodataset.org/#format-results.
    """
    from pycocotools import mask

    plain: Any = {"size": list(shape), "counts": counts}
    packed: Any = mask.frPyObjects(plain, *shape)
    return {"size": list(shape), "counts": packed["counts"].decode("ascii")}
