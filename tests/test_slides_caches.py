"""Laws of what a process keeps: never more than stated, never closed while in use."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slidebatch.slides.caches import OpenFiles, PixelCache


class Handle:
    closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


@given(keys=st.lists(st.integers(0, 9), max_size=40), capacity_bytes=st.integers(0, 300))
def test_kept_bytes_are_bounded(keys: list[int], capacity_bytes: int) -> None:
    """Any sequence of reads gives each key's own pixels and keeps at most the capacity, or the newest alone."""
    cache = PixelCache(capacity_bytes)
    for key in keys:
        pixels = cache.get(("file", key), lambda key=key: np.full(10 * key, key, np.uint8))  # type: ignore[misc]
        assert pixels.size == 10 * key
        assert (pixels == key).all()
        assert cache.held_bytes <= max(capacity_bytes, pixels.nbytes)


def test_dropping_a_file_forgets_its_pixels_only() -> None:
    """`drop` forgets one file's arrays and leaves the others."""
    cache = PixelCache(1000)
    for file in "ab":
        cache.get((file, 0), lambda: np.zeros(10, np.uint8))
    cache.drop("a")
    assert cache.held_bytes == 10
    assert cache.get(("b", 0), lambda: np.ones(1)).size == 10
    assert cache.get(("a", 0), lambda: np.ones(1)).size == 1


def test_a_borrowed_handle_stays_open() -> None:
    """A handle in use outlives eviction and `drop`, and is closed when the last borrower is done."""
    files = OpenFiles(limit=1)
    with files.borrow("a", Handle) as first:
        with files.borrow("b", Handle) as second, files.borrow("a", Handle) as again:
            assert again is first
            files.drop("a")
            assert not first.closed
        assert not first.closed
        assert not second.closed
    assert first.closed


def test_idle_handles_are_closed_beyond_the_limit() -> None:
    """The longest unused handle is closed first; a closed one is opened again when it is asked for."""
    files, opened = OpenFiles(limit=2), []
    for key in "abca":
        with files.borrow(key, Handle) as handle:
            opened.append(handle)
    assert [handle.closed for handle in opened] == [True, True, False, False]
    assert len(files) == 2
