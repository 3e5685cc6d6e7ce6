"""Files that are there whole or not at all, and faults of the disk that holds them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slidebatch.errors import EnvironmentFault

FAULTY_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENOMEM}


@contextmanager
def disk_faults() -> Iterator[None]:
    """Turn a failing disk or mount into an `EnvironmentFault`; other errors pass."""
    try:
        yield
    except MemoryError as error:
        raise EnvironmentFault(
            "this process ran out of memory; free some or use fewer workers, then give the same command again"
        ) from error
    except OSError as error:
        if error.errno in FAULTY_DISK:
            raise EnvironmentFault(
                f"{error.filename or 'the results folder'}: {error.strerror}; "
                "mend that, then give the same command again to resume"
            ) from error
        raise


@contextmanager
def written_aside(path: Path, durable: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to it at the end: the file is whole or not there.

    `durable`: also after a power cut.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield aside
        if durable:
            _sync(aside)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def write_atomically(path: Path, data: bytes, durable: bool = False) -> None:
    """Write a file so that it is either whole or not there; `durable`: also after a power cut."""
    with written_aside(path, durable) as aside:
        aside.write_bytes(data)


def write_json(path: Path, value: Any, durable: bool = False) -> None:
    """Write JSON atomically, keys in the given order; durable files are few and for people too, so indented."""
    write_atomically(path, (json.dumps(value, indent=1 if durable else None) + "\n").encode(), durable)


def read_json(path: Path) -> Any:
    """The value of a JSON file that slidebatch wrote."""
    return json.loads(path.read_bytes())


def sync_all() -> None:
    """Make everything written so far durable."""
    os.sync()


def _sync(path: Path) -> None:
    """Make a file's content, or the renames inside a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(*values: Any) -> str:
    """A short stable digest of JSON-able values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def size_of(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clean_partial(folder: Path) -> int:
    """Remove files that killed tasks had written aside; how many there were."""
    left = [p for p in folder.rglob("*.partial") if p.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
