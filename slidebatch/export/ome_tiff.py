"""Label images as OME-TIFF: one uint32 plane in tiles, its pyramid in SubIFDs, streamed tile by tile.

Deflate, which every reader knows; BigTIFF where the image could outgrow 4 GB. Values are the table's `label`. Source:
the OME-TIFF specification, "Sub-resolutions".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from slidebatch.export.nuclei import levels
from slidebatch.export.wish import Wish
from slidebatch.results import Results

TILE_PX = 512
BATCH_PX = 8 * TILE_PX
"""Width of what is read at once: a row of a few tiles."""

CLASSIC_BYTES = 2**31
"""Pixels of more bytes go to a BigTIFF, whose offsets have 64 bits."""


def write(results: Results, slides: tuple[str, ...], wish: Wish, path: Path) -> None:
    """Write one slide's labels, all levels that the results have."""
    (slide,) = slides
    entry = results.entry(slide)
    arrays = levels(results, slide)
    stored: dict[str, Any] = {
        "tile": (TILE_PX, TILE_PX),
        "compression": "adobe_deflate",
        "photometric": "minisblack",
        "maxworkers": 1,
    }
    big = 4 * arrays[0].shape[0] * arrays[0].shape[1] > CLASSIC_BYTES
    with tifffile.TiffWriter(path, bigtiff=big, ome=True) as writer:
        for number, array in enumerate(arrays):
            place: dict[str, Any] = (
                {"subfiletype": 1}
                if number
                else {"subifds": len(arrays) - 1, "metadata": _metadata(slide, entry), **_resolution(entry)}
            )
            writer.write(tiles(array), shape=array.shape, dtype=np.uint32, **stored, **place)


def tiles(array: Any) -> Iterator[npt.NDArray[np.uint32]]:
    """The tiles of a label image (Y, X) in raster order, those at its ends filled up with background."""
    height, width = array.shape
    for y in range(0, height, TILE_PX):
        for x in range(0, width, BATCH_PX):
            row = np.asarray(array[y : y + TILE_PX, x : x + BATCH_PX])
            for left in range(0, row.shape[1], TILE_PX):
                tile = np.zeros((TILE_PX, TILE_PX), np.uint32)
                part = row[:, left : left + TILE_PX]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile


def _um_per_px(entry: dict[str, Any]) -> float | None:
    """Micrometres per pixel of the label image."""
    return entry["mpp"] / (entry.get("scale") or 1.0) if entry.get("mpp") else None


def _metadata(slide: str, entry: dict[str, Any]) -> dict[str, Any]:
    """What goes into the OME-XML."""
    told: dict[str, Any] = {"axes": "YX", "Name": slide, "Channel": {"Name": "nuclei"}}
    size = _um_per_px(entry)
    if size is not None:
        told |= {"PhysicalSizeX": size, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": size, "PhysicalSizeYUnit": "µm"}
    return told


def _resolution(entry: dict[str, Any]) -> dict[str, Any]:
    """TIFF's own pixel size, in pixels per centimetre."""
    size = _um_per_px(entry)
    return {} if size is None else {"resolution": (1e4 / size, 1e4 / size), "resolutionunit": "CENTIMETER"}
