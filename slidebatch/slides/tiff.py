"""TIFF and everything tifffile understands of it: SVS, NDPI, OME-TIFF, ImageJ, BigTIFF, page stacks.

Owns reading by window: only the tiles or strips (of plain strips: only the rows) that a window meets are
read and decoded. Labels, macros and thumbnails of a slide are other series and are never read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tifffile import TiffFile, TiffFileError, TiffFrame, TiffPage, TiffPageSeries

from slidebatch.errors import SlidebatchError
from slidebatch.geometry import Box
from slidebatch.slides import caches, facts, tiff_words
from slidebatch.slides.facts import Facts, Window
from slidebatch.slides.tiff_layout import (
    JPEG_COMPRESSIONS,
    Layout,
    Unsupported,
    meaning,
    meant_dtype,
    plain,
    pyramid,
    understand,
)

VENDORS = ("svs", "ndpi", "scn", "bif", "philips", "qpi", "indica")
LARGEST_TILE_BYTES = 64 * 2**20
MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class OpenTiff:
    """An open file: its first series, and the lock that one file position needs."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.tiff = TiffFile(path)
        try:
            if not self.tiff.series:
                raise Unsupported("it holds no image")
            self.series: TiffPageSeries = self.tiff.series[0]
            self.levels = pyramid(self.tiff)
        except BaseException:
            self.tiff.close()
            raise

    def close(self) -> None:
        self.tiff.close()

    def page(self, level: int, index: int) -> TiffPage | TiffFrame:
        series = self.levels[level]
        with self.lock:
            page: TiffPage | TiffFrame | None = series.keyframe if series.is_truncated else series.pages[index]
        if page is None:
            facts.fail(self.path, f"page {index} of its planes is missing", "find the file that holds it")
        return page

    def raw(self, page: TiffPage | TiffFrame, offset: int, size_bytes: int) -> bytes:
        """Bytes of the file in which the page lies (OME-TIFF may span several)."""
        handle = page.parent.filehandle
        with self.lock:
            closed = handle.closed
            if closed:
                handle.open()
            try:
                handle.seek(offset)
                found = handle.read(size_bytes)
            finally:
                if closed:
                    handle.close()
        if len(found) != size_bytes:
            facts.fail(self.path, f"ends {size_bytes - len(found)} bytes too early", "copy or write it again")
        return found


