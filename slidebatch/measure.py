"""Stages measure and table: numbers of every nucleus, from the final labels and the image.

A task measures the nuclei whose boxes start in its region, each whole, in a window that holds all their boxes.
Positions and boxes are in level-0 pixels; `area` counts pixels of the label image. Intensities are those of the
image as it is, not as networks see it: a nucleus with a NaN pixel in a channel has the mean NaN there, so that a
fault of the image is seen in the table and not averaged away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from slidebatch.errors import InputError
from slidebatch.geometry import Box
from slidebatch.instances import SCORE_MAX
from slidebatch.job import Job, Made
from slidebatch.plan import SlidePlan
from slidebatch.slides import read_grid
from slidebatch.store import open_array, read_shard, write_atomically

Columns = dict[str, npt.NDArray[np.generic]]


def measure_region(job: Job, number: int, region: Box) -> Made:
    """Measure the nuclei whose boxes start in a region and write their rows."""
    seamed = read_shard(job.seams(number), ["box", "score", "member", "votes"])
    box = seamed["box"]
    starts = (box[:, :2] >= [region.y0, region.x0]).all(axis=1) & (box[:, :2] < [region.y1, region.x1]).all(axis=1)
    rows = np.flatnonzero(starts)
    sums = _sums(job, number, rows, box)
    stored = {n: seamed[n][rows] for n in ("box", "score", "member", "votes")}
    path = job.part(number, region)
    _write_table(path, table_of(job.at(number), rows + 1, stored, sums))
    return Made((path,), nuclei=len(rows))


def _sums(job: Job, number: int, rows: npt.NDArray[np.int64], box: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Area, sums of y and x, and of every channel, of the nuclei `rows`: (N, 3 + C) float64.

    Exact below 2^53 for integer images. A NaN pixel of a float image makes the sum of its nucleus and channel NaN.
    """
    slide = job.at(number)
    if not len(rows):
        return np.zeros((0, 3 + len(slide.names)))
    window = Box(*(int(v) for v in (*box[rows, :2].min(axis=0), *box[rows, 2:].max(axis=0))))
    labels = np.asarray(open_array(job.labels(number) / "0")[window.slices()])
    image = read_grid(job.open(number), slide.grid, window, None)
    place = np.full(len(box) + 1, -1, np.int64)
    place[rows + 1] = np.arange(len(rows))
    sums = np.zeros((len(rows), 3 + len(image)))
    accumulate(sums, labels, image, place, window.y0, window.x0)
    if (sums[:, 0] == 0).any():
        missing = int(rows[sums[:, 0] == 0][0]) + 1
        raise InputError(
            f"{slide.slide}: nucleus {missing} has no pixel in the stored labels although it was painted; "
            "remove the slide's folder in labels.zarr and give the same command again"
        )
    return sums


@njit(nogil=True, cache=True)
def accumulate(sums, labels, image, place, y0, x0):
    """Add each labelled pixel's 1, y, x and channel values to its nucleus's row of `sums`, in place."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label == 0:
                continue
            i = place[label]
            if i < 0:
                continue
            sums[i, 0] += 1.0
            sums[i, 1] += y + y0
            sums[i, 2] += x + x0
            for c in range(image.shape[0]):
                sums[i, 3 + c] += image[c, y, x]


def table_of(
    slide: SlidePlan, label: npt.NDArray[np.int64], stored: Columns, sums: npt.NDArray[np.float64]
) -> pa.Table:
    """One row per nucleus, by label."""
    scale, area = slide.grid.scale, sums[:, 0]
    box = stored["box"].astype(np.float64)
    low, high = np.floor(box[:, :2] / scale), np.ceil(box[:, 2:] / scale)
    height, width = slide.shape
    edge = (box[:, 0] <= 0) | (box[:, 1] <= 0) | (box[:, 2] >= height) | (box[:, 3] >= width)
    um2 = np.full(len(area), np.nan) if slide.mpp_plan is None else area * slide.mpp_plan**2
    columns: dict[str, npt.NDArray[np.generic]] = {
        "label": label.astype(np.uint32),
        "y": (sums[:, 1] / area + 0.5) / scale - 0.5,
        "x": (sums[:, 2] / area + 0.5) / scale - 0.5,
        "y0": low[:, 0].astype(np.int32),
        "x0": low[:, 1].astype(np.int32),
        "y1": high[:, 0].astype(np.int32),
        "x1": high[:, 1].astype(np.int32),
        "area": area.astype(np.uint32),
        "area_um2": um2,
        "score": stored["score"].astype(np.float32) / SCORE_MAX,
        "member": stored["member"],
        "votes": stored["votes"],
        "touches_border": edge,
    }
    for c, name in enumerate(slide.names):
        columns[f"mean_{name}"] = sums[:, 3 + c] / area
    return pa.table(columns)


def merge_table(job: Job, number: int, regions: list[Box]) -> Made:
    """Put the parts of a slide together, by label."""
    table = pa.concat_tables([pq.read_table(job.part(number, r)) for r in regions]).sort_by("label")
    _write_table(job.table(number), table)
    return Made((job.table(number),), nuclei=table.num_rows)


def _write_table(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())
