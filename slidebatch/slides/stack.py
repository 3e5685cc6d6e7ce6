"""Focus stacks in separate files: the z planes of one channel, each in a file of its own, read as one image.

Owns which files of a source belong together (`image_files`) and the reader that makes one image of several
(`FocusStack`). The files stay lazy: a window reads only the planes that it is asked for, one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from slidebatch.errors import InputError
from slidebatch.slides import facts
from slidebatch.slides.facts import Facts, Reader, Window
from slidebatch.slides.source import Source, SourceFile

Files = tuple[SourceFile, ...]
SHOWN = 5  # planes that a message lists


def image_files(source: Source) -> tuple[Files, ...]:
    """The files of a source by image: a file alone, or all planes of a stack in ascending z.

    Files with a `z` that share a channel (or name none) are a stack. Images come in the order of their first
    files. InputError for two files of one channel or plane, and for stacks that do not have the same planes.
    """
    images: dict[tuple[Any, ...], list[SourceFile]] = {}
    for number, file in enumerate(source.files):
        alone = file.z is None and file.channel is None  # tells its own channels
        images.setdefault(("file", number) if alone else ("channel", file.channel), []).append(file)
    for files in images.values():
        _refuse_twice(source, files)
    _refuse_missing(source, {f[0].channel: {file.z for file in f if file.z is not None} for f in images.values()})
    return tuple(tuple(sorted(files, key=lambda file: file.z or 0)) for files in images.values())


def _refuse_twice(source: Source, files: Sequence[SourceFile]) -> None:
    planes = [file.z for file in files]
    if len(set(planes)) < len(planes):
        z = next(z for i, z in enumerate(planes) if z in planes[:i])
        plane = "" if z is None else f", focus plane {z}"
        raise InputError(f"slide {source.slide}: two files for {_channel(files[0].channel)}{plane}; give one for each")
    if None in planes and len(planes) > 1:
        found = f"{_channel(files[0].channel)} has a file without a focus plane (z) beside files with one"
        raise InputError(f"slide {source.slide}: {found}; give its planes, or one file")


def _refuse_missing(source: Source, stacks: dict[str | None, set[int]]) -> None:
    every = set().union(*stacks.values())
    for channel, planes in stacks.items():
        missing = sorted(every - planes)
        if planes and missing:
            found = f"{_channel(channel)} lacks focus plane {_listed(missing)} of {_listed(sorted(every))}"
            remedy = "restore the missing files, or leave the channel out"
            raise InputError(f"slide {source.slide}: {found}, which other channels have; {remedy}")


def _channel(name: str | None) -> str:
    return "the files without a channel" if name is None else f"channel {name!r}"


def _listed(planes: Sequence[int]) -> str:
    return ", ".join(map(str, planes[:SHOWN])) + (", ..." if len(planes) > SHOWN else "")


class FocusStack:
    """Several images of one plane each, of equal shape, type and channels, as one image with z planes.

    `planes` are in ascending z; window plane i is `planes[i]`.
    """

    def __init__(self, planes: Sequence[Reader]) -> None:
        self.planes = tuple(planes)
        self.path = f"{planes[0].path} (first of {len(planes)} focus planes)"
        for plane in planes:
            _refuse_unlike(plane, planes[0])
        levels = facts.common_levels([plane.facts for plane in planes])
        self.facts: Facts = replace(planes[0].facts, levels=levels, depth=len(planes))

    def read(self, window: Window) -> npt.NDArray[Any]:
        out = self._plane(window, window.depths[0])
        for z in window.depths[1:]:
            np.maximum(out, self._plane(window, z), out=out)
        return out

    def unreadable(self) -> str | None:
        return next((why for why in (plane.unreadable() for plane in self.planes) if why is not None), None)

    def close(self) -> None:
        for plane in self.planes:
            plane.close()

    def _plane(self, window: Window, z: int) -> npt.NDArray[Any]:
        return self.planes[z].read(replace(window, depths=(0,)))


def files_of(reader: Reader) -> tuple[Reader, ...]:
    """The readers of single files behind a reader."""
    return reader.planes if isinstance(reader, FocusStack) else (reader,)


def _refuse_unlike(plane: Reader, first: Reader) -> None:
    if plane.facts.depth != 1:
        found = f"has {plane.facts.depth} z planes, expected one, as it is a plane of a stack itself"
        facts.fail(plane.path, found, "give the file alone, or files of one plane each")
    asked: tuple[tuple[str, Any, Any], ...] = (
        ("shape (y, x)", plane.facts.levels[0].shape, first.facts.levels[0].shape),
        ("pixel type", plane.facts.dtype, first.facts.dtype),
        ("number of channels", len(plane.facts.channels), len(first.facts.channels)),
    )
    for what, found, expected in asked:
        if found != expected:
            words = f"its {what} is {found}, expected {expected} as in {first.path}"
            facts.fail(plane.path, words, "give planes of one and the same field")
