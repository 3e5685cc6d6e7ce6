"""OME-Zarr images, versions 0.4 (zarr v2) and 0.5 (zarr v3), alone or inside an HCS plate.

Source: the OME-NGFF specification (multiscales, omero, coordinateTransformations). Chunks are read straight
from the store at every read; nothing is kept open.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import BaseZarrError

from slidebatch.errors import SlidebatchError
from slidebatch.slides import facts
from slidebatch.slides.facts import Facts, Window

AXES = "tczyx"
LARGEST_CHUNK_BYTES = 64 * 2**20  # a window of one pixel decodes a whole chunk
MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def is_zarr(path: str) -> bool:
    """Whether a folder is a zarr group or array."""
    return any((Path(path) / mark).is_file() for mark in MARKS)


class ZarrImage:
    """One multiscale image: a group with `multiscales` in its attributes."""

    def __init__(self, path: str, inner: str = "") -> None:
        self.path = os.path.join(path, inner) if inner else path
        try:
            group = zarr.open_group(self.path, mode="r")
            attributes = group.attrs.asdict()
            image = _multiscale(self.path, attributes)
            self._axes = _axes(self.path, image)
            self._arrays = [_array(self.path, group, d["path"], self._axes) for d in image["datasets"]]
            self.facts = _facts(self.path, attributes, image, self._arrays)
        except SlidebatchError:
            raise
        except OSError as error:
            facts.blame(self.path, error)
        except (BaseZarrError, KeyError, TypeError, ValueError, IndexError) as error:
            found = f"is not a readable OME-Zarr image ({type(error).__name__}: {error})"
            facts.fail(self.path, found, "give an image of OME-Zarr 0.4 or 0.5", error)

    def read(self, window: Window) -> npt.NDArray[Any]:
        array = self._arrays[window.level]
        try:
            pixels = self._deepest(array, window)
        except (SlidebatchError, MemoryError):
            raise
        except OSError as error:
            facts.blame(self.path, error)
        except Exception as error:  # every codec has errors of its own
            found = f"a chunk of {array.name} cannot be read ({error})"
            facts.fail(self.path, found, "copy or write it again", error)
        return np.ascontiguousarray(facts.converted(pixels, self.facts.dtype))

    def unreadable(self) -> str | None:
        for array in self._arrays:
            chunk_bytes = int(np.prod(np.minimum(array.chunks, array.shape))) * array.dtype.itemsize
            if chunk_bytes > LARGEST_CHUNK_BYTES:
                return f"its chunks of {array.chunks}"
        return None

    def close(self) -> None:
        """Nothing is held open."""

    def _deepest(self, array: zarr.Array[Any], window: Window) -> npt.NDArray[Any]:
        # As many z planes at a time as a chunk is deep: a chunk is decoded once.
        deep = array.chunks[self._axes.index("z")] if "z" in self._axes else 1
        first = window.depths[0]
        run = [z for z in window.depths if z // deep == first // deep]
        out = self._planes(array, window, run)
        for start in range(len(run), len(window.depths), deep):
            np.maximum(out, self._planes(array, window, window.depths[start : start + deep]), out=out)
        return out

    def _planes(self, array: zarr.Array[Any], window: Window, depths: Sequence[int]) -> npt.NDArray[Any]:
        rows, columns = window.box.slices()
        low, high = min(window.channels), max(window.channels) + 1
        planes = slice(depths[0], depths[-1] + 1)
        picks: dict[str, int | slice] = {"t": 0, "c": slice(low, high), "z": planes, "y": rows, "x": columns}
        pixels = np.asarray(array[tuple(picks[axis] for axis in self._axes)])
        if "z" in self._axes:
            pixels = pixels.max(axis=[a for a in self._axes if a != "t"].index("z"))
        if "c" not in self._axes:
            pixels = pixels[None]
        chosen = tuple(channel - low for channel in window.channels)
        return pixels if chosen == tuple(range(high - low)) else pixels[list(chosen)]


def _multiscale(path: str, attributes: Mapping[str, Any]) -> Any:
    described = attributes.get("ome", attributes)
    if "multiscales" in described:
        return described["multiscales"][0]
    for word in ("plate", "well"):
        if word in described:
            facts.fail(path, f"is an OME-Zarr {word}, expected one image in it", "name the image inside it")
    facts.fail(path, "has no multiscales attribute", "give the group of an OME-Zarr image")


def _axes(path: str, image: Mapping[str, Any]) -> list[str]:
    # Version 0.3 wrote plain names; a file without axes (0.1, 0.2) is always t, c, z, y, x.
    axes = [a["name"] if isinstance(a, Mapping) else a for a in image.get("axes", AXES)]
    in_order = [a for a in AXES if a in axes]
    if axes != in_order or axes[-2:] != ["y", "x"]:
        found = f"has the axes {axes}, expected some of {list(AXES)} in this order"
        facts.fail(path, found, "write it again")
    return axes


def _array(path: str, group: zarr.Group, name: str, axes: list[str]) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array) or array.ndim != len(axes):
        facts.fail(path, f"its level {name} is no array of {len(axes)} dimensions", "write it again")
    if "t" in axes and array.shape[0] > 1:
        found = f"is a time series: it has {array.shape[0]} steps along the time axis (t)"
        facts.fail(path, f"{found}, expected channels and z only", "write each step to an image of its own")
    return array


def _facts(
    path: str, attributes: Mapping[str, Any], image: Mapping[str, Any], arrays: Sequence[zarr.Array[Any]]
) -> Facts:
    axes = _axes(path, image)
    sizes = dict(zip(axes, arrays[0].shape, strict=True))
    dtype = facts.result_dtype(path, arrays[0].dtype)
    omero = attributes.get("ome", attributes).get("omero") or attributes.get("omero") or {}
    labels = [channel.get("label") for channel in omero.get("channels", [])]
    names = facts.unique_names(labels, sizes.get("c", 1))
    rgb = facts.names_say_rgb(names, dtype)
    return Facts(
        levels=facts.make_levels([(a.shape[-2], a.shape[-1]) for a in arrays]),
        channels=facts.RGB if rgb else names,
        depth=sizes.get("z", 1),
        rgb=rgb,
        dtype=dtype,
        mpp=_pixel_size_um(image),
    )


def _pixel_size_um(image: Mapping[str, Any]) -> tuple[float, float] | None:
    # Scale of the finest dataset times the scale of the whole multiscale, with the unit that the axes state.
    steps = [*image["datasets"][0].get("coordinateTransformations", [])]
    steps += [*image.get("coordinateTransformations", [])]
    y, x = 1.0, 1.0
    for step in (s for s in steps if s.get("type") == "scale"):
        y, x = y * float(step["scale"][-2]), x * float(step["scale"][-1])
    units = [a.get("unit") if isinstance(a, Mapping) else None for a in image.get("axes", AXES)][-2:]
    um_y, um_x = facts.unit_um(units[0]), facts.unit_um(units[1])
    return facts.positive_mpp(y * um_y, x * um_x) if um_y and um_x else None
