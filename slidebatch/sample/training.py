"""A small training set out of the made-up plate: fields in focus, their DNA channel alone, with labels."""

from __future__ import annotations

from pathlib import Path

from slidebatch.sample.files import write_image, write_truth
from slidebatch.sample.plate import CHANNELS, FIELDS, MPP, WELLS, plate_field

COLUMNS = (1, 4)
"""Columns of the plate whose wells are taken: no dose, and the highest."""


def write_training(folder: str | Path, seed: int = 0) -> tuple[Path, ...]:
    """Write `images/<well>.tif` (uint16) and `labels/<well>.tif` (uint16, 0 for ground) of (512, 512) pixels.

    The layout `folders` of a training. Empty wells are left out. The same seed, the same pixels; the images' paths.
    """
    folder, paths = Path(folder), []
    for well in (w for w in WELLS if w.column in COLUMNS and not w.empty):
        images, labels = plate_field(well, FIELDS[0], seed)
        paths.append(folder / "images" / f"{well.name}.tif")
        write_image(paths[-1], images[CHANNELS.index("DNA")], MPP)
        write_truth(folder / "labels" / f"{well.name}.tif", labels)
    return tuple(paths)
