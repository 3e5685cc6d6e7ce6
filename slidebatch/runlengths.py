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


def runs_of(labels: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.integer[Any]], Runs]:
    """The labels of a whole label image (Y, X), 0 being background: (N,) ascending, and their runs.

    >>> label, runs = runs_of(np.array([[7, 7, 3], [7, 0, 7]]))
    >>> label.tolist(), runs.start.tolist(), runs.place.tolist(), runs.length.tolist()
    ([3, 7], [0, 1, 3], [4, 0, 5], [1, 3, 1])
    """
    down = labels.T.ravel()  # column after column
    place = np.flatnonzero(down)
    order = np.argsort(down[place], kind="stable")
    place, name = place[order], down[place][order]
    first = np.flatnonzero((np.diff(name, prepend=0) != 0) | (np.diff(place, prepend=-2) != 1))
    label, start = np.unique(name[first], return_index=True)
    return label, Runs(np.append(start, len(first)), place[first], np.diff(first, append=len(place)))


CATEGORY = {"id": 1, "name": "nucleus"}
"""COCO's one category here."""


def coco_record(place: npt.NDArray[np.int64], length: npt.NDArray[np.int64], shape: tuple[int, int]) -> dict[str, Any]:
    """COCO's category, segmentation, area and bbox of one nucleus's runs in an image of `shape` (Y, X).

    Boxes are [x, y, width, height]. The image must have at most MOST_PX pixels.
    """
    return {
        "category_id": CATEGORY["id"],
        "segmentation": coco_packed(coco_counts(place, length, shape[0] * shape[1]), shape),
        "area": int(length.sum()),
        "bbox": _bbox(place, length, shape[0]),
    }


def _bbox(place: npt.NDArray[np.int64], length: npt.NDArray[np.int64], rows: int) -> list[float]:
    """[x, y, width, height] around some runs; one that goes on in the next column fills the height."""
    first, last = place // rows, (place + length - 1) // rows
    wraps = (last > first).any()
    top, bottom = (0, rows) if wraps else (int((place % rows).min()), int(((place + length - 1) % rows).max()) + 1)
    left, right = int(first.min()), int(last.max()) + 1
    return [float(left), float(top), float(right - left), float(bottom - top)]


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
