"""What libraries say of broken files and failing disks, each in words of its own, as errors that a run can tell apart.

Faults of the system become an OSError, whichever library met them. A file of a run that cannot be read is missing or
broken, whatever its receipt said once: the error says which file, and that it can be made anew.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slidebatch.errors import ResultsError

ANEW = "give the same command again to make it anew"
"""What to do about a file that is not as its receipt says."""

RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (zarrs, safetensors) tell a fault of the system."""


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Turn an error that only tells the system's in words, "(os error 28)", into that OSError; others pass."""
    try:
        yield
    except Exception as error:
        told = None if isinstance(error, OSError) else RUST.search(str(error))
        if told is None:
            raise
        raise OSError(int(told[1]), os.strerror(int(told[1])), str(path)) from error


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library says of missing or broken bytes at `path` into a ResultsError; faults of disks pass."""
    try:
        with system_errors(path):
            yield
    except MemoryError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) not in (None, errno.ENOENT):  # errors about bytes have no number
            raise
        raise ResultsError(f"{path}: {what} missing or broken ({error}); {ANEW}") from error
