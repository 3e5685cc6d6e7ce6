"""Stages measure and table: numbers of every nucleus, from the final labels and the image.

A task measures the nuclei whose boxes start in its region, each whole with the ring around it, in a window that
holds all of them. The window goes by in bands of rows, so that memory does not follow the size of nuclei. Positions
and boxes are in level-0 pixels; `area` and `perimeter` count pixels of the label image. Intensities are those of the
image as it is, not as networks see it: a nucleus with a NaN pixel in a channel has the mean NaN there, so that a
fault of the image is seen in the table and not averaged away. What lies between nuclei (the distance to the nearest)
is measured per slide, when the parts are put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from slidebatch.errors import InputError
from slidebatch.faults import readable
from slidebatch.geometry import Box, whole
from slidebatch.instances import SCORE_MAX
from slidebatch.job import Job, Made
from slidebatch.measurements import Band, Nuclei, Tally, columns_of, tally
from slidebatch.plan import SlidePlan
from slidebatch.slides import Slide, read_grid
from slidebatch.store import OutputSpec, read_shard, region_reader, write_atomically, written_aside

STORED = {"compression": "zstd", "use_dictionary": False}
"""How tables are stored: hardly a value occurs twice, so dictionaries would only cost time and space."""

BAND_PX = 512
"""Rows that are measured at once, if chunks are not larger: whole rows of chunks, so that each is decoded once."""

QUERY = 100_000
"""Nuclei whose nearest neighbours are looked up at once."""

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
    nuclei = Nuclei(first + rows + 1, stored["box"])
    path = job.part(number, region)
    write_atomically(path, _encoded(table_of(job.at(number), stored, _tally(job, number, nuclei))))
    return Made((path,), nuclei=len(rows))


def _tally(job: Job, number: int, nuclei: Nuclei) -> Tally:
    """What is added up of the nuclei. InputError where the stored labels lack one."""
    slide = job.at(number)
    box = nuclei.box if len(nuclei.box) else np.zeros((1, 4), np.int32)
    held = Box(*(int(v) for v in (*box[:, :2].min(axis=0), *box[:, 2:].max(axis=0))))
    # Twice the reach: who a ring's pixel belongs to depends on nuclei as far beyond it as it is from its own.
    window = held.grow(2 * slide.recipe.reach_px).clip(whole(slide.shape))
    found = tally(bands(job, number, window), nuclei, slide.recipe)
    if len(found.missing):
        raise InputError(
            f"{slide.slide}: nucleus {int(found.missing[0])} has no pixel in the stored labels although it was "
            "painted; remove the slide's folder in labels.zarr and give the same command again"
        )
    return found


def bands(job: Job, number: int, window: Box) -> Iterator[Band]:
    """Labels and image of a window from top to bottom, each row of chunks read once."""
    slide, stored = job.at(number), region_reader(job.labels(number) / "0")
    halo, step = slide.recipe.halo_px, band_rows(job.plan.output)
    cuts = [window.y0, *range((window.y0 // step + 1) * step, window.y1, step), window.y1]
    edge = np.zeros((halo, window.width), np.uint32)
    labels, pixels, top = edge, np.zeros((len(_read(slide)), 0, window.width), slide.dtype), window.y0
    for y0, y1 in pairwise(cuts):
        rows = Box(y0, window.x0, y1, window.x1)
        below = [edge] if y1 == window.y1 else []
        labels = np.concatenate([labels, stored(rows), *below])
        pixels = np.concatenate([pixels, _pixels(job, number, rows)], axis=1)
        height = max(0, len(labels) - 2 * halo)  # 0 so close above a cut that the halo is not full
        if height:
            yield _band(slide, top, window.x0, labels, np.ascontiguousarray(pixels[:, :height]))
        # The last rows of labels are the next band's halo; their own rows wait with the image for what is below.
        labels, pixels, top = labels[height:], pixels[:, height:], top + height


def band_rows(output: OutputSpec) -> int:
    """How many rows are measured at once: whole rows of chunks."""
    return output.chunk_px * max(1, BAND_PX // output.chunk_px)


def _pixels(job: Job, number: int, box: Box) -> npt.NDArray[Any]:
    """The channels to be read of a box: (C, Y, X); nothing is opened where none are."""
    slide = job.at(number)
    channels = _read(slide)
    if not channels:
        return np.zeros((0, *box.shape), slide.dtype)
    opened: Slide = job.open(number)
    return read_grid(opened, slide.grid, box, channels)


def _read(slide: SlidePlan) -> tuple[int, ...]:
    """Which channels of the file are read: those that are measured; of colour all three, for the stains."""
    if slide.recipe.stains:
        return (0, 1, 2)
    return slide.measured if slide.recipe.values else ()


def _band(slide: SlidePlan, top: int, left: int, labels: npt.NDArray[np.uint32], pixels: npt.NDArray[Any]) -> Band:
    read = _read(slide)
    wanted = slide.measured if slide.recipe.values else ()
    image = pixels if wanted == read else np.ascontiguousarray(pixels[[read.index(c) for c in wanted]])
    return Band(top, left, labels, image, pixels if slide.recipe.stains else None)


def table_of(slide: SlidePlan, stored: Columns, found: Tally) -> pa.Table:
    """One row per nucleus, by label."""
    scale, area = slide.grid.scale, found.moment[:, 0].astype(np.float64)
    box = stored["box"].astype(np.float64)
    low, high = np.floor(box[:, :2] / scale), np.ceil(box[:, 2:] / scale)
    centre = found.moment[:, 1:3] / area[:, None] + box[:, :2]
    height, width = slide.shape
    edge = (box[:, 0] <= 0) | (box[:, 1] <= 0) | (box[:, 2] >= height) | (box[:, 3] >= width)
    um2 = np.full(len(area), np.nan) if slide.mpp_plan is None else area * slide.mpp_plan**2
    columns: Columns = {
        "label": found.nuclei.label.astype(np.uint32),
        "y": (centre[:, 0] + 0.5) / scale - 0.5,
        "x": (centre[:, 1] + 0.5) / scale - 0.5,
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
    return pa.table({**columns, **columns_of(found, slide.mpp_plan)})


def merge_table(job: Job, number: int, regions: list[Box]) -> Made:
    """Put the parts of a slide together, by label, a band of regions at a time: bands hold consecutive labels."""
    groups = [[job.part(number, r) for r in band] for _, band in groupby(regions, key=lambda r: r.y0)]
    between = _between(job.at(number), groups)
    nuclei = 0
    with written_aside(job.table(number)) as aside:
        writer: pq.ParquetWriter | None = None
        for parts in groups:
            table = _together(parts, None)
            for name, values in between.items():
                table = table.append_column(name, pa.array(values[nuclei : nuclei + table.num_rows]))
            writer = writer or pq.ParquetWriter(aside, table.schema, **STORED)
            writer.write_table(table)
            nuclei += table.num_rows
        assert writer is not None, "a slide has a region at least"
        writer.close()
    return Made((job.table(number),), nuclei=nuclei)


def _together(parts: Sequence[Path], columns: list[str] | None) -> pa.Table:
    """The rows of a band of regions, by label."""
    return pa.concat_tables([_rows(part, columns) for part in parts]).sort_by("label")


def _between(slide: SlidePlan, groups: Sequence[Sequence[Path]]) -> Columns:
    """Columns that take the whole slide: the distance from each nucleus's centroid to the nearest other one."""
    if "neighbours" not in slide.recipe.sets:
        return {}
    tables = [_together(parts, ["label", "y", "x"]) for parts in groups]
    points = np.concatenate([np.stack([t["y"].to_numpy(), t["x"].to_numpy()], axis=1) for t in tables])
    far = nearest(points)
    um = far * (np.nan if slide.mpp is None else slide.mpp)
    return {"nearest_px": far.astype(np.float32), "nearest_um": um.astype(np.float32)}


def nearest(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The distance from each of N points (N, 2) to the nearest other one: (N,); NaN for a lone point."""
    far = np.full(len(points), np.nan)
    if len(points) > 1:
        tree = cKDTree(points)
        for first in range(0, len(points), QUERY):
            some = slice(first, first + QUERY)
            far[some] = tree.query(points[some], k=2)[0][:, 1]
    return far


def _rows(part: Path, columns: list[str] | None) -> pa.Table:
    """The rows of a region. ResultsError where its file is missing or broken."""
    with readable(part, "the rows are"):
        return pq.read_table(part, columns=columns)


def _encoded(table: pa.Table) -> bytes:
    """A table as the bytes of a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **STORED)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded
