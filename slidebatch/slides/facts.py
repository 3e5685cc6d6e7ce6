"""What every reader tells of its image, what it is asked, and the rules all readers share.

Owns the small values between the door and the readers (`Facts`, `Level`, `Window`, `Reader`), and the
decisions about data types, level steps, channel names and units that must not differ between formats.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from slidebatch.errors import EnvironmentFault, InputError
from slidebatch.geometry import Box

RGB = ("R", "G", "B")
ENVIRONMENT_ERRNOS = {
    errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ENOTCONN, errno.EROFS,
    errno.ESTALE, errno.ETIMEDOUT, getattr(errno, "EDQUOT", errno.ENOSPC),
}  # fmt: skip
UNITS_UM = {
    "pm": 1e-6, "angstrom": 1e-4, "å": 1e-4, "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "\\u00b5m": 1.0, "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4,
    "centimetre": 1e4, "inch": 25400.0, "in": 25400.0, "m": 1e6, "meter": 1e6, "metre": 1e6,
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One level of a pyramid: its shape (Y, X) and the level-0 pixels per level pixel, (y, x)."""

    shape: tuple[int, int]
    step: tuple[float, float]

    @property
    def step_px(self) -> float:
        """Level-0 pixels per level pixel, both axes together (geometric mean)."""
        return self.step[0] if self.step[0] == self.step[1] else float(np.sqrt(self.step[0] * self.step[1]))


@dataclass(frozen=True)
class Facts:
    """What a file says of its image.

    levels    finest first, never empty
    channels  names, unique
    depth     number of z planes, at least 1
    rgb       the three channels are red, green and blue of one colour picture
    dtype     uint8, uint16 or float32: what `Reader.read` gives
    mpp       micrometres per level-0 pixel (y, x), None where the file does not say
    vendor    a whole-slide scanner's own format
    """

    levels: tuple[Level, ...]
    channels: tuple[str, ...]
    depth: int
    rgb: bool
    dtype: np.dtype[Any]
    mpp: tuple[float, float] | None = None
    vendor: bool = False

    @property
    def decoded_bytes(self) -> int:
        """Bytes of level 0 with all its channels and planes."""
        y, x = self.levels[0].shape
        return y * x * len(self.channels) * self.depth * self.dtype.itemsize


@dataclass(frozen=True)
class Window:
    """What a reader is asked for: pixels of a level, channel indices, and z planes (their maximum)."""

    level: int
    box: Box
    channels: tuple[int, ...]
    depths: tuple[int, ...]


class Reader(Protocol):
    """One open image of one format. `read` is safe to call from several threads at once."""

    path: str
    facts: Facts

    def read(self, window: Window) -> npt.NDArray[Any]:
        """-> (C, Y, X) C-order array of `facts.dtype`; the window lies inside the level."""
        ...

    def unreadable(self) -> str | None:
        """Why windows of this image cannot be read without decoding all of it; None: they can."""
        ...

    def close(self) -> None: ...


def fail(path: str, found: str, remedy: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the `InputError` of a file: what was found, and what to do."""
    raise InputError(f"{path}: {found}; {remedy}") from cause


def blame(path: str, error: OSError) -> NoReturn:
    """Raise `EnvironmentFault` for a fault of disk, mount or limits, else the `InputError` of the file."""
    if error.errno in ENVIRONMENT_ERRNOS:
        raise EnvironmentFault(
            f"{path}: {error.strerror}; a disk, mount or limit failed, not this file: mend it, then run again"
        ) from error
    fail(path, f"cannot be opened ({error.strerror or error})", "check the path and the permissions", error)


def result_dtype(path: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype that pixels of a file's dtype are given in: uint8, uint16 or float32, without loss.

    bool -> uint8 (0 and 255); int8, int16 and float16 -> float32 exactly; float64 is rounded to float32.
    Anything else is an `InputError` that names it.
    """
    kind = np.dtype(dtype).newbyteorder("=")
    if kind in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return kind
    if kind == np.dtype(bool):
        return np.dtype(np.uint8)
    if kind in (np.dtype(np.int8), np.dtype(np.int16)) or kind.kind == "f":
        return np.dtype(np.float32)
    fail(path, f"pixels are {kind}, expected uint8, uint16 or float", "convert the file to one of these")


def converted(pixels: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The same pixels in the result's dtype (see `result_dtype`)."""
    if pixels.dtype == bool:
        return np.where(pixels, dtype.type(255), dtype.type(0))
    result: npt.NDArray[Any] = pixels.astype(dtype, copy=False)
    return result


def make_levels(shapes: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels of a pyramid from their shapes (Y, X), finest first.

    The step of an axis is the whole number that explains both sizes where there is one (3567 and 1783: 2, a
    row was dropped), otherwise their ratio.
    """
    base = shapes[0]
    return tuple(Level(s, (_step(base[0], s[0]), _step(base[1], s[1]))) for s in shapes)


def _step(base_px: int, level_px: int) -> float:
    whole = round(base_px / level_px)
    fits = whole >= 1 and level_px in (base_px // whole, -(-base_px // whole))
    return float(whole) if fits else base_px / level_px


def common_levels(images: Sequence[Facts]) -> tuple[Level, ...]:
    """The levels that images of equal level 0 share, finest first, up to the first one that differs.

    What comes after that is left out: a level has the same number in all of them.
    """
    groups = zip(*(image.levels for image in images), strict=False)
    return tuple(group[0] for group in takewhile(lambda group: len(set(group)) == 1, groups))


def unique_names(names: Iterable[str | None], count: int) -> tuple[str, ...]:
    """`count` different channel names: the given ones, "C<index>" where none is given, "_2" on a repeat."""
    given = [*names][:count]
    given += [None] * (count - len(given))
    unique: list[str] = []
    for index, name in enumerate(given):
        stem = (name or "").strip() or f"C{index}"
        name, repeat = stem, 2
        while name in unique:
            name, repeat = f"{stem}_{repeat}", repeat + 1
        unique.append(name)
    return tuple(unique)


def names_say_rgb(names: Sequence[str], dtype: np.dtype[Any]) -> bool:
    """Whether three uint8 channels are named red, green and blue, in that order."""
    short = tuple(name.strip().lower() for name in names)
    return dtype == np.uint8 and short in (("r", "g", "b"), ("red", "green", "blue"))


def unit_um(unit: str | None) -> float | None:
    """Micrometres in a unit of length as OME-XML, OME-Zarr and ImageJ write it; None: not a known unit."""
    return None if unit is None else UNITS_UM.get(unit.strip().lower())


def positive_mpp(y_um: float | None, x_um: float | None) -> tuple[float, float] | None:
    """Both pixel sizes when both are finite and above zero, else None."""
    if not y_um or not x_um or not np.isfinite([y_um, x_um]).all() or min(y_um, x_um) <= 0:
        return None
    return float(y_um), float(x_um)
