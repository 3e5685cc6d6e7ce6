"""The formats by name: what their files are called, and who writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slidebatch.export import coco, dsb, geojson, ngff04, ome_tiff, table
from slidebatch.export.wish import Wish
from slidebatch.results import Results

Write = Callable[[Results, tuple[str, ...], Wish, Path], None]
"""Writes some slides to a path: a file where the format has a suffix, else a folder."""


@dataclass(frozen=True)
class Format:
    """A format.

    suffix     how its files end
    per_slide  whether every slide has a file of its own
    write      writes one file (or one folder, where the format's name for it ends so)
    """

    suffix: str
    per_slide: bool
    write: Write

    def is_export(self, folder: Path) -> bool:
        """Whether a folder holds nothing but what such an export writes."""
        if not self.per_slide:
            return ngff04.is_export(folder)
        return all(path.is_file() and path.name.endswith(self.suffix) for path in folder.iterdir())


FORMATS = {
    "geojson": Format(".geojson", True, geojson.write),
    "csv": Format(".csv", False, table.write),
    "coco": Format(".json", False, coco.write),
    "dsb": Format(".csv", False, dsb.write),
    "ome-tiff": Format(".ome.tif", True, ome_tiff.write),
    "ngff04": Format(".zarr", False, ngff04.write),
}
"""By the name that `--to` takes."""
