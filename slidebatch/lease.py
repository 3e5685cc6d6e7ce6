"""The lease of a results folder: one run at a time, given up by the system when its process dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from slidebatch.errors import ConfigError, EnvironmentFault, LeaseError

DYING_S = 10.0
"""How long processes of a holder that was killed may take to let go of the lock."""


@contextmanager
def lease(work: Path) -> Iterator[None]:
    """Hold the results folder whose work folder this is. LeaseError says who else holds it.

    ConfigError: the folder cannot be made.

    The lock is the operating system's, so that a killed run frees it as soon as the last of its processes is gone,
    which is waited for; the file's text only tells.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise ConfigError(f"output: {work.parent} cannot be made ({error.strerror}); name another folder.") from error
    path = work / "lease.json"
    with open(path, "a+") as file:
        try:
            _lock(file, path)
        except BlockingIOError as error:
            raise LeaseError(
                f"{work.parent} is in use by another process ({_holder(path)}); wait for it, stop it, "
                "or name another output folder"
            ) from error
        except OSError as error:
            raise EnvironmentFault(
                f"{path} cannot be locked ({error.strerror}); set output.path to a file system with locks"
            ) from error
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": time.ctime()}))
        file.flush()
        yield


def _lock(file: TextIO, path: Path) -> None:
    """BlockingIOError where somebody who lives holds it."""
    end = time.monotonic() + DYING_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end or not _killed(path):
                raise
        time.sleep(0.05)


def _killed(path: Path) -> bool:
    """Whether the holder was a process of this machine that is there no more."""
    try:
        told = json.loads(path.read_text())
        if told["host"] == socket.gethostname():
            os.kill(told["process"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def held(work: Path) -> bool:
    """Whether a run holds the lease now."""
    try:
        with open(work / "lease.json") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _holder(path: Path) -> str:
    try:
        told = json.loads(path.read_text())
        return f"process {told['process']} on {told['host']} since {told['since']}"
    except (OSError, ValueError, KeyError):
        return "unknown"
