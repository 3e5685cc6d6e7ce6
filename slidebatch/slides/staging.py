"""Staging: an image that cannot be read by window is copied once into chunked zarr, then read from there.

The copy is written into a folder of its own beside its final name and renamed when whole. Several processes
may stage one image at the same time: each writes its own folder, the first rename wins, the others are thrown
away; the name holds the source's path, size and time of change, so the copy of an older file is never taken.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from slidebatch.errors import EnvironmentFault
from slidebatch.geometry import Box
from slidebatch.slides import caches, facts
from slidebatch.slides.facts import Reader, Window

LAYOUT = 1  # of the copy; part of its name
CHUNK_PX = 512
BAND_PX = 1024


class StagedImage:
    """The staged copy of an image: the image's own facts, the copy's pixels. The copy is made by the first read.

    So opening stays cheap, whoever opens (a plan of many images decodes none of them).
    """

    def __init__(self, original: Reader, folder: str) -> None:
        self.path, self.facts, self._original = original.path, original.facts, original
        self._folder = folder
        self._lock = threading.Lock()
        self._levels: list[zarr.Array[Any]] = []

    def read(self, window: Window) -> npt.NDArray[Any]:
        rows, columns = window.box.slices()
        array, low, high = self._level(window.level), min(window.channels), max(window.channels) + 1
        try:
            out = np.asarray(array[low:high, window.depths[0], rows, columns])
            for z in window.depths[1:]:
                np.maximum(out, np.asarray(array[low:high, z, rows, columns]), out=out)
        except OSError as error:
            facts.blame(self.path, error)
        return np.ascontiguousarray(out[[channel - low for channel in window.channels]])

    def _level(self, level: int) -> zarr.Array[Any]:
        with self._lock:
            if not self._levels:
                self._levels = self._staged()
        return self._levels[level]

    def _staged(self) -> list[zarr.Array[Any]]:
        try:
            copy = staged_copy(self._original, self._folder)
            return [_open(copy, level) for level in range(len(self.facts.levels))]
        except OSError as error:
            found = f"{self._folder}: the copy of {self.path} could not be written or read ({error})"
            raise EnvironmentFault(f"{found}; free or mend that folder, then run again") from error

    def unreadable(self) -> str | None:
        return None

    def close(self) -> None:
        self._original.close()


def staged_copy(original: Reader, folder: str) -> Path:
    """The folder of the whole staged copy, made now if there is none; OSError where it cannot be written."""
    final = Path(folder) / _name(original.path)
    if final.is_dir():
        return final
    Path(folder).mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=folder))
    try:
        for level in range(len(original.facts.levels)):
            _copy_level(original, level, aside)
        _rename(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        original.close()  # frees what was decoded whole
    return final


def _name(path: str) -> str:
    digest = hashlib.sha256(repr((LAYOUT, *caches.stamp(path))).encode()).hexdigest()
    return f"{digest[:24]}.zarr"


def _rename(aside: Path, final: Path) -> None:
    try:
        os.rename(aside, final)
    except OSError:
        if not final.is_dir():  # otherwise another process was first, and its copy is whole
            raise


def _open(copy: Path, level: int) -> zarr.Array[Any]:
    return zarr.open_array(copy / str(level), mode="r")


def _copy_level(original: Reader, level: int, aside: Path) -> None:
    told = original.facts
    count = len(told.channels)
    array = zarr.create_array(
        aside / str(level),
        shape=(count, told.depth, *told.levels[level].shape),
        chunks=(count if told.rgb else 1, 1, CHUNK_PX, CHUNK_PX),
        dtype=told.dtype,
        compressors=ZstdCodec(level=1),
    )
    groups = [tuple(range(count))] if told.rgb else [(channel,) for channel in range(count)]
    for group in groups:
        for z in range(told.depth):
            for box in _bands(told.levels[level].shape):
                rows, columns = box.slices()
                pixels = original.read(Window(level, box, group, (z,)))
                array[group[0] : group[-1] + 1, z, rows, columns] = pixels


def _bands(shape: tuple[int, int]) -> Iterator[Box]:
    for y in range(0, shape[0], BAND_PX):
        yield Box(y, 0, min(y + BAND_PX, shape[0]), shape[1])
