"""What a process keeps between reads: open files, bounded in number, and decoded pixels, bounded in bytes.

Nothing a read returns depends on what is kept: caches only save opening and decoding again.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

OPEN_FILES = 64  # plates have thousands of files; the usual limit of a process is 1024
TILE_CACHE_BYTES = 32 * 2**20  # the tiles shared by neighbouring patches of 1024 px: about a hundred
WHOLE_CACHE_BYTES = 128 * 2**20  # images that can only be decoded whole; larger ones are staged


class Handle(Protocol):
    def close(self) -> None: ...


class OpenFiles:
    """Open handles of this process, at most `limit` idle ones; the longest unused is closed first."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._idle_or_used: OrderedDict[Hashable, Handle] = OrderedDict()
        self._users: dict[int, int] = {}
        self._retired: set[int] = set()

    def __len__(self) -> int:
        return len(self._idle_or_used)

    @contextmanager
    def borrow(self, key: Hashable, opener: Callable[[], Any]) -> Iterator[Any]:
        """The open handle of `key`, opened if need be; it is not closed while it is borrowed."""
        handle = self._take(key, opener)
        try:
            yield handle
        finally:
            self._give_back(handle)

    def drop(self, key: Hashable) -> None:
        """Close the handle of `key`, at once or when its last borrower is done."""
        with self._lock:
            handle = self._idle_or_used.pop(key, None)
            if handle is not None:
                self._retire(handle)

    def _take(self, key: Hashable, opener: Callable[[], Any]) -> Handle:
        with self._lock:
            handle = self._idle_or_used.get(key)
            if handle is None:
                handle = self._idle_or_used[key] = opener()
            self._idle_or_used.move_to_end(key)
            self._users[id(handle)] = self._users.get(id(handle), 0) + 1
            self._trim()
            return handle

    def _trim(self) -> None:
        idle = [key for key, handle in self._idle_or_used.items() if not self._users.get(id(handle))]
        for key in idle[: max(0, len(self._idle_or_used) - self.limit)]:
            self._retire(self._idle_or_used.pop(key))

    def _retire(self, handle: Handle) -> None:
        if self._users.get(id(handle)):
            self._retired.add(id(handle))
        else:
            handle.close()

    def _give_back(self, handle: Handle) -> None:
        with self._lock:
            self._users[id(handle)] -= 1
            if self._users[id(handle)]:
                return
            del self._users[id(handle)]
            if id(handle) in self._retired:
                self._retired.discard(id(handle))
                handle.close()


class PixelCache:
    """Decoded arrays by key, at most `capacity_bytes` of them; the newest always stays, however large."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0
        self._lock = threading.Lock()
        self._arrays: OrderedDict[tuple[Hashable, ...], npt.NDArray[Any]] = OrderedDict()

    def get(self, key: tuple[Hashable, ...], make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The read-only array of `key`, made by `make` when it is not held."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        pixels = np.asarray(make())
        pixels.flags.writeable = False
        with self._lock:
            self._keep(key, pixels)
        return pixels

    def drop(self, first: Hashable) -> None:
        """Forget every array whose key starts with `first`."""
        with self._lock:
            for key in [key for key in self._arrays if key[0] == first]:
                self.held_bytes -= self._arrays.pop(key).nbytes

    def _keep(self, key: tuple[Hashable, ...], pixels: npt.NDArray[Any]) -> None:
        if key in self._arrays:
            return
        self._arrays[key] = pixels
        self.held_bytes += pixels.nbytes
        while self.held_bytes > self.capacity_bytes and len(self._arrays) > 1:
            self.held_bytes -= self._arrays.popitem(last=False)[1].nbytes


open_files = OpenFiles()
tile_cache = PixelCache(TILE_CACHE_BYTES)
whole_cache = PixelCache(WHOLE_CACHE_BYTES)


def stamp(path: str) -> tuple[str, int, int]:
    """(path, size in bytes, time of last change in ns): tells a file from an older one. May raise OSError."""
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def release(key: Hashable) -> None:
    """Close the handle and forget the pixels of one stamped file."""
    open_files.drop(key)
    tile_cache.drop(key)
    whole_cache.drop(key)
