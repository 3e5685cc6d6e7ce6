"""Synthetic images whose pixels encode where they lie, and files of every format that hold them.

A reader that shifts, flips, transposes, mixes levels or mixes channels gives pixels that say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import zarr

from slidebatch.slides import Source, SourceFile

SHAPE = (300, 430)  # no multiple of any tile, and beyond 256 so that no byte is enough


def position_grey(shape: tuple[int, int], level: int = 0) -> np.ndarray:
    """(2, Y, X) uint16: channel 0 is y + 1000 * level, channel 1 is x."""
    y, x = np.indices(shape)
    return np.stack([y + 1000 * level, x]).astype(np.uint16)


def position_rgb(shape: tuple[int, int], level: int = 0) -> np.ndarray:
    """(3, Y, X) uint8: y % 256, x % 256, and (y // 256) * 16 + x // 256 + 64 * level."""
    y, x = np.indices(shape)
    return np.stack([y % 256, x % 256, (y // 256) * 16 + x // 256 + 64 * level]).astype(np.uint8)


@dataclass(frozen=True)
class Written:
    """A source on disk, and the (C, Y, X) pixels of each of its levels."""

    source: Source
    levels: tuple[np.ndarray, ...]


def one_file(path: Path | str, inner: str = "", mpp: float | None = None) -> Source:
    """The source of one file or folder."""
    return Source("here", (SourceFile(str(path), inner),), mpp=mpp)


def half(shape: tuple[int, int]) -> tuple[int, int]:
    return shape[0] // 2, shape[1] // 2


def _tiff(folder: Path, pixels: np.ndarray, **how: Any) -> Path:
    path = folder / "slide.tif"
    tifffile.imwrite(path, pixels, **how)
    return path


def _grey(**how: Any) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        pixels = position_grey(SHAPE)
        return Written(one_file(_tiff(folder, pixels, photometric="minisblack", **how)), (pixels,))

    return write


def _rgb(planar: bool = False, alpha: bool = False, **how: Any) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        pixels = position_rgb(SHAPE)
        if alpha:
            how["extrasamples"] = ["unassalpha"]
        stored = np.concatenate([pixels, 77 * np.ones_like(pixels[:1])]) if alpha else pixels
        stored = stored if planar else np.moveaxis(stored, 0, -1)
        how["planarconfig"] = "separate" if planar else "contig"
        return Written(one_file(_tiff(folder, stored, photometric="rgb", **how)), (pixels,))

    return write


def ome_subifds(folder: Path) -> Written:
    """A two-level OME-TIFF with its second level in SubIFDs."""
    levels = (position_grey(SHAPE), position_grey(half(SHAPE), 1))
    path = folder / "slide.ome.tif"
    told = {"axes": "CYX", "Channel": {"Name": ["DNA", "GFP"]}, "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
    told |= {"PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"}
    how: dict[str, Any] = {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(levels[0], subifds=1, metadata=told, **how)
        writer.write(levels[1], subfiletype=1, **how)
    return Written(one_file(path), levels)


def series_pyramid(folder: Path) -> Written:
    """A colour pyramid as pages that follow one another, without SubIFDs."""
    levels = (position_rgb(SHAPE), position_rgb(half(SHAPE), 1))
    path = folder / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        for level, pixels in enumerate(levels):
            picture = np.moveaxis(pixels, 0, -1)
            how: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
            writer.write(picture, subfiletype=1 if level else 0, compression="lzw", **how)
    return Written(one_file(path), levels)


def ome_series(folder: Path) -> Written:
    """A pyramid as OME images that follow one another, the finest first."""
    levels = (position_grey(SHAPE), position_grey(half(SHAPE), 1))
    path = folder / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for pixels in levels:
            writer.write(pixels, tile=(64, 64), photometric="minisblack", metadata={"axes": "CYX"})
    return Written(one_file(path), levels)


def imagej(folder: Path) -> Written:
    """An ImageJ hyperstack with z planes that are darker than the first; told as one page."""
    pixels = position_grey(SHAPE)
    stack = np.stack([pixels, pixels // 2, pixels // 3])  # (Z, C, Y, X)
    path = _tiff(folder, stack, imagej=True, metadata={"axes": "ZCYX"})
    return Written(one_file(path), (pixels,))


def png(*extra: np.ndarray, dtype: Any = np.uint8) -> Callable[[Path], Written]:
    """A PNG of RGB (uint8) or of grey y positions (uint16), followed by further samples (alpha)."""

    def write(folder: Path) -> Written:
        pixels = position_rgb(SHAPE) if dtype == np.uint8 else position_grey(SHAPE)[:1]
        picture = np.moveaxis(np.concatenate([pixels, *extra]), 0, -1)
        path = folder / "slide.png"
        path.write_bytes(imagecodecs.png_encode(np.squeeze(np.ascontiguousarray(picture))))
        return Written(one_file(path), (pixels,))

    return write


def write_ome_zarr(folder: Path, version: str, levels: list[np.ndarray], told: dict[str, Any]) -> None:
    """An OME-Zarr image of the given levels; `told`: axes (letters), unit, scale of level 0, omero labels."""
    group = zarr.open_group(folder, mode="w", zarr_format=2 if version == "0.4" else 3)
    for i, pixels in enumerate(levels):
        chunks = (1,) * (pixels.ndim - 2) + (64, 100)
        group.create_array(str(i), data=pixels, chunks=chunks)
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": a, "type": kinds.get(a, "space")} for a in told["axes"]]
    for axis in axes:
        if axis["type"] == "space" and "unit" in told:
            axis["unit"] = told["unit"]
    datasets = []
    for i in range(len(levels)):
        scale = [told.get("scale", 1.0) * 2**i if a in "yx" else 1.0 for a in told["axes"]]
        datasets.append({"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    image: dict[str, Any] = {"multiscales": [{"axes": axes, "datasets": datasets, "name": "image"}]}
    if "labels" in told:
        image["omero"] = {"channels": [{"label": name} for name in told["labels"]]}
    if version == "0.4":
        image["multiscales"][0]["version"] = version
    group.attrs.update(image if version == "0.4" else {"ome": {"version": version, **image}})


def ome_zarr(version: str, inner: str = "") -> Callable[[Path], Written]:
    """A two-level image with channels, alone or inside a plate's well."""

    def write(folder: Path) -> Written:
        levels = (position_grey(SHAPE), position_grey(half(SHAPE), 1))
        told = {"axes": "cyx", "unit": "micrometer", "scale": 0.25, "labels": ["DNA", "GFP"]}
        write_ome_zarr(folder / "plate.zarr" / inner, version, list(levels), told)
        return Written(one_file(folder / "plate.zarr", inner), levels)

    return write


def file_per_channel(folder: Path) -> Written:
    """One plain TIFF for each channel."""
    pixels = position_grey(SHAPE)
    files = []
    for name, channel in zip(("GFP", "DNA"), pixels, strict=True):
        tifffile.imwrite(folder / f"{name}.tif", channel)
        files.append(SourceFile(str(folder / f"{name}.tif"), channel=name))
    return Written(Source("here", tuple(files)), (pixels,))


FORMATS: dict[str, Callable[[Path], Written]] = {
    "tiff tiled, page stack": _grey(tile=(64, 80), compression="zlib"),
    "tiff strips, plain": _grey(rowsperstrip=7),
    "tiff strips, compressed": _grey(rowsperstrip=7, compression="zlib", predictor=True),
    "tiff one strip, compressed": _grey(rowsperstrip=SHAPE[0], compression="zstd"),
    "tiff big, big-endian": _grey(bigtiff=True, byteorder=">", rowsperstrip=50),
    "tiff tiled, rgb": _rgb(tile=(64, 64), compression="lzw"),
    "tiff tiled, jpeg 2000": _rgb(tile=(64, 64), compression="jpeg2000", compressionargs={"reversible": True}),
    "tiff planar rgb, tiled": _rgb(planar=True, tile=(64, 64)),
    "tiff planar rgb, strips": _rgb(planar=True, rowsperstrip=11),
    "tiff rgb with alpha": _rgb(alpha=True, rowsperstrip=16),
    "ome-tiff, subifds": ome_subifds,
    "ome-tiff, series": ome_series,
    "tiff, pages of a pyramid": series_pyramid,
    "imagej hyperstack": imagej,
    "png rgb": png(),
    "png rgb with alpha": png(77 * np.ones((1, *SHAPE), np.uint8)),
    "png 16 bit": png(dtype=np.uint16),
    "ome-zarr 0.4": ome_zarr("0.4"),
    "ome-zarr 0.5": ome_zarr("0.5"),
    "ome-zarr 0.5 in a plate": ome_zarr("0.5", "B/03/0"),
    "a file per channel": file_per_channel,
}
