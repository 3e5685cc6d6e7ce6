"""Label images and images of results as lazy arrays with coordinates.

Coordinates y and x are pixel centres in the table's frame (the slide's first pixel has its centre at 0): the table's
columns y and x times mpp. In micrometres where the pixel size is known, else in level-0 pixels; attribute `unit` says
which, `step` how large a pixel is, `level0_step` one of level 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import InputError, ResultsError
from slidebatch.geometry import Box
from slidebatch.results.manifest import MISSING, Entry

if TYPE_CHECKING:
    import xarray as xr
    import zarr

    from slidebatch.slides import Grid, Slide

BLOCK_PX = 1024
"""Side of the pieces in which an image is read from its source."""


def open_group(path: Path) -> zarr.Group:
    """An existing zarr group of the results, for reading. ResultsError if it is not there."""
    import zarr

    try:
        return zarr.open_group(str(path), mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise ResultsError(f"{path}: expected a zarr group, found none; {MISSING}.") from error


def datasets(group: zarr.Group) -> list[dict[str, Any]]:
    """The levels that an image group's metadata names, finest first. ResultsError if it names none."""
    attributes: Any = group.attrs.asdict()
    try:
        return list(attributes["ome"]["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError) as error:
        where = group.store_path
        raise ResultsError(f"{where}: expected OME-Zarr multiscales, found none; {MISSING}.") from error


def centres(size: int, step_px: float) -> npt.NDArray[np.float64]:
    """Centres of `size` pixels, each `step_px` level-0 pixels wide, in level-0 pixels: float64 (size,).

    >>> centres(2, 2.0)
    array([0.5, 2.5])
    """
    return (np.arange(size, dtype=np.float64) + 0.5) * step_px - 0.5


def stored(group: Path, entry: Entry, what: str, level: int) -> xr.DataArray:
    """A level of a label image or of an image's copy: dask chunks of whole shards. ResultsError: no such level."""
    import dask.array as da

    opened = open_group(group)
    levels = datasets(opened)
    if not 0 <= level < len(levels):
        raise ResultsError(f"{what} of {entry['slide']} have no level {level}; expected 0 to {len(levels) - 1}.")
    array: Any = opened[levels[level]["path"]]
    # Whole shards: a smaller piece would read and decode the shard's index again and again.
    pixels = da.from_zarr(array, chunks=array.shards or array.chunks)
    step_px = _scale(levels[level]) / _scale(levels[0]) / (entry.get("scale") or 1.0)
    return _placed(pixels, entry, what, step_px)


def from_source(entry: Entry, level: int) -> xr.DataArray:
    """An image of which there is no copy, read from its own files on the grid of the labels.

    level  of the labels' pyramid; coarser ones are resampled from the nearest finer level that the file has
    errors ResultsError where the source is not told, is gone, or has another shape than when it was run
    """
    import dask.array as da
    from dask.array.core import normalize_chunks

    from slidebatch.slides import pick_grid

    slide = _opened(entry)
    scale = (entry.get("scale") or 1.0) / 2**level
    try:
        grid = pick_grid(slide, None, scale, entry["slide"])
    except InputError as error:
        raise ResultsError(f"{entry['slide']} has no level {level} ({error}).") from error
    if level == 0 and list(grid.shape) != list(entry["shape"]):
        raise ResultsError(
            f"{slide.source.files[0].path} holds {grid.shape} pixels where the run saw {tuple(entry['shape'])}; "
            "restore the image of the run, or run again."
        )
    sides = [normalize_chunks(BLOCK_PX, (size,))[0] for size in grid.shape]
    blocks = ((len(slide.channels),), *sides)
    pixels = da.map_blocks(_window, slide=slide, grid=grid, chunks=blocks, dtype=slide.dtype, meta=_nothing(slide))
    return _placed(pixels, entry, "image", 1.0 / grid.scale)


def _window(slide: Slide, grid: Grid, block_info: Any = None) -> npt.NDArray[Any]:
    """One piece of an image (C, Y, X); dask says which."""
    from slidebatch.slides import read_grid

    _, (y0, y1), (x0, x1) = block_info[None]["array-location"]
    return read_grid(slide, grid, Box(y0, x0, y1, x1))


def _nothing(slide: Slide) -> npt.NDArray[Any]:
    return np.empty((0, 0, 0), slide.dtype)


def _opened(entry: Entry) -> Slide:
    from slidebatch.slides import Source, SourceFile, open_slide

    if not entry.get("files"):
        raise ResultsError(
            f"the results hold no copy of the image of {entry['slide']} and do not tell how to read it; read the slide "
            f"itself ({entry.get('source')}), or run with --set output.image=copy."
        )
    files = tuple(SourceFile(**file) for file in entry["files"])
    try:
        return open_slide(Source(entry["slide"], files, mpp=entry.get("mpp")), z=entry.get("z", "max"))
    except InputError as error:
        raise ResultsError(
            f"the results hold no copy of the image of {entry['slide']}, and its source cannot be read: {error}"
        ) from error


def _scale(dataset: dict[str, Any]) -> float:
    """Width of a pixel of a level along x, in the unit of its metadata."""
    return float(next(t["scale"][-1] for t in dataset["coordinateTransformations"] if t["type"] == "scale"))


def _placed(pixels: Any, entry: Entry, what: str, step_px: float) -> xr.DataArray:
    """Pixels (y, x) or (c, y, x) with their coordinates; channels by name."""
    import xarray as xr

    dims = ("c", "y", "x")[-pixels.ndim :]
    sizes = dict(zip(dims, pixels.shape, strict=True))
    mpp = entry.get("mpp")
    coords: dict[str, Any] = {axis: centres(sizes[axis], step_px) * (mpp or 1.0) for axis in ("y", "x")}
    if "c" in dims and len(entry.get("channels") or ()) == sizes["c"]:
        coords["c"] = list(entry["channels"])
    attributes = {
        "unit": "pixel" if mpp is None else "micrometer",
        "step": step_px * (mpp or 1.0),
        "level0_step": mpp or 1.0,
    }
    return xr.DataArray(pixels, dims=dims, coords=coords, name=f"{entry['slide']} {what}", attrs=attributes)
