"""What the benchmarks run on: mosaics of real slides as files, and dense fields of known nuclei.

Real images lie in `../shared/data`, or in the folder that SLIDEBATCH_TEST_DATA names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
import zarr
from PIL import Image
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
SLIDE_MPP = 0.499
"""Micrometres per pixel of the real slide, as its file says."""

TILE_PX = 256
JITTER = 0.35
EMPTY = 0.05
"""Share of the places of a dense field that hold no nucleus."""

Pixels = npt.NDArray[np.uint8]


def data_folder() -> Path:
    """The folder of real images. SystemExit with what to do where it is absent."""
    folder = Path(os.environ.get("SLIDEBATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no real images here; put them there or name them in SLIDEBATCH_TEST_DATA")
    return folder


def real_slide() -> Pixels:
    """The real slide (Y, X, 3) uint8, decoded."""
    return np.asarray(tifffile.imread(data_folder() / "slides" / "CMU-1-Small-Region.svs", key=0))


def mirrored(image: Pixels, shape: tuple[int, int], box: tuple[slice, slice]) -> Pixels:
    """A window of the endless mosaic of an image (Y, X, 3) and its mirror images, cut to `shape`."""
    rows, columns = (
        np.arange(*s.indices(size)) % (2 * side) for s, size, side in zip(box, shape, image.shape[:2], strict=True)
    )
    rows = np.where(rows < image.shape[0], rows, 2 * image.shape[0] - 1 - rows)
    columns = np.where(columns < image.shape[1], columns, 2 * image.shape[1] - 1 - columns)
    return image[rows[:, None], columns[None, :]]


def write_mosaic(path: Path, image: Pixels, shape: tuple[int, int]) -> Path:
    """A mosaic (Y, X) of a real image as a JPEG-tiled TIFF that states its pixel size; bands are made as needed."""

    def tiles() -> Iterator[Pixels]:
        for y in range(0, shape[0], TILE_PX):
            band = mirrored(image, shape, (slice(y, min(y + TILE_PX, shape[0])), slice(0, shape[1])))
            for x in range(0, shape[1], TILE_PX):
                tile = band[:, x : x + TILE_PX]
                yield np.pad(tile, ((0, TILE_PX - tile.shape[0]), (0, TILE_PX - tile.shape[1]), (0, 0)), "edge")

    path.parent.mkdir(parents=True, exist_ok=True)
    per_cm = 1e4 / SLIDE_MPP
    tifffile.imwrite(
        path,
        tiles(),
        shape=(*shape, 3),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 90},
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    return path


def touching_field(side_px: int, spacing_px: float, seed: int = 1) -> npt.NDArray[np.int32]:
    """A dense field of touching nuclei (side, side), 0 = background.

    Each pixel belongs to the nearest of jittered grid points (a Voronoi partition); a few places stay empty.
    Labels are numbered at random, so that nothing profits from their order.
    """
    random = np.random.default_rng(seed)
    count = int(np.ceil(side_px / spacing_px)) + 1
    grid = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1).reshape(-1, 2)
    points = np.round((grid + random.uniform(-JITTER, JITTER, grid.shape)) * spacing_px).astype(int)
    points = points[((points >= 0) & (points < side_px)).all(axis=1)]
    number = (random.permutation(len(points)) + 1).astype(np.int32)
    number[random.random(len(points)) < EMPTY] = 0
    image = np.full((side_px, side_px), -1, np.int32)
    image[points[:, 0], points[:, 1]] = number
    return _spread(image, band_px=2048, reach_px=int(4 * spacing_px))


def _spread(image: npt.NDArray[np.int32], band_px: int, reach_px: int) -> npt.NDArray[np.int32]:
    """Give every pixel the value of the nearest pixel that is not -1, a band of rows at a time."""
    out = np.empty_like(image)
    for y in range(0, len(image), band_px):
        low = max(y - reach_px, 0)
        band = image[low : y + band_px + reach_px]
        nearest = ndimage.distance_transform_edt(band < 0, return_distances=False, return_indices=True)
        out[y : y + band_px] = band[nearest[0], nearest[1]][y - low : y - low + band_px]
    return out


def write_truth(folder: Path, name: str, labels: npt.NDArray[np.int32], repeats: int = 1) -> Path:
    """The truth of a slide as zarr, `repeats` times along both axes with labels of its own each; the folder."""
    height, width = labels.shape
    shape = (height * repeats, width * repeats)
    array = zarr.create_array(str(folder / f"{name}.zarr"), shape=shape, chunks=(1024, 1024), dtype="int32")
    most = int(labels.max())
    for i in range(repeats * repeats):
        y, x = i // repeats * height, i % repeats * width
        array[y : y + height, x : x + width] = np.where(labels > 0, labels + i * most, 0)
    return folder


def write_plain(path: Path, shape: tuple[int, int]) -> Path:
    """A grey image (Y, X) that says nothing, tiled and compressed: for the oracles, which look at the truth."""

    def tiles() -> Iterator[Pixels]:
        for _ in range(-(-shape[0] // TILE_PX) * -(-shape[1] // TILE_PX)):
            yield np.full((TILE_PX, TILE_PX), 120, np.uint8)

    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, tiles(), shape=shape, dtype=np.uint8, tile=(TILE_PX, TILE_PX), compression="zlib", metadata=None
    )
    return path


def dsb_mosaic(side_px: int, most: int = 400) -> Pixels:
    """Images of the 2018 Data Science Bowl laid side by side into (side, side, 3) uint8, in order of their ids."""
    out = np.zeros((side_px, side_px, 3), np.uint8)
    for name, place in _dsb_places(side_px, most):
        out[place] = np.asarray(Image.open(data_folder() / "dsb2018" / "images" / f"{name}.png").convert("RGB"))
    return out


def dsb_labels(side_px: int, most: int = 400) -> npt.NDArray[np.uint32]:
    """The true nuclei of `dsb_mosaic` (side, side), each with a label of its own, 0 = background."""
    out, top = np.zeros((side_px, side_px), np.uint32), 0
    for name, place in _dsb_places(side_px, most):
        labels = np.asarray(Image.open(data_folder() / "dsb2018" / "labels" / f"{name}.png")).astype(np.uint32)
        out[place] = np.where(labels > 0, labels + top, 0)
        top += int(labels.max())
    return out


def _dsb_places(side_px: int, most: int) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Names of images and where each lies in the mosaic: in rows, from left to right."""
    y = x = row_px = 0
    for path in sorted((data_folder() / "dsb2018" / "images").glob("*.png"))[:most]:
        width, height = Image.open(path).size
        if x + width > side_px:
            y, x, row_px = y + row_px, 0, 0
        if y + height > side_px or width > side_px:
            continue
        yield path.stem, (slice(y, y + height), slice(x, x + width))
        x, row_px = x + width, max(row_px, height)
