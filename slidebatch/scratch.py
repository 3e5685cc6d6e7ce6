"""Copies of images near the worker that reads them: on its node's own disk, made once by whoever comes first.

Whole files alone are copied; an OME-Zarr is a folder of chunks, each read once or twice, and is read where it is. So
are formats that keep pixels in other files beside the one named.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import replace
from pathlib import Path

from slidebatch.errors import EnvironmentFault
from slidebatch.slides.alone import stands_alone
from slidebatch.slides.source import Source, SourceFile
from slidebatch.store import digest, remove


def folder_of(scratch: str, work: Path) -> Path:
    """The folder of a run's copies on this node. EnvironmentFault where `scratch` names a variable that is not set."""
    told = os.path.expanduser(os.path.expandvars(scratch))
    if "$" in told:
        raise EnvironmentFault(
            f"cluster.scratch is {scratch!r}, and that is not set in this worker; name a folder that every node has"
        )
    return Path(told) / f"slidebatch-{digest(str(work))}"


def near(source: Source, folder: Path) -> Source:
    """The source with its files in `folder`, copied now where they are not there yet; OSError where it is full."""
    return replace(source, files=tuple(_near(file, folder) for file in source.files))


def clear(scratch: str, work: str) -> None:
    """Remove a run's copies from this node; no fault where there are none."""
    remove(folder_of(scratch, Path(work)))


def _near(file: SourceFile, folder: Path) -> SourceFile:
    original = Path(file.path)
    stat = original.stat()
    place = folder / digest(file.path, stat.st_size, stat.st_mtime_ns)
    copy = place / original.name
    if not copy.exists():
        place.mkdir(parents=True, exist_ok=True)
        with open(place / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # others wait for the first one's copy
            if not copy.exists():
                if not stands_alone(original):
                    return file
                aside = place / ".partial"
                shutil.copy2(original, aside)
                os.replace(aside, copy)
    return replace(file, path=str(copy))
