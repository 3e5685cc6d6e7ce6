"""The door: `open_slide` finds the reader of each file of a source and makes one lazy `Slide` of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.slides import facts
from slidebatch.slides.facts import Facts, Level, Reader, Window
from slidebatch.slides.omezarr import ZarrImage, is_zarr
from slidebatch.slides.picture import JPEG_MAGIC, PNG_MAGIC, Picture
from slidebatch.slides.source import Source, SourceFile
from slidebatch.slides.stack import Files, FocusStack, files_of, image_files
from slidebatch.slides.staging import StagedImage
from slidebatch.slides.tiff import MAGICS, open_tiff
from slidebatch.slides.tiff_layout import Unsupported
from slidebatch.slides.vendor import open_vendor

SQUARE_WITHIN = 1.1  # pixels less square than this need the user's word on their size
SAME_MPP_WITHIN = 1.01

ZChoice = Literal["max"] | int | None


@dataclass(frozen=True)
class Slide:
    """One image, of one file, one per channel, or one per channel and z plane; made by `open_slide`.

    levels    finest first; `shape` is that of level 0
    mpp       micrometres per level-0 pixel; None: nobody says
    channels  names, in the order of `read`; ("R", "G", "B") where `rgb`
    dtype     uint8, uint16 or float32
    vendor    a whole-slide scanner's own format
    """

    source: Source
    levels: tuple[Level, ...]
    mpp: float | None
    channels: tuple[str, ...]
    rgb: bool
    dtype: np.dtype[Any]
    vendor: bool
    z: ZChoice
    staged: str | None
    _readers: tuple[Reader, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of level 0."""
        return self.levels[0].shape

    @property
    def pyramid(self) -> bool:
        """Whether there is more than one level."""
        return len(self.levels) > 1

    def read(self, box: Box, level: int = 0, channels: Sequence[int] | None = None) -> npt.NDArray[Any]:
        """Pixels of a box of a level.

        box       in pixels of that level, inside it (else ValueError); an empty box gives an empty array
        channels  indices into `self.channels`, in the order wanted; None: all
        returns   (C, Y, X) C-order array of `self.dtype`, the caller's own
        errors    InputError where the file is broken, EnvironmentFault where a disk or mount is

        Safe to call from several threads; nothing depends on earlier reads.
        """
        chosen = self._chosen(channels)
        if not 0 <= level < len(self.levels):
            raise ValueError(f"level {level} of {self.source.slide}, which has {len(self.levels)} levels")
        if not whole(self.levels[level].shape).contains(box):
            raise ValueError(f"box {box.tuple()} leaves level {level} of {self.levels[level].shape} px")
        if box.empty or not chosen:
            return np.zeros((len(chosen), *box.shape), self.dtype)
        if len(self._readers) == 1:
            return self._readers[0].read(Window(level, box, chosen, self._depths(self._readers[0])))
        out = np.empty((len(chosen), *box.shape), self.dtype)
        for i, channel in enumerate(chosen):
            reader, inside = self._place(channel)
            out[i] = reader.read(Window(level, box, (inside,), self._depths(reader)))[0]
        return out

    def close(self) -> None:
        """Close its files and forget its decoded pixels; a later read opens them again."""
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return open_slide, (self.source, self.z, self.staged)

    def _chosen(self, channels: Sequence[int] | None) -> tuple[int, ...]:
        chosen = tuple(range(len(self.channels))) if channels is None else tuple(int(c) for c in channels)
        if any(not 0 <= c < len(self.channels) for c in chosen):
            raise ValueError(f"channels {chosen} of {self.source.slide}, which has {len(self.channels)}")
        return chosen

    def _place(self, channel: int) -> tuple[Reader, int]:
        for reader in self._readers:
            if channel < len(reader.facts.channels):
                return reader, channel
            channel -= len(reader.facts.channels)
        raise ValueError(f"no channel {channel}")

    def _depths(self, reader: Reader) -> tuple[int, ...]:
        return tuple(range(reader.facts.depth)) if self.z == "max" else (self.z or 0,)


def open_slide(source: Source, z: ZChoice = "max", staged: str | None = None) -> Slide:
    """Open an image lazily: its metadata is read now, its pixels when they are asked for.

    z       "max": the maximum of all planes; a number: that plane, counted from 0 in ascending z, whether the
            planes lie in one file or in one each; None: the image must have one plane
    staged  folder for copies of images that cannot be read by window (see `staging`); None: those are refused
    errors  InputError for a missing, broken or unsuitable file; EnvironmentFault for a failing disk or mount
    """
    if not source.files:
        raise InputError(f"slide {source.slide}: names no file; give at least one")
    images = image_files(source)
    readers = tuple(_image(files, z, staged) for files in images)
    told = [reader.facts for reader in readers]
    _refuse_mismatch(readers)
    return Slide(
        source=source,
        levels=facts.common_levels(told),
        mpp=source.mpp if source.mpp is not None else _file_mpp([f for r in readers for f in files_of(r)]),
        channels=_channel_names([files[0].channel for files in images], told),
        rgb=len(told) == 1 and told[0].rgb,
        dtype=told[0].dtype,
        vendor=any(t.vendor for t in told),
        z=z,
        staged=staged,
        _readers=readers,
    )