@dataclass(frozen=True)
class Plane:
    """One page at one level, and the bytes to add to its offsets (ImageJ may write one for a whole stack)."""

    file: OpenTiff
    key: tuple[Any, ...]
    page: TiffPage | TiffFrame
    shift_bytes: int

    @property
    def keyframe(self) -> TiffPage:
        keyframe = self.page.keyframe
        assert keyframe is not None  # a page of a series always has one
        return keyframe

    def fill(self, out: npt.NDArray[Any], box: Box, samples: list[int]) -> None:
        """Write the samples of the box into out (C, Y, X)."""
        planar = self.keyframe.planarconfig == 2
        for group, targets in _groups(samples, planar):
            for at, pixels in self._parts(box, group if planar else 0):
                part = box.clip(at)
                inside = pixels[part.slices(at)]
                for target in targets:
                    out[target][part.slices(box)] = inside[..., 0 if planar else samples[target]]

    def _parts(self, box: Box, sample_plane: int) -> Iterator[tuple[Box, npt.NDArray[Any]]]:
        if plain(self.keyframe):
            return self._plain_rows(box, sample_plane)
        return self._segments(box, sample_plane)

    def _segments(self, box: Box, sample_plane: int) -> Iterator[tuple[Box, npt.NDArray[Any]]]:
        # Segments are numbered plane by plane, then row by row.
        page = self.keyframe
        height, width = _segment_shape(page)
        down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
        cache = caches.tile_cache if page.is_tiled else caches.whole_cache
        for row in range(box.y0 // height, -(-box.y1 // height)):
            for column in range(box.x0 // width, -(-box.x1 // width)):
                index = (sample_plane * down + row) * across + column
                pixels = cache.get((*self.key, index), lambda index=index: self._decoded(index))  # type: ignore[misc]
                yield Box(row * height, column * width, (row + 1) * height, (column + 1) * width), pixels

    def _decoded(self, index: int) -> npt.NDArray[Any]:
        page = self.keyframe
        size_bytes = self.page.databytecounts[index] if index < len(self.page.databytecounts) else 0
        encoded = self.file.raw(self.page, self.page.dataoffsets[index], size_bytes) if size_bytes else None
        tables = {}
        if page.compression in JPEG_COMPRESSIONS:
            with self.file.lock:
                tables = {"jpegtables": self.page.jpegtables, "jpegheader": page.jpegheader}
        try:
            pixels, _, shape = page.decode(encoded, index, **tables)
        except (MemoryError, SlidebatchError):
            raise
        except Exception as error:  # every codec has errors of its own
            what = "tile" if page.is_tiled else "strip"
            found = f"{what} {index} cannot be decoded ({error})"
            facts.fail(self.file.path, found, "copy or write it again", error)
        if pixels is None:  # a sparse file leaves blank segments out
            pixels = np.full(shape, page.nodata, page.dtype)
        return meaning(page, pixels[0])

    def _plain_rows(self, box: Box, sample_plane: int) -> Iterator[tuple[Box, npt.NDArray[Any]]]:
        for first_row, last_row, start_bytes in self._runs(box, sample_plane):
            rows = box.clip(Box(first_row, box.x0, last_row, box.x1))
            pixels = self._rows(rows.shift(-first_row, 0), start_bytes)
            yield rows, meaning(self.keyframe, pixels)

    def _runs(self, box: Box, sample_plane: int) -> list[tuple[int, int, int]]:
        # (first row, last row, offset) of strips that the box meets; strips that follow on are one run
        page, offsets = self.keyframe, self.page.dataoffsets
        height, _ = _segment_shape(page)
        strip_bytes = height * _row_bytes(page)
        strips = -(-page.imagelength // height)
        runs: list[tuple[int, int, int]] = []
        for strip in range(box.y0 // height, -(-box.y1 // height)):
            index = sample_plane * strips + strip
            whole_page = len(offsets) == 1  # some writers' strips are told as one
            start = offsets[0] + index * strip_bytes if whole_page else offsets[index]
            start += self.shift_bytes
            if runs and start == runs[-1][2] + (strip * height - runs[-1][0]) * _row_bytes(page):
                runs[-1] = (runs[-1][0], (strip + 1) * height, runs[-1][2])
            else:
                runs.append((strip * height, (strip + 1) * height, start))
        return runs

    def _rows(self, box: Box, start_bytes: int) -> npt.NDArray[Any]:
        # Whole rows in one read where the box is most of them, otherwise its part of each row.
        page = self.keyframe
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        stored = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        pixel_bytes, row_bytes = samples * stored.itemsize, _row_bytes(page)
        if 2 * box.width >= page.imagewidth:
            found = self.file.raw(self.page, start_bytes + box.y0 * row_bytes, box.height * row_bytes)
            whole = np.frombuffer(found, stored).reshape(box.height, page.imagewidth, samples)
            return whole[:, box.x0 : box.x1]
        first = start_bytes + box.x0 * pixel_bytes
        found = b"".join(
            self.file.raw(self.page, first + y * row_bytes, box.width * pixel_bytes) for y in range(box.y0, box.y1)
        )
        return np.frombuffer(found, stored).reshape(box.height, box.width, samples)


def _groups(samples: list[int], planar: bool) -> list[tuple[int, list[int]]]:
    # (stored plane, positions in the output): interleaved samples come out of one decoded segment
    return [(s, [i]) for i, s in enumerate(samples)] if planar else [(0, list(range(len(samples))))]


def _row_bytes(page: TiffPage) -> int:
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    return page.imagewidth * samples * np.dtype(page.dtype).itemsize


def _segment_shape(page: TiffPage) -> tuple[int, int]:
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


class TiffImage:
    """The first series of a TIFF file, with its pyramid."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.key = caches.stamp(path)
        with self._borrowed() as file:
            self.layout, self.facts = _inspect(file)
            self._unreadable = _unreadable(file, self.facts)

    def read(self, window: Window) -> npt.NDArray[Any]:
        try:
            with self._borrowed() as file:
                out = self._plane(file, window, window.depths[0])
                for z in window.depths[1:]:
                    np.maximum(out, self._plane(file, window, z), out=out)
        except OSError as error:
            facts.blame(self.path, error)
        return out

    def unreadable(self) -> str | None:
        return self._unreadable

    def close(self) -> None:
        caches.release(self.key)

    def _borrowed(self) -> Any:
        return caches.open_files.borrow(self.key, self._open)

    def _open(self) -> OpenTiff:
        if caches.stamp(self.path) != self.key:
            facts.fail(self.path, "was changed while it was in use", "leave inputs alone, then run again")
        return OpenTiff(self.path)

    def _plane(self, file: OpenTiff, window: Window, z: int) -> npt.NDArray[Any]:
        stored = meant_dtype(file.levels[window.level].keyframe)
        out = np.empty((len(window.channels), *window.box.shape), stored)
        for index, positions in _by_page(self.layout, window.channels, z).items():
            plane = self._page(file, window.level, index)
            part = out if len(positions) == len(out) else np.empty((len(positions), *out.shape[1:]), stored)
            plane.fill(part, window.box, [self.layout.sample(window.channels[p]) for p in positions])
            if part is not out:
                out[positions] = part
        return facts.converted(out, self.facts.dtype)

    def _page(self, file: OpenTiff, level: int, index: int) -> Plane:
        series = file.levels[level]
        shift_bytes = index * series.keyframe.nbytes if series.is_truncated else 0
        return Plane(file, (self.key, level, index), file.page(level, index), shift_bytes)


def _by_page(layout: Layout, channels: tuple[int, ...], z: int) -> dict[int, list[int]]:
    pages: dict[int, list[int]] = {}
    for position, channel in enumerate(channels):
        pages.setdefault(layout.page(channel, z), []).append(position)
    return pages


def _inspect(file: OpenTiff) -> tuple[Layout, Facts]:
    series, path = file.series, file.path
    layout = understand(path, series)
    if any(understand(path, level) != layout for level in file.levels):
        raise Unsupported("its pyramid levels do not hold the same channels")
    shapes = [(level.keyframe.imagelength, level.keyframe.imagewidth) for level in file.levels]
    dtype = facts.result_dtype(path, meant_dtype(series.keyframe))
    said = facts.RGB if layout.rgb else tiff_words.channel_names(file.tiff)
    names = facts.unique_names(said, layout.channels)
    told = Facts(
        levels=facts.make_levels(shapes),
        channels=names,
        depth=layout.lead[1],
        rgb=layout.rgb or facts.names_say_rgb(names, dtype),
        dtype=dtype,
        mpp=tiff_words.pixel_size_um(file.tiff),
        vendor=any(flag in VENDORS for flag in file.tiff.flags),
    )
    return layout, told


def _unreadable(file: OpenTiff, told: Facts) -> str | None:
    for series in file.levels:
        page = series.keyframe
        if plain(page):
            continue
        height, width = _segment_shape(page)
        stored_bytes = height * width * page.samplesperpixel * np.dtype(page.dtype).itemsize
        if page.is_tiled and stored_bytes <= LARGEST_TILE_BYTES:
            continue
        if told.decoded_bytes > caches.WHOLE_CACHE_BYTES:
            return f"its {'tiles' if page.is_tiled else 'compressed strips'} of {height} x {width} px"
    return None


def open_tiff(path: str) -> TiffImage:
    """The reader of a TIFF file; `Unsupported` where tifffile cannot make sense of it."""
    try:
        return TiffImage(path)
    except (SlidebatchError, Unsupported, MemoryError):
        raise
    except OSError as error:
        facts.blame(path, error)
    except TiffFileError as error:
        raise Unsupported(f"tifffile cannot read it ({error})") from error
    except Exception as error:  # a broken directory shows up as any of a dozen errors
        raise Unsupported(f"tifffile cannot read it ({type(error).__name__}: {error})") from error
