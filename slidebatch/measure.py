"""Stages measure and table: numbers of every nucleus, from the final labels and the image.

A task measures the nuclei whose boxes start in its region, each whole, in a window that holds all their boxes.
Positions and boxes are in level-0 pixels; `area` counts pixels of the label image. Intensities are those of the
image as it is, not as networks see it: a nucleus with a NaN pixel in a channel has the mean NaN there, so that a
fault of the image is seen in the table and not averaged away.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from slidebatch.errors import InputError
from slidebatch.faults import readable
from slidebatch.geometry import Box
from slidebatch.instances import SCORE_MAX
from slidebatch.job import Job, Made
from slidebatch.plan import SlidePlan
from slidebatch.slides import read_grid
from slidebatch.store import read_shard, region_reader, write_atomically, written_aside

STORED = {"compression": "zstd", "use_dictionary": False}
"""How tables are stored: hardly a value occurs twice, so dictionaries would only cost time and space."""

Columns = dict[str, npt.NDArray[np.generic]]


def measure_region(job: Job, number: int, region: Box) -> Made:
    """Measure the nuclei whose boxes start in a region and write their rows."""
    seamed = read_shard(job.seams(number), ["box", "score", "member", "votes"])
    # Ids follow the first pixel in raster order, so rows are sorted by their boxes' tops: a band is a slice.
    first, last = np.searchsorted(seamed["box"][:, 0], [region.y0, region.y1])
    band = {n: seamed[n][first:last] for n in seamed}
    left = band["box"][:, 1]
    rows = np.flatnonzero((left >= region.x0) & (left < region.x1))
    stored = {n: band[n][rows] for n in band}
    label = first + rows + 1
    path = job.part(number, region)
    write_atomically(path, _encoded(table_of(job.at(number), label, stored, _sums(job, number, label, stored["box"]))))
    return Made((path,), nuclei=len(rows))


def _sums(job: Job, number: int, label: npt.NDArray[np.int64], box: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Area, sums of y and x, and of every channel, of the nuclei `label`: (N, 3 + C) float64, exact below 2^53."""
    slide = job.at(number)
    if not len(label):
        return np.zeros((0, 3 + len(slide.names)))
    window = Box(*(int(v) for v in (*box[:, :2].min(axis=0), *box[:, 2:].max(axis=0))))
    labels = region_reader(job.labels(number) / "0")(window)
    image = read_grid(job.open(number), slide.grid, window, None)
    place = np.full(label[-1] - label[0] + 1, -1, np.int32)
    place[label - label[0]] = np.arange(len(label))
    sums = np.zeros((len(label), 3 + len(image)))
    accumulate(sums, labels, image, place, (int(label[0]), window.y0, window.x0))
    if (sums[:, 0] == 0).any():
        missing = int(label[sums[:, 0] == 0][0])
        raise InputError(
            f"{slide.slide}: nucleus {missing} has no pixel in the stored labels although it was painted; "
            "remove the slide's folder in labels.zarr and give the same command again"
        )
    return sums


@njit(nogil=True, cache=True)
def accumulate(sums, labels, image, place, origin):
    """Add each labelled pixel's 1, y, x and channel values to its nucleus's row of `sums`, in place.

    origin  (label, y, x): the label that place[0] stands for, and the window's corner
    """
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            k = np.int64(labels[y, x]) - origin[0]
            if k < 0 or k >= len(place):
                continue
            i = place[k]
            if i < 0:
                continue
            sums[i, 0] += 1.0
            sums[i, 1] += y + origin[1]
            sums[i, 2] += x + origin[2]
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
    """Put the parts of a slide together, by label, a band of regions at a time: bands hold consecutive labels."""
    bands = [[job.part(number, r) for r in band] for _, band in groupby(regions, key=lambda r: r.y0)]
    nuclei = 0
    with written_aside(job.table(number)) as aside, _writer(aside, _rows(bands[0][0])) as writer:
        for band in bands:
            table = pa.concat_tables([_rows(part) for part in band]).sort_by("label")
            writer.write_table(table)
            nuclei += table.num_rows
    return Made((job.table(number),), nuclei=nuclei)


def _rows(part: Path) -> pa.Table:
    """The rows of a region. ResultsError where its file is missing or broken."""
    with readable(part, "the rows are"):
        return pq.read_table(part)


def _writer(path: Path, like: pa.Table) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, like.schema, **STORED)


def _encoded(table: pa.Table) -> bytes:
    """A table as the bytes of a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **STORED)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded
