"""Stages paint and pyramid: label images, region by region, every region the only writer of its shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from slidebatch import ngff
from slidebatch.geometry import Box, whole
from slidebatch.instances import Instances
from slidebatch.job import Job, Made
from slidebatch.plan import level_shape
from slidebatch.slides import read_grid
from slidebatch.store import (
    create_array,
    read_instances,
    read_shard,
    region_reader,
    remove,
    write_group,
    write_region,
)


def lay_out(job: Job, number: int) -> list[Path]:
    """Make the empty label image (and the image's copy) of a slide with all levels; the metadata files made."""
    slide = job.at(number)
    levels = slide.levels() + 1
    image = job.image(number)
    remove(job.labels(number) if image is None else image)
    made = [_group(job.labels(number), ngff.label_image(levels, slide.mpp_plan, "../../" if image else None))]
    for level in range(levels):
        made.append(_level(job, number, job.labels(number), level, None))
        if image is not None:
            made.append(_level(job, number, image, level, len(slide.names)))
    if image is not None:
        made.append(_group(image, ngff.image(slide.slide, levels, slide.mpp_plan, slide.names, slide.rgb)))
        made.append(_group(image / "labels", ngff.labels_group()))
    return made


def _level(job: Job, number: int, group: Path, level: int, channels: int | None) -> Path:
    """Make the empty array of one level: labels, or an image of `channels`; its metadata file."""
    slide, output = job.at(number), job.plan.output
    shape = level_shape(slide.shape, level)
    chunk, shard = (output.chunk_px,) * 2, (output.shard_at(level),) * 2
    if channels is None:
        create_array(group / str(level), shape, "uint32", chunk, shard, ("y", "x"))
    else:
        whole_shard = (channels, *shard)
        create_array(group / str(level), (channels, *shape), slide.dtype, (1, *chunk), whole_shard, ("c", "y", "x"))
    return group / str(level) / "zarr.json"


def _group(path: Path, attributes: dict[str, object]) -> Path:
    write_group(path, attributes)
    return path / "zarr.json"


def paint_region(job: Job, number: int, region: Box) -> Made:
    """Paint the nuclei of a region, and copy the image there if it is to be copied, with the levels it owns."""
    levels = min(job.at(number).levels(), job.plan.output.owned_levels)
    files = _write_levels(job.labels(number), _canvas(job, number, region), region, levels)
    image = job.image(number)
    if image is not None:
        pixels = read_grid(job.open(number), job.at(number).grid, region, None)
        files += _write_levels(image, pixels, region, levels)
    return Made(tuple(files))


def _canvas(job: Job, number: int, region: Box) -> npt.NDArray[np.uint32]:
    """The labels of a region."""
    canvas = np.zeros(region.shape, np.uint32)
    origin = np.array([region.y0, region.x0], np.int64)
    names = ["start", "label", "extent", "joined_label", *(f"joined_{n}" for n in Instances.__dataclass_fields__)]
    seamed = read_shard(job.seams(number), names)
    for row in np.flatnonzero(_reaching(seamed["extent"], region)):
        label = seamed["label"][seamed["start"][row] : seamed["start"][row + 1]]
        core = job.plan.tiles.core_at(int(row), job.at(number).shape)
        _paint(canvas, origin, read_instances(job.nuclei(number, core)), label)
    joined = Instances(**{n: seamed[f"joined_{n}"] for n in Instances.__dataclass_fields__})
    _paint(canvas, origin, joined, seamed["joined_label"])
    return canvas


def _reaching(extent: npt.NDArray[np.int32], region: Box) -> npt.NDArray[np.bool_]:
    """Which boxes (T, 4) meet a region; empty ones never do."""
    low = np.maximum(extent[:, :2], (region.y0, region.x0))
    high = np.minimum(extent[:, 2:], (region.y1, region.x1))
    return np.asarray((low < high).all(axis=1))


def pyramid_region(job: Job, number: int, region: Box, level: int) -> Made:
    """Make a region of a level from the level above."""
    finer = Box(region.y0 * 2, region.x0 * 2, region.y1 * 2, region.x1 * 2)
    finer = finer.clip(whole(level_shape(job.at(number).shape, level - 1)))
    files = []
    for group in (job.labels(number), job.image(number)):
        if group is not None:
            above = region_reader(group / str(level - 1))(finer)
            files += write_region(group / str(level), halve(above), region)
    return Made(tuple(files))


def halve(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The next level: labels (Y, X) keep every second pixel; images (C, Y, X) the mean of four.

    Means are rounded half up for integers; odd edges are repeated. The shape is halved and rounded up.
    """
    if pixels.ndim == 2:
        return pixels[::2, ::2]
    even = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)), mode="edge")
    wide = np.uint32 if np.issubdtype(pixels.dtype, np.integer) else np.float64
    total = even[:, ::2, ::2].astype(wide) + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    mean = (total + 2) // 4 if wide is np.uint32 else total / 4
    return mean.astype(pixels.dtype)


def _write_levels(group: Path, pixels: npt.NDArray[Any], region: Box, levels: int) -> list[Path]:
    """Write a region of level 0 and of the `levels` below it that the region owns; the files written."""
    files = write_region(group / "0", pixels, region)
    for level in range(1, levels + 1):
        pixels = halve(pixels)
        region = Box(region.y0 // 2, region.x0 // 2, -(-region.y1 // 2), -(-region.x1 // 2))
        files += write_region(group / str(level), pixels, region)
    return files


def _paint(
    canvas: npt.NDArray[np.uint32],
    origin: npt.NDArray[np.int64],
    found: Instances,
    label: npt.NDArray[np.uint32],
) -> None:
    rows = np.flatnonzero(label).astype(np.int64)
    paint_rows(canvas, origin, rows, label, found.box, found.offset, found.bits)


@njit(nogil=True, cache=True)
def paint_rows(canvas, origin, rows, label, box, offset, bits):
    """Paint, in place, the packed masks of the given rows with their labels onto a canvas that starts at origin."""
    height, width = canvas.shape
    for r in range(len(rows)):
        i = rows[r]
        wide = np.int64(box[i, 3]) - box[i, 1]
        for y in range(max(box[i, 0] - origin[0], 0), min(box[i, 2] - origin[0], height)):
            k = (y + origin[0] - box[i, 0]) * wide + origin[1] - box[i, 1]
            for x in range(max(box[i, 1] - origin[1], 0), min(box[i, 3] - origin[1], width)):
                if bits[offset[i] + ((k + x) >> 3)] & (128 >> ((k + x) & 7)):
                    canvas[y, x] = label[i]
