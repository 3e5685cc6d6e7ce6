"""Zarr arrays with one writer a shard, and groups."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore, MemoryStore, StorePath

from slidebatch.faults import readable, system_errors
from slidebatch.geometry import Box
from slidebatch.store.files import read_json, size_of, write_atomically, write_json

METADATA = "zarr.json"
"""The file that makes a folder a zarr array or group of format 3."""

Shape = tuple[int, ...]
if find_spec("zarrs") is not None:  # the extra `fast`: the same files by other code
    import zarrs  # noqa: F401  (registers its pipeline)

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


def create_array(
    path: Path,
    shape: Sequence[int],
    dtype: str,
    chunk: Sequence[int],
    shard: Sequence[int] | None = None,
    axes: Sequence[str] | None = None,
) -> None:
    """Make a new, empty zarr v3 array (zstd-1), in place of whatever was at `path`.

    A shard that is not larger than one chunk, or an image that fits one chunk, is stored without sharding.
    """
    if path.exists():
        shutil.rmtree(path)
    clipped = tuple(max(1, min(c, s)) for c, s in zip(chunk, shape, strict=True))
    shards = None
    if shard is not None and any(s > c for s, c in zip(shape, clipped, strict=True)) and tuple(shard) != clipped:
        shards = tuple(_whole_chunks(s, c) for s, c in zip(shard, clipped, strict=True))
    write_atomically(path / METADATA, _metadata(tuple(shape), dtype, clipped, shards, tuple(axes) if axes else None))


@lru_cache(maxsize=256)
def _metadata(shape: Shape, dtype: str, chunks: Shape, shards: Shape | None, axes: tuple[str, ...] | None) -> bytes:
    """What zarr writes to say such an array: asked of it once, for a plate has thousands of one kind."""
    kept: dict[str, Any] = {}
    zarr.create_array(
        store=MemoryStore(kept),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=ZstdCodec(level=1),
        fill_value=0,
        dimension_names=axes,
        zarr_format=3,
    )
    written: bytes = kept[METADATA].to_bytes()
    return written


def _whole_chunks(size: int, chunk: int) -> int:
    return max(1, size // chunk) * chunk


def open_array(path: Path, mode: Literal["r", "r+"] = "r") -> zarr.Array:
    """An existing zarr array. ResultsError if it is not there, or its metadata is broken.

    The file of an array in format 3 is read here: zarr's way takes a millisecond and two other threads.
    """
    with readable(path, "the zarr array is"):
        told = read_json(path / METADATA) if (path / METADATA).is_file() else {}
        if told.get("node_type") != "array":
            return zarr.open_array(str(path), mode=mode)
        return zarr.Array.from_dict(StorePath(LocalStore(path, read_only=mode == "r")), told)


def region_reader(path: Path) -> Callable[[Box], npt.NDArray[Any]]:
    """A function that reads the pixels (..., Y, X) of a box of an array.

    It raises a ResultsError where a file is broken. Empty ones it looks for: zarr takes an empty shard for a blank one.
    """
    array = open_array(path)

    def read(box: Box) -> npt.NDArray[Any]:
        with readable(path, "pixels of the zarr array are"):
            for file in stored_files(path, array, box):
                if size_of(file) == 0:
                    raise ValueError(f"{file.relative_to(path)} is empty")
            return np.asarray(array[(..., *box.slices())])

    return read


def stored_files(array_path: Path, array: zarr.Array, box: Box) -> list[Path]:
    """The files that hold the pixels of `box` of an array whose last axes are (y, x), for all leading axes."""
    step = array.shards or array.chunks
    rows = range(box.y0 // step[-2], -(-box.y1 // step[-2]))
    columns = range(box.x0 // step[-1], -(-box.x1 // step[-1]))
    lead = [range(-(-s // c)) for s, c in zip(array.shape[:-2], step[:-2], strict=True)]
    keys = np.array(np.meshgrid(*lead, rows, columns, indexing="ij")).reshape(array.ndim, -1).T
    return [array_path / "c" / "/".join(str(k) for k in key) for key in keys]


def write_region(path: Path, pixels: npt.NDArray[Any], box: Box) -> list[Path]:
    """Write the pixels (..., Y, X) of a box of whole shards, cut off at the array's ends; the files that hold them.

    Old files go first: zarr reads a shard at the array's end before it writes it, and fails on a damaged one.
    """
    array = open_array(path, "r+")
    step = (array.shards or array.chunks)[-2:]
    ends = zip((box.y0, box.x0), (box.y1, box.x1), step, array.shape[-2:], strict=True)
    if any(start % size or (stop % size and stop != end) for start, stop, size, end in ends):
        raise ValueError(f"{box} does not cover whole shards of {step} pixels of {path}; one task must own each shard")
    files = stored_files(path, array, box)
    for file in files:
        file.unlink(missing_ok=True)
    with system_errors(path):
        array[(..., *box.slices())] = pixels
    return files


def write_group(path: Path, attributes: dict[str, Any]) -> None:
    """Make a zarr v3 group with these attributes, keeping what is below it."""
    write_json(path / METADATA, {"zarr_format": 3, "node_type": "group", "attributes": attributes})
