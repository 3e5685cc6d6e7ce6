"""Whole-slide formats that only OpenSlide knows (MIRAX, Hamamatsu VMS, ...): the extra `wsi`.

OpenSlide places windows by whole level-0 pixels and interpolates where a level's step is no whole number, so
a pixel would depend on the window it is read in. Here it only ever reads fixed blocks of a level and windows
are cut from those; a block of such a level may lie up to half a level-0 pixel off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.geometry import Box, whole
from slidebatch.slides import caches, facts
from slidebatch.slides.facts import Facts, Window

BLOCK_PX = 512


def open_vendor(path: str, reason: str) -> VendorSlide:
    """The OpenSlide reader of a file that nothing else reads; `reason` says why nothing else does."""
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: the package without its library
        remedy = "if OpenSlide reads this format, run: pip install slidebatch[wsi]"
        facts.fail(path, f"no reader knows this file ({reason})", remedy, error)
    try:
        if openslide.OpenSlide.detect_format(path) is None:
            found = f"no reader knows this file ({reason}; nor does OpenSlide)"
            facts.fail(path, found, "convert it to OME-TIFF")
        return VendorSlide(path)
    except OSError as error:
        facts.blame(path, error)
    except openslide.OpenSlideError as error:
        facts.fail(path, f"OpenSlide cannot read it ({error})", "copy it again", error)


class VendorSlide:
    """A slide read through OpenSlide; RGB uint8, unscanned glass in the slide's background colour."""

    def __init__(self, path: str) -> None:
        import openslide

        self.path = path
        self.key = ("openslide", *caches.stamp(path))
        self._open = lambda: openslide.OpenSlide(path)
        self._broken = openslide.OpenSlideError
        with caches.open_files.borrow(self.key, self._open) as slide:
            self.facts, self._background = _facts(slide)

    def read(self, window: Window) -> npt.NDArray[Any]:
        box, level = window.box, window.level
        out = np.empty((len(window.channels), *box.shape), np.uint8)
        for row in range(box.y0 // BLOCK_PX, -(-box.y1 // BLOCK_PX)):
            for column in range(box.x0 // BLOCK_PX, -(-box.x1 // BLOCK_PX)):
                at = Box(row * BLOCK_PX, column * BLOCK_PX, (row + 1) * BLOCK_PX, (column + 1) * BLOCK_PX)
                part = box.clip(at)
                pixels = self._block(level, at)[part.slices(at)]
                for i, channel in enumerate(window.channels):
                    out[i][part.slices(box)] = pixels[..., channel]
        return out

    def unreadable(self) -> str | None:
        return None

    def close(self) -> None:
        caches.release(self.key)

    def _block(self, level: int, at: Box) -> npt.NDArray[Any]:
        return caches.tile_cache.get((self.key, level, at), lambda: self._decoded(level, at))

    def _decoded(self, level: int, at: Box) -> npt.NDArray[Any]:
        inside = at.clip(whole(self.facts.levels[level].shape))
        try:
            with caches.open_files.borrow(self.key, self._open) as slide:
                step = slide.level_downsamples[level]  # OpenSlide's own: a mean of both axes
                corner = round(at.x0 * step), round(at.y0 * step)  # (x, y), level-0 pixels, as it wants
                picture = slide.read_region(corner, level, (inside.width, inside.height))
        except OSError as error:
            facts.blame(self.path, error)
        except self._broken as error:
            found = f"OpenSlide cannot read the block at {at.tuple()} ({error})"
            facts.fail(self.path, found, "copy it again", error)
        rgba = np.asarray(picture, dtype=np.uint16)
        opacity = rgba[..., 3:]
        mixed = rgba[..., :3] * opacity + self._background * (255 - opacity)
        return ((mixed + 127) // 255).astype(np.uint8)


def _facts(slide: Any) -> tuple[Facts, npt.NDArray[np.uint16]]:
    told = slide.properties
    mpp_y, mpp_x = (float(told.get(f"openslide.mpp-{axis}", 0)) for axis in "yx")
    colour = told.get("openslide.background-color", "FFFFFF")
    background = np.frombuffer(bytes.fromhex(colour), np.uint8).astype(np.uint16)
    levels = facts.make_levels([(height, width) for width, height in slide.level_dimensions])
    mpp = facts.positive_mpp(mpp_y, mpp_x)
    return Facts(levels, facts.RGB, 1, True, np.dtype(np.uint8), mpp, vendor=True), background
