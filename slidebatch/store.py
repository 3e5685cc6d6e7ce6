"""Files of a run: atomic writes, receipts, shards of nuclei, and zarr arrays with one writer a shard.

A task writes its outputs aside, renames them into place, and last writes its *receipt*: the fingerprint of
everything the result depends on, and size and checksum of every output. A receipt that agrees with the files is
the only proof that a task is done; the presence of a chunk proves nothing, because zarr leaves out chunks that
hold only zeros. Tasks do not sync: what a power cut takes, checksums miss, and the task is done again. The
driver syncs everything once, before the manifest says that the run is done.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from math import log2
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from pydantic import Field, PositiveInt, model_validator
from safetensors import safe_open
from safetensors.numpy import save
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore, MemoryStore, StorePath

from slidebatch.errors import EnvironmentFault
from slidebatch.faults import readable, system_errors
from slidebatch.geometry import Box
from slidebatch.instances import Instances
from slidebatch.spec import Spec

METADATA = "zarr.json"
"""The file that makes a folder a zarr array or group of format 3."""

Shape = tuple[int, ...]

FAULTY_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENOMEM}

if find_spec("zarrs") is not None:  # the extra `fast`: the same files by other code
    import zarrs  # noqa: F401  (registers its pipeline)

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


class OutputSpec(Spec):
    """Where results go and how they are stored."""

    path: str = Field(description="Folder of the results; the same command on the same folder resumes.")
    image: Literal["auto", "copy", "none"] = Field(
        default="auto",
        description="Copy the image beside its labels: auto copies plates and leaves slides where they are.",
    )
    chunk_px: PositiveInt = Field(default=512, description="Side of a chunk of the label images, in pixels.")
    shard_px: PositiveInt = Field(
        default=4096, description="Side of a shard of the label images, in pixels; a power of two times chunk_px."
    )
    keep_maps: bool = Field(default=False, description="Keep the networks' class maps after the run.")

    @model_validator(mode="after")
    def _shard_of_chunks(self) -> OutputSpec:
        times = self.shard_px / self.chunk_px
        if times < 1 or times != 2 ** round(log2(times)):
            raise ValueError(
                f"shard_px {self.shard_px} is not chunk_px {self.chunk_px} times a power of two; "
                f"take {self.chunk_px * 8}, for instance"
            )
        return self

    @property
    def owned_levels(self) -> int:
        """How many lower levels of a region are whole chunks, so that who paints the region owns them too."""
        return round(log2(self.shard_px / self.chunk_px))

    def shard_at(self, level: int) -> int:
        """Side of a shard of a level, in that level's pixels: a region's, or for the coarsest levels the full one."""
        return self.shard_px >> level if level <= self.owned_levels else self.shard_px


@contextmanager
def disk_faults() -> Iterator[None]:
    """Turn a failing disk or mount into an `EnvironmentFault`; other errors pass."""
    try:
        yield
    except MemoryError as error:
        raise EnvironmentFault(
            "this process ran out of memory; free some or use fewer workers, then give the same command again"
        ) from error
    except OSError as error:
        if error.errno in FAULTY_DISK:
            raise EnvironmentFault(
                f"{error.filename or 'the results folder'}: {error.strerror}; "
                "mend that, then give the same command again to resume"
            ) from error
        raise


@contextmanager
def written_aside(path: Path, durable: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to it at the end: the file is whole or not there.

    `durable`: also after a power cut.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield aside
        if durable:
            _sync(aside)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def write_atomically(path: Path, data: bytes, durable: bool = False) -> None:
    """Write a file so that it is either whole or not there; `durable`: also after a power cut."""
    with written_aside(path, durable) as aside:
        aside.write_bytes(data)


def write_json(path: Path, value: Any, durable: bool = False) -> None:
    """Write JSON atomically, keys in the given order; durable files are few and for people too, so indented."""
    write_atomically(path, (json.dumps(value, indent=1 if durable else None) + "\n").encode(), durable)


def read_json(path: Path) -> Any:
    """The value of a JSON file that slidebatch wrote."""
    return json.loads(path.read_bytes())


def sync_all() -> None:
    """Make everything written so far durable."""
    os.sync()


def _sync(path: Path) -> None:
    """Make a file's content, or the renames inside a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(*values: Any) -> str:
    """A short stable digest of JSON-able values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


# Receipts


def checksum(path: Path) -> list[int] | None:
    """[size, crc32] of a file's bytes; None where there is no file (zarr leaves out blank chunks)."""
    try:
        with open(path, "rb") as file:
            size, crc = 0, 0
            while block := file.read(1 << 22):
                size, crc = size + len(block), zlib.crc32(block, crc)
    except FileNotFoundError:
        return None
    return [size, crc]


def write_receipt(path: Path, fingerprint: str, outputs: Iterable[Path], facts: dict[str, Any]) -> dict[str, Any]:
    """Write the receipt that makes the outputs count; returns the receipt."""
    root = path.parent
    sums = {os.path.relpath(output, root): checksum(output) for output in outputs}
    receipt = {"fingerprint": fingerprint, "outputs": sums, **facts}
    write_json(path, receipt)
    return receipt


def valid_receipt(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The receipt, if it is there, has this fingerprint, and every output is still as it says; else None."""
    try:
        receipt: dict[str, Any] = read_json(path)
    except (FileNotFoundError, ValueError):
        return None
    if receipt.get("fingerprint") != fingerprint:
        return None
    whole = all(checksum(path.parent / name) == expected for name, expected in receipt["outputs"].items())
    return receipt if whole else None


def lost_output(path: Path) -> Path | None:
    """The first output that is not as large as its receipt says, or a lost receipt itself; None: all are there.

    Only sizes are looked at.
    """
    try:
        outputs = read_json(path)["outputs"]
    except (FileNotFoundError, ValueError):
        return path
    for name, expected in outputs.items():
        output = path.parent / name
        if (None if expected is None else expected[0]) != _size(output):
            return output.resolve()
    return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


# Shards of nuclei


def write_shard(path: Path, arrays: dict[str, npt.NDArray[Any]], fingerprint: str) -> None:
    """Write named arrays as one safetensors file that carries the fingerprint of its making."""
    contiguous = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    write_atomically(path, save(contiguous, {"fingerprint": fingerprint}))


def read_shard(path: Path, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a shard by name, or only those asked for. ResultsError if it is missing or broken."""
    with readable(path, "the shard is"), safe_open(str(path), framework="np") as shard:
        return {name: shard.get_tensor(name) for name in names or shard.keys()}


def read_instances(path: Path) -> Instances:
    """The nuclei of a shard."""
    return Instances(**read_shard(path, list(Instances.__dataclass_fields__)))


# Zarr arrays


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
                if _size(file) == 0:
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


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clean_partial(folder: Path) -> int:
    """Remove files that killed tasks had written aside; how many there were."""
    left = [p for p in folder.rglob("*.partial") if p.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