def _image(files: Files, z: ZChoice, staged: str | None) -> Reader:
    """The reader of one file, or of the focus stack that several are."""
    readers = [_of_one_channel(_reader(file), file) for file in files]
    if files[0].z is None:
        return _by_window(_with_depth(readers[0], z), staged)
    _with_depth(FocusStack(readers), z)  # before any plane is staged, and only planes that will be read are
    return FocusStack([r if z not in ("max", i) else _by_window(r, staged) for i, r in enumerate(readers)])


def _reader(file: SourceFile) -> Reader:
    path = file.path
    if os.path.isdir(path):
        image = os.path.join(path, file.inner) if file.inner else path
        if is_zarr(image):
            return ZarrImage(path, file.inner)
        facts.fail(image, "is a folder and no OME-Zarr", "give a file, or the folder of an OME-Zarr image")
    try:
        with open(path, "rb") as opened:
            head = opened.read(8)
    except FileNotFoundError as error:
        facts.fail(path, "there is no such file", "check input.path", error)
    except OSError as error:
        facts.blame(path, error)
    if file.inner:
        facts.fail(path, f"is a file, it has no image {file.inner!r} inside", "give an OME-Zarr folder")
    return _file_reader(path, head)


def _file_reader(path: str, head: bytes) -> Reader:
    if head.startswith(PNG_MAGIC) or head.startswith(JPEG_MAGIC):
        return Picture(path)
    if not head:
        facts.fail(path, "is empty", "copy it again")
    if head[:4] not in MAGICS:
        return open_vendor(path, "neither TIFF, PNG, JPEG nor OME-Zarr")
    try:
        return open_tiff(path)
    except Unsupported as reason:
        return open_vendor(path, str(reason))


def _of_one_channel(reader: Reader, file: SourceFile) -> Reader:
    count = len(reader.facts.channels)
    if file.channel is not None and count != 1:
        found = f"holds {count} channels, expected one ({file.channel})"
        facts.fail(reader.path, found, "write one channel to a file, or give the file without a channel name")
    return reader


def _by_window(reader: Reader, staged: str | None) -> Reader:
    why = reader.unreadable()
    if why is None:
        return reader
    if staged is None:
        found = f"cannot be read by window ({why}) and is {reader.facts.decoded_bytes} bytes decoded"
        facts.fail(reader.path, found, "give a folder to stage it in, or write it as a tiled TIFF")
    return StagedImage(reader, staged)


def _with_depth(reader: Reader, z: ZChoice) -> Reader:
    depth = reader.facts.depth
    if z is None and depth > 1:
        facts.fail(reader.path, f"has {depth} z planes, expected one", 'set input.z to "max" or a plane')
    if isinstance(z, int) and not 0 <= z < depth:
        found = f"has {depth} z plane{'s' if depth > 1 else ''}, so there is no plane {z}"
        facts.fail(reader.path, found, f'set input.z to "max" or to 0..{depth - 1}')
    return reader


def _refuse_mismatch(readers: Sequence[Reader]) -> None:
    first = readers[0]
    for other in readers[1:]:
        for what, found, expected in (
            ("shape (y, x)", other.facts.levels[0].shape, first.facts.levels[0].shape),
            ("pixel type", other.facts.dtype, first.facts.dtype),
            ("number of z planes", other.facts.depth, first.facts.depth),
        ):
            if found != expected:
                found_words = f"its {what} is {found}, expected {expected} as in {first.path}"
                facts.fail(other.path, found_words, "give channels of one and the same field")


def _channel_names(given: Sequence[str | None], told: Sequence[Facts]) -> tuple[str, ...]:
    if len(told) == 1 and given[0] is None:
        return told[0].channels
    named = [(name,) if name is not None else one.channels for name, one in zip(given, told, strict=True)]
    names = [name for group in named for name in group]
    return facts.unique_names(names, len(names))


def _file_mpp(readers: Sequence[Reader]) -> float | None:
    said = [(reader, reader.facts.mpp) for reader in readers if reader.facts.mpp is not None]
    values: list[float] = []
    for reader, (y_um, x_um) in ((r, m) for r, m in said if m is not None):
        if max(y_um, x_um) > SQUARE_WITHIN * min(y_um, x_um):
            found = f"its pixels are {y_um:g} x {x_um:g} um (y, x), expected square ones"
            facts.fail(reader.path, found, "set input.mpp")
        values.append(y_um if y_um == x_um else (y_um * x_um) ** 0.5)
        if max(values) > SAME_MPP_WITHIN * min(values):
            found = f"says {values[-1]:g} um per pixel, expected {values[0]:g} as in {said[0][0].path}"
            facts.fail(reader.path, found, "set input.mpp")
    return values[0] if values else None
