"""Pictures of results: a region of a slide with the outlines of its nuclei."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from slidebatch.errors import ResultsError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

Region = tuple[float, float, float, float]
"""(y0, x0, y1, x1) in level-0 pixels, half-open, as the boxes of the table."""

ORANGE = "#E69F00"
"""Seen on dark and on stained images, and by colour-blind eyes."""


class Readable(Protocol):
    """What a picture needs of results."""

    def labels(self, slide: str, level: int = 0) -> xr.DataArray: ...

    def image(self, slide: str, level: int = 0) -> xr.DataArray: ...


@dataclass(frozen=True)
class View:
    """How a picture is made.

    channel   name or index of the one channel shown in grey; None: colour where there are R, G and B, else the first
    most_px   pixels of its longer side at most: a coarser level is shown where the region has more
    outlines  whether nuclei are outlined
    axes      to draw on; None: new ones
    """

    channel: str | int | None = None
    most_px: int = 2000
    outlines: bool = True
    axes: Axes | None = None


def cut(results: Readable, slide: str, region: Region, level: int = 0) -> xr.Dataset:
    """Labels and image of a region at a level: variables `labels` (y, x) and `image` (c, y, x), lazy.

    The image has the coordinates of the labels. ResultsError where the region lies outside the slide.
    """
    import xarray as xr

    labels = _inside(results.labels(slide, level), region)
    if not labels.size:
        raise ResultsError(f"the region {region} lies outside {slide}; see .labels({slide!r}) for what there is.")
    image = _inside(results.image(slide, level), region)
    sizes = {axis: slice(0, min(labels.sizes[axis], image.sizes[axis])) for axis in ("y", "x")}
    labels, image = labels.isel(sizes), image.isel(sizes)
    # The same pixels up to rounding: the source's own levels may begin a fraction of a pixel apart.
    image = image.assign_coords(y=labels.y, x=labels.x)
    return xr.Dataset({"labels": labels, "image": image}, attrs={"unit": labels.attrs["unit"]})


def _inside(array: xr.DataArray, region: Region) -> xr.DataArray:
    """The pixels of an array that a region touches."""
    per_px = array.attrs["step"] / array.attrs["level0_step"]
    spans = {}
    for axis, low, high in (("y", region[0], region[2]), ("x", region[1], region[3])):
        first, last = np.floor(low / per_px + 1e-6), np.ceil(high / per_px - 1e-6)
        spans[axis] = slice(*(int(np.clip(end, 0, array.sizes[axis])) for end in (first, last)))
    return array.isel(spans)


def plot(results: Readable, slide: str, region: Region | None, view: View) -> Axes:
    """See `Results.plot`."""
    from matplotlib import pyplot

    level, parts = _at_level(results, slide, region, view.most_px)
    pixels = _shown(parts["image"], view.channel)
    axes = view.axes if view.axes is not None else pyplot.subplots(figsize=(8, 8), layout="constrained")[1]
    y, x, half = parts.y.to_numpy(), parts.x.to_numpy(), results.labels(slide, level).attrs["step"] / 2
    extent = (x[0] - half, x[-1] + half, y[-1] + half, y[0] - half)
    axes.imshow(pixels, cmap="gray", extent=extent, interpolation="nearest")
    if view.outlines:
        _draw_outlines(axes, np.asarray(parts["labels"]), (y[0] - half, x[0] - half), 2 * half)
    unit = "µm" if parts.attrs["unit"] == "micrometer" else "px"
    axes.set(title=slide, xlabel=f"x ({unit})", ylabel=f"y ({unit})")
    return axes


def _at_level(results: Readable, slide: str, region: Region | None, most_px: int) -> tuple[int, xr.Dataset]:
    """The finest level at which a region is no larger than `most_px` (the coarsest, if none), with its pixels."""
    level = 0
    while True:
        whole = results.labels(slide, level)
        area = region if region is not None else (0, 0, *_ends(whole))
        sizes = _inside(whole, area).shape
        if max(sizes) <= most_px:
            return level, cut(results, slide, area, level)
        try:
            results.labels(slide, level + 1)
        except ResultsError:
            return level, cut(results, slide, area, level)
        level += 1


def _ends(array: xr.DataArray) -> tuple[float, float]:
    """Where an array ends, in level-0 pixels (y, x)."""
    per_px = array.attrs["step"] / array.attrs["level0_step"]
    return array.sizes["y"] * per_px, array.sizes["x"] * per_px


def _shown(image: xr.DataArray, channel: str | int | None) -> npt.NDArray[Any]:
    """Pixels as they are shown: (Y, X, 3) for colour, else (Y, X) stretched from the 1st to the 99.8th percentile."""
    names: Sequence[Any] = image.c.to_numpy().tolist() if "c" in image.coords else list(range(image.sizes["c"]))
    if channel is None and [str(n) for n in names] == ["R", "G", "B"]:
        return np.moveaxis(np.asarray(image), 0, -1)
    place = 0 if channel is None else _place(names, channel)
    pixels = np.asarray(image[place]).astype(np.float64)
    known = pixels[np.isfinite(pixels)]
    low, high = np.percentile(known, [1, 99.8]) if known.size else (0.0, 1.0)
    return np.clip((pixels - low) / max(high - low, 1e-9), 0, 1)


def _place(names: Sequence[Any], channel: str | int) -> int:
    if channel in names:
        return list(names).index(channel)
    if isinstance(channel, int) and 0 <= channel < len(names):
        return channel
    raise ResultsError(f"there is no channel {channel!r}; expected one of {', '.join(str(n) for n in names)}.")


def _draw_outlines(
    axes: Axes, labels: npt.NDArray[np.unsignedinteger], corner: tuple[float, float], step: float
) -> None:
    """Draw the borders of all labels (Y, X): pixels are `step` wide and begin at `corner` (y, x)."""
    from matplotlib.collections import LineCollection

    from slidebatch.outlines import trace

    names, place = np.unique(labels, return_inverse=True)
    boxes = _boxes(place.reshape(labels.shape), len(names))
    known = names > 0
    rings = trace(labels, names[known].astype(np.int64), boxes[known])
    closed = [np.concatenate([ring, ring[:1]]) for ring in np.split(rings.point, rings.start[1:-1]) if len(ring)]
    lines = [np.stack([corner[1] + ring[:, 1] * step, corner[0] + ring[:, 0] * step], axis=1) for ring in closed]
    axes.add_collection(LineCollection(lines, colors=ORANGE, linewidths=0.8))


def _boxes(place: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.int64]:
    """Boxes (n, 4) of the labels 0..n-1 of an image (Y, X)."""
    box = np.zeros((n, 4), np.int64)
    for axis in (0, 1):
        low, high = np.full(n, place.shape[axis]), np.zeros(n, np.int64)
        at = np.broadcast_to(np.expand_dims(np.arange(place.shape[axis]), 1 - axis), place.shape)
        np.minimum.at(low, place.ravel(), at.ravel())
        np.maximum.at(high, place.ravel(), at.ravel() + 1)
        box[:, axis], box[:, axis + 2] = low, high
    return box
