"""The files of a run: atomic writes, receipts that prove, shards of nuclei, and one writer a zarr shard."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.errors
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import ZstdCodec

from slidebatch import instances
from slidebatch.errors import EnvironmentFault, ResultsError
from slidebatch.geometry import Box
from slidebatch.store import (
    checksum,
    clean_partial,
    create_array,
    disk_faults,
    open_array,
    read_instances,
    read_shard,
    stored_files,
    valid_receipt,
    write_atomically,
    write_group,
    write_receipt,
    write_shard,
)
from slidebatch.tiling import parts
from tests.support.random_nuclei import nuclei


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A write that fails half-way leaves what was there, whole, and nothing beside it."""
    path = tmp_path / "below" / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text is no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_kills_leave_behind_is_removed(tmp_path: Path) -> None:
    """Files written aside and never renamed are removed, wherever they are; others stay."""
    for name in ("a/.x.1.partial", ".y.2.partial", "a/partial", "a/b.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert clean_partial(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["b.json", "partial"]


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    """A receipt over two outputs and a chunk that zarr left out because it is blank."""
    for name in ("one", "two"):
        write_atomically(tmp_path / "out" / name, bytes(range(200)))
    outputs = [tmp_path / "out" / name for name in ("one", "two", "blank")]
    path = tmp_path / "receipts" / "0.json"
    written = write_receipt(path, "print", outputs, {"failed": [], "slides": {"a": 1}})
    assert valid_receipt(path, "print") == written
    return path


@pytest.mark.parametrize(
    "what", ["truncate", "flip", "remove", "appear", "other print", "half a receipt", "no receipt"]
)
def test_a_receipt_proves_only_what_is_still_so(receipt: Path, what: str) -> None:
    """A truncated, flipped, missing or new output, another fingerprint or a broken receipt: not done."""
    one = receipt.parent.parent / "out" / "one"
    whole = one.read_bytes()
    if what == "truncate":
        one.write_bytes(whole[:-1])
    elif what == "flip":
        one.write_bytes(whole[:77] + bytes([whole[77] ^ 1]) + whole[78:])
    elif what == "remove":
        one.unlink()
    elif what == "appear":
        (one.parent / "blank").touch()
    elif what == "half a receipt":
        receipt.write_bytes(receipt.read_bytes()[:-30])
    elif what == "no receipt":
        receipt.unlink()
    assert valid_receipt(receipt, "other" if what == "other print" else "print") is None


def test_a_receipt_outlives_a_move(receipt: Path, tmp_path: Path) -> None:
    """Receipts name outputs from where they stand: a results folder may be moved as a whole."""
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("out", "receipts"):
        (tmp_path / name).rename(moved / name)
    assert valid_receipt(moved / "receipts" / "0.json", "print") is not None


def test_checksums_see_every_byte(tmp_path: Path) -> None:
    """Size and crc32 of a file; None where there is none."""
    (tmp_path / "file").write_bytes(b"123456789")
    assert checksum(tmp_path / "file") == [9, 0xCBF43926]  # the check value of CRC-32
    assert checksum(tmp_path / "nothing") is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE])
def test_failing_disks_are_faults_of_the_environment(number: int) -> None:
    """Errors of disk and mount stop the run with a sentence that says how to go on; other errors pass as they are."""
    with pytest.raises(EnvironmentFault, match=r"there: .*give the same command again"), disk_faults():
        raise OSError(number, "failed", "there")
    with pytest.raises(EnvironmentFault, match="out of memory"), disk_faults():
        raise MemoryError
    with pytest.raises(PermissionError), disk_faults():
        raise PermissionError(errno.EACCES, "no")


