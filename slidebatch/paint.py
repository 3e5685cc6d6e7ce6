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
    open_array,
    read_instances,
    read_shard,
    remove,
    stored_files,
    write_group,
)


def lay_out(job: Job, number: int) -> list[Path]:
    """Make the empty label image (and the image's copy) of a slide with all levels; the metadata files made."""
    slide, plan = job.at(number), job.plan
    levels = slide.levels() + 1
    image = job.image(number)
    remove(job.labels(number) if image is None else image)
    made = [_group(job.labels(number), ngff.label_image(levels, slide.mpp_plan, "../../" if image else None))]
    chunk, shard = (plan.output.chunk_px,) * 2, (plan.output.shard_px,) * 2
    for level in range(levels):
        shape = level_shape(slide.shape, level)
        create_array(job.labels(number) / str(level), shape, "uint32", chunk, shard, ("y", "x"))
        made.append(job.labels(number) / str(level) / "zarr.json")
        if image is not None:
            lead = len(slide.names)
            create_array(image / str(level), (lead, *shape), slide.dtype, (1, *chunk), (lead, *shard), ("c", "y", "x"))
            made.append(image / str(level) / "zarr.json")
    if image is not None:
        made.append(_group(image, ngff.image(slide.slide, levels, slide.mpp_plan, slide.names, slide.rgb)))
        made.append(_group(image / "labels", ngff.labels_group()))
    return made


def _group(path: Path, attributes: dict[str, object]) -> Path:
    write_group(path, attributes)
    return path / "zarr.json"


def paint_region(job: Job, number: int, region: Box) -> Made:
    """Paint the nuclei of a region at full resolution, and copy the image there if it is to be copied."""
    canvas = np.zeros(region.shape, np.uint32)
    origin = np.array([region.y0, region.x0], np.int64)
    seamed = read_shard(job.seams(number))
    for row, tile in enumerate(job.plan.tiles.tiles(job.at(number).shape)):
        label = seamed["label"][seamed["start"][row] : seamed["start"][row + 1]]
        if label.any() and Box(*(int(v) for v in seamed["extent"][row])).intersects(region):
            _paint(canvas, origin, read_instances(job.nuclei(number, tile.core)), label)
    joined = Instances(**{n: seamed[f"joined_{n}"] for n in Instances.__dataclass_fields__})
    _paint(canvas, origin, joined, seamed["joined_label"])
    files = _write(job.labels(number) / "0", canvas, region)
    image = job.image(number)
    if image is not None:
        pixels = read_grid(job.open(number), job.at(number).grid, region, None)
        files += _write(image / "0", pixels, region)
    return Made(tuple(files))


def pyramid_region(job: Job, number: int, region: Box, level: int) -> Made:
    """Halve a region from the level above: labels keep every second pixel, images the mean of four."""
    finer = Box(region.y0 * 2, region.x0 * 2, region.y1 * 2, region.x1 * 2)
    finer = finer.clip(whole(level_shape(job.at(number).shape, level - 1)))
    labels = np.asarray(open_array(job.labels(number) / str(level - 1))[finer.slices()])
    files = _write(job.labels(number) / str(level), labels[::2, ::2], region)
    image = job.image(number)
    if image is not None:
        pixels = np.asarray(open_array(image / str(level - 1))[:, *finer.slices()])
        files += _write(image / str(level), halve(pixels), region)
    return Made(tuple(files))


def halve(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Means of 2 x 2 pixels of (C, Y, X), rounded half up for integers; odd edges are repeated."""
    even = np.pad(image, ((0, 0), (0, image.shape[1] % 2), (0, image.shape[2] % 2)), mode="edge")
    wide = np.uint32 if np.issubdtype(image.dtype, np.integer) else np.float64
    total = even[:, ::2, ::2].astype(wide) + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    mean = (total + 2) // 4 if wide is np.uint32 else total / 4
    return mean.astype(image.dtype)


def _write(path: Path, pixels: npt.NDArray[np.generic], region: Box) -> list[Path]:
    array = open_array(path, "r+")
    array[(..., *region.slices())] = pixels
    return stored_files(path, array, region)


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
