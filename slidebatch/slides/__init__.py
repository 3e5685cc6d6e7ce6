"""Reading images: one door to every format, lazy, by window, any pyramid level.

slide.py      the door, `Slide`             tiff*.py     TIFF, SVS, OME-TIFF (tifffile)
stack.py      z planes in separate files
grid.py       the plan's grid               omezarr.py   OME-Zarr images (zarr)
reduced.py    a small picture of it all     picture.py   PNG, JPEG (imagecodecs)
staging.py    copies for what has no window vendor.py    OpenSlide's formats (extra `wsi`)
facts.py      what all readers share        caches.py    open files and decoded pixels
"""

from slidebatch.slides.caches import TILE_CACHE_BYTES, WHOLE_CACHE_BYTES
from slidebatch.slides.facts import Level
from slidebatch.slides.grid import Grid, pick_grid, read_grid
from slidebatch.slides.reduced import overview
from slidebatch.slides.slide import Slide, open_slide
from slidebatch.slides.source import Source, SourceFile

CACHE_BYTES = TILE_CACHE_BYTES + WHOLE_CACHE_BYTES  # the most that reading keeps decoded in a process

__all__ = [
    "CACHE_BYTES",
    "Grid",
    "Level",
    "Slide",
    "Source",
    "SourceFile",
    "open_slide",
    "overview",
    "pick_grid",
    "read_grid",
]
