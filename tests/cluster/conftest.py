"""A SLURM of two nodes for the tests of this folder: started once, stopped at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