@settings(max_examples=30, deadline=None)
@given(table=nuclei())
def test_nuclei_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, table: instances.Instances) -> None:
    """A shard of nuclei gives every column back, types and all."""
    path = tmp_path_factory.mktemp("shard") / "0_0.safetensors"
    write_shard(path, table.arrays(), "print")
    for name, column in read_instances(path).arrays().items():
        assert column.dtype == table.arrays()[name].dtype
        np.testing.assert_array_equal(column, table.arrays()[name])


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    """A shard that is cut off or missing is a ResultsError that says which, and what to do."""
    path = tmp_path / "0_0.safetensors"
    write_shard(path, instances.none().arrays(), "print")
    path.write_bytes(path.read_bytes()[:-9])
    for broken in (path, tmp_path / "nothing.safetensors"):
        with pytest.raises(ResultsError, match=f"{broken.name}.*missing or broken.*same command again"):
            read_shard(broken)
    with pytest.raises(ResultsError, match="nothing: the zarr array is missing or broken"):
        open_array(tmp_path / "nothing")


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    chunk_px=st.sampled_from([8, 16]),
    chunks=st.integers(1, 3),
    layers=st.integers(1, 2),
)
def test_regions_of_whole_shards_share_no_file(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], chunk_px: int, chunks: int, layers: int
) -> None:
    """Every region of whole shards names exactly the files that writing it makes; no file belongs to two regions."""
    path, side = tmp_path_factory.mktemp("array") / "a.zarr", chunk_px * chunks
    create_array(path, (layers, *shape), "uint32", (1, chunk_px, chunk_px), (layers, side, side))
    truth = np.arange(1, layers * shape[0] * shape[1] + 1, dtype=np.uint32).reshape(layers, *shape)
    owners: dict[Path, Box] = {}
    for region in parts(shape, (side, side)):
        before = {p for p in path.rglob("*") if p.is_file()}
        array = open_array(path, "r+")
        array[:, *region.slices()] = truth[:, *region.slices()]
        made = {p for p in path.rglob("*") if p.is_file()} - before
        assert made == set(stored_files(path, array, region))
        assert not made & set(owners)
        owners.update(dict.fromkeys(made, region))
    np.testing.assert_array_equal(zarr.open_array(str(path), mode="r")[:], truth)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    sharded=st.booleans(),
    axes=st.sampled_from([None, ("y", "x")]),
    dtype=st.sampled_from(["uint8", "uint32", "float32"]),
)
def test_an_array_is_laid_out_as_zarr_does(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], sharded: bool, axes: Any, dtype: str
) -> None:
    """What is laid out once and copied for others is to the byte what zarr writes, and opens as what zarr opens."""
    folder = tmp_path_factory.mktemp("arrays")
    create_array(folder / "a", shape, dtype, (16, 16), (32, 32) if sharded else None, axes)
    made = open_array(folder / "a", "r+")
    asked = {"shape": made.shape, "dtype": made.dtype, "chunks": made.chunks, "shards": made.shards}
    asked |= {"compressors": ZstdCodec(level=1), "fill_value": 0, "dimension_names": axes}
    by_zarr = zarr.create_array(store=str(folder / "b"), **asked)
    assert (folder / "a" / "zarr.json").read_bytes() == (folder / "b" / "zarr.json").read_bytes()
    assert made.metadata == by_zarr.metadata
    assert open_array(folder / "a").read_only
    with pytest.raises(ValueError, match="read-only"):
        open_array(folder / "a")[:] = 1


def test_what_is_no_array_is_told(tmp_path: Path) -> None:
    """Nothing there, a group, and a folder of something else are refused; an array of format 2 is read."""
    write_group(tmp_path / "group", {})
    (tmp_path / "folder").mkdir()
    for name in ("nothing", "group", "folder"):
        with pytest.raises((ResultsError, zarr.errors.BaseZarrError)):
            open_array(tmp_path / name)
    zarr.create_array(store=str(tmp_path / "old"), data=np.arange(6), zarr_format=2)
    assert open_array(tmp_path / "old")[:].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_new_array_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    """Laying an array out again forgets every chunk of the old one, and metadata holds what was asked for."""
    path = tmp_path / "a.zarr"
    create_array(path, (64, 64), "uint8", (16, 16), (32, 32), ("y", "x"))
    open_array(path, "r+")[:] = 7
    create_array(path, (50, 40), "uint16", (16, 16), (32, 32), ("y", "x"))
    again = open_array(path)
    assert not np.asarray(again[:]).any()
    told = json.loads((path / "zarr.json").read_text())
    assert told["dimension_names"] == ["y", "x"]
    assert (again.chunks, again.shards, again.shape) == ((16, 16), (32, 32), (50, 40))
