"""What an input is, before any pixel is read: small frozen values that travel to workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceFile:
    """One file of an input, or one image inside it.

    path     absolute path of a file or of an OME-Zarr group's folder
    inner    path of the image group inside an OME-Zarr plate ("" for the file itself)
    channel  name of the one channel this file holds, or None when the file tells its own channels
    z        focus plane that this file holds; several files of one channel and different z are the planes of a
             stack, to be combined as `input.z` says (an index counts the planes in ascending z); None: no stack
    """

    path: str
    inner: str = ""
    channel: str | None = None
    z: int | None = None


@dataclass(frozen=True)
class Source:
    """One image to segment: a slide, or one field of a well.

    slide      unique, path-safe id
    files      one file, or one per channel, in channel order
    mpp        micrometres per level-0 pixel as the user or a manifest states it; None: as the file says
    plate, row, column, field   place on a plate (row "A", column "01", field 0), None off plates
    facts      further columns of a manifest, by name (dose, control, ...)
    """

    slide: str
    files: tuple[SourceFile, ...]
    mpp: float | None = None
    plate: str | None = None
    row: str | None = None
    column: str | None = None
    field: int | None = None
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def well(self) -> str | None:
        """Row and column together, such as "A01"; None off plates."""
        return None if self.row is None or self.column is None else f"{self.row}{self.column}"
