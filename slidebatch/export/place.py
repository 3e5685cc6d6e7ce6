"""Where an export goes: it is there whole or not at all, and nothing is replaced that was not asked for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slidebatch.errors import ConfigError
from slidebatch.results import Results
from slidebatch.store import disk_faults, remove


@contextmanager
def placed(output: Path, force: bool, is_export: Callable[[Path], bool]) -> Iterator[Path]:
    """A path beside `output` to make a file or folder at, moved to `output` at the end.

    :param force: whether a file, or a folder that `is_export` says is an earlier export, may be replaced.
    :raises ConfigError: something else is there. EnvironmentFault: the disk failed.
    """
    _room(output, force, is_export)
    with disk_faults():
        output.parent.mkdir(parents=True, exist_ok=True)
        aside, before = (output.with_name(f".{output.name}.{uuid.uuid4().hex}.{end}") for end in ("partial", "before"))
        try:
            yield aside
            _room(output, force, is_export)  # somebody else may have been quicker
            if output.is_dir():  # a folder cannot be moved over another
                os.replace(output, before)
            os.replace(aside, output)
        finally:
            for left in (aside, before):
                remove(left)


def _room(output: Path, force: bool, is_export: Callable[[Path], bool]) -> None:
    if not os.path.lexists(output):
        return
    if not force:
        raise ConfigError(f"{output} is there already; name another output, or replace it with --force.")
    if output.is_dir() and not is_export(output):
        raise ConfigError(f"{output} holds more than an earlier export of this kind; name another output.")


def outside(output: Path, results: Results) -> None:
    """Refuse to write among the files of a run. ConfigError."""
    if results.path.resolve() in (output.resolve(), *output.resolve().parents):
        raise ConfigError(f"{output} lies in the results folder {results.path}; name an output beside it.")
