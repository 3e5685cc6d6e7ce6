"""A SLURM of two nodes and an undisturbed run, for the tests of this folder: made once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.held import write_calm
from tests.support.slurm import Slurm, missing


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """The running SLURM, or a skip with its reason."""
    if (why := missing()) is not None:
        pytest.skip(why)
    made = Slurm(Path(tempfile.mkdtemp(prefix="slurm-")))  # sockets need a short path
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of slides with their undisturbed run, for runs of other names beside it."""
    return write_calm(tmp_path_factory.mktemp("runs"))
