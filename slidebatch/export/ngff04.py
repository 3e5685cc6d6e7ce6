"""OME-Zarr of the older kind, NGFF 0.4 in zarr format 2, for readers that do not know 0.5 yet.

The same tree as `labels.zarr`: plates with their images, label images, pyramids. Chunks are a file each, for format 2
has no shards; compressed with zlib, which every reader knows. Source: the OME-NGFF specification, version 0.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Zlib

from slidebatch import ngff
from slidebatch.export.wish import Wish
from slidebatch.results import Results, datasets, open_group

BLOCK_PX = 4096
"""Side of what is copied at once, at least; whole chunks."""


def write(results: Results, slides: tuple[str, ...], wish: Wish, path: Path) -> None:
    """Write some slides: their images where the results have copies, their labels, and the plates that they are on."""
    source = results.path / "labels.zarr"
    entries = [results.entry(slide) for slide in slides]
    leaves = [entry[what] for entry in entries for what in ("image", "labels") if entry.get(what)]
    wanted = {"", *leaves, *(parent for leaf in leaves for parent in _parents(leaf))}
    for name in sorted(wanted):
        read = open_group(source / name)
        told: Any = read.attrs.asdict()
        group = zarr.open_group(str(path / name), mode="a", zarr_format=2)
        below = {path.removeprefix(name).strip("/") for path in wanted if not name or path.startswith(f"{name}/")}
        group.attrs.update(ngff.as_04(told, below, _windows(read) if "omero" in told.get("ome", {}) else ()))
    for name in leaves:
        _copy_levels(source / name, path / name)


def _windows(image: Any) -> list[dict[str, float]]:
    """What each channel of an image can hold and does hold, by its coarsest level."""
    array = image[datasets(image)[-1]["path"]]
    whole = array.dtype.kind in "ui"
    found = []
    for channel in range(array.shape[0]):
        values = np.asarray(array[channel])
        values = values[np.isfinite(values)]
        start, end = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        least, most = (float(np.iinfo(array.dtype).min), float(np.iinfo(array.dtype).max)) if whole else (start, end)
        found.append({"min": least, "max": most, "start": start, "end": end})
    return found


def is_export(folder: Path) -> bool:
    """Whether a folder is a zarr group of format 2, as exports are."""
    return (folder / ".zgroup").is_file()


def _parents(name: str) -> Iterator[str]:
    """
    >>> list(_parents("A/1/0"))
    ['A/1', 'A']
    """
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _copy_levels(source: Path, target: Path) -> None:
    group: Any = open_group(source)
    for level in datasets(group):
        array = group[level["path"]]
        made = zarr.create_array(
            store=str(target / level["path"]),
            shape=array.shape,
            dtype=array.dtype,
            chunks=array.chunks,
            compressors=Zlib(level=1),
            fill_value=0,
            zarr_format=2,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        for block in _blocks(array):
            made[block] = np.asarray(array[block])


def _blocks(array: Any) -> Iterator[tuple[Any, ...]]:
    """Slices of an array (..., Y, X) that hold whole chunks, one plane at a time."""
    side = [max(1, BLOCK_PX // chunk) * chunk for chunk in array.chunks[-2:]]
    for lead in np.ndindex(*(-(-s // c) for s, c in zip(array.shape[:-2], array.chunks[:-2], strict=True))):
        first = tuple(slice(i * c, (i + 1) * c) for i, c in zip(lead, array.chunks[:-2], strict=True))
        for y in range(0, array.shape[-2], side[0]):
            for x in range(0, array.shape[-1], side[1]):
                yield (*first, slice(y, y + side[0]), slice(x, x + side[1]))
