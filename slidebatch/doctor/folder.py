"""The file system of a folder: what runs rely on there, tried with real files that are removed again."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from slidebatch.doctor.finding import Finding
from slidebatch.errors import LeaseError, SlidebatchError
from slidebatch.lease import lease
from slidebatch.store import write_atomically

SPACE_BYTES = 5_000_000_000
INODES = 10_000


def look(place: Path) -> list[Finding]:
    """Findings of the file system that holds a folder, or would hold it."""
    there = existing(place)
    try:
        trial = Path(tempfile.mkdtemp(prefix=".slidebatch-doctor-", dir=there))
    except OSError as error:
        return [Finding(f"folder {place}: writing", "fault", str(error.strerror), "results", "name another folder")]
    try:
        tried = [
            _tried(place, "atomic renames", "results that are whole or not there", lambda: _renames(trial)),
            _tried(place, "syncing", "results that survive a power cut", lambda: _syncs(trial)),
            _tried(place, "locks", "one run at a time in a results folder", lambda: _locks(trial)),
        ]
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    return [*tried, _space(place, there), _inodes(place, there)]


def existing(place: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    place = place.absolute()
    while not place.is_dir():
        place = place.parent
    return place


def _tried(place: Path, what: str, needed: str, trial: Callable[[], str]) -> Finding:
    name = f"folder {place}: {what}"
    try:
        return Finding(name, "fine", trial(), needed)
    except (OSError, SlidebatchError) as error:
        return Finding(name, "fault", str(error), needed, "set output.path to another file system")


def _renames(trial: Path) -> str:
    """A file is replaced by a rename, and a reader that holds the old one goes on reading it."""
    file = trial / "renamed"
    write_atomically(file, b"old")
    with open(file, "rb") as reader:
        write_atomically(file, b"new")
        if reader.read() != b"old" or file.read_bytes() != b"new":
            raise OSError(errno.EIO, "a renamed file took the place of one that was being read")
    return "files are replaced whole"


def _syncs(trial: Path) -> str:
    write_atomically(trial / "synced", b"kept", durable=True)
    return "files and folders can be synced"


def _locks(trial: Path) -> str:
    """A second taker of a lease is refused while the first holds it."""
    with lease(trial / "run" / "work"):
        try:
            with lease(trial / "run" / "work"):
                pass
        except LeaseError:
            return "a second run is refused"
    raise OSError(errno.ENOLCK, "two runs could hold one results folder: locks are granted twice")


def _space(place: Path, there: Path) -> Finding:
    free = shutil.disk_usage(there).free
    name, found = f"folder {place}: space", f"{free / 1e9:.1f} GB free"
    if free < SPACE_BYTES:
        return Finding(name, "absent", found, "results of larger runs", "free some; `slidebatch plan` tells how much")
    return Finding(name, "fine", found, "results")


def _inodes(place: Path, there: Path) -> Finding:
    told = os.statvfs(there)
    name = f"folder {place}: files"
    if told.f_files == 0:  # file systems that make them as needed say 0
        return Finding(name, "fine", "no limit told", "a file per task and shard")
    found = f"{told.f_favail} more files may be made"
    if told.f_favail < INODES:
        return Finding(name, "absent", found, "results of larger runs", "remove files, or ask for a larger quota")
    return Finding(name, "fine", found, "a file per task and shard")
