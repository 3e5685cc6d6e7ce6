"""Whether a file holds all of its image, or keeps pixels in others beside it."""

from __future__ import annotations

import re
from pathlib import Path

import tifffile

TIFFS = {".tif", ".tiff", ".svs", ".ndpi", ".scn", ".bif", ".qptiff"}
PICTURES = {".png", ".jpg", ".jpeg"}


def stands_alone(path: Path) -> bool:
    """True for pictures and for TIFFs that name no other file; False for all else, broken files too.

    An OME-TIFF may be one of a set, which its metadata names: UUID elements with a FileName (OME data model).
    """
    ending = path.suffix.lower()
    if ending in PICTURES:
        return True
    if ending not in TIFFS or path.is_dir():
        return False
    try:
        with tifffile.TiffFile(path) as file:
            told = file.ome_metadata if file.is_ome else None
    except (OSError, ValueError, tifffile.TiffFileError):
        return False
    return set(re.findall(r'FileName="([^"]*)"', told or "")) <= {path.name}
