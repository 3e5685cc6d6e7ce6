"""Who may read and change what a run writes: the umask of this process, and the group of the results folder."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slidebatch.errors import ConfigError


@contextmanager
def umask(octal: str | None) -> Iterator[None]:
    """Files made in here have these permissions taken; None: as they are."""
    if octal is None:
        yield
        return
    before = os.umask(int(octal, 8))
    try:
        yield
    finally:
        os.umask(before)


def give_to_group(folder: Path, group: str | None) -> None:
    """Make a folder a group's, and everything that will be made in it (its setgid bit); None: leave it.

    ConfigError where there is no such group, or this user may not give it anything.
    """
    if group is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        shutil.chown(folder, group=group)
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_ISGID)
    except (LookupError, PermissionError) as error:
        raise ConfigError(
            f"cluster.group is {group!r}, but {folder} cannot be given to it ({error}); name a group that you are in"
        ) from error
