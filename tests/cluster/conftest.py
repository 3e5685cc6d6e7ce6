"""A SLURM of two nodes, a stand-in for PBS, and an undisturbed run, for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.held import write_calm
from tests.support.jobs import until
from tests.support.slurm import Slurm, missing

COMMAND = '#!/bin/bash\nPYTHONPATH={root} exec {python} -m tests.support.fake_pbs {name} "$@"\n'


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


@pytest.fixture
def pbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a user's command needs to find PBS; its jobs are ended at the end."""
    home = tmp_path_factory.mktemp("pbs")
    (home / "bin").mkdir()
    for name in ("qsub", "qstat", "qdel", "pbsdsh"):
        (home / "bin" / name).write_text(COMMAND.format(root=ROOT, python=sys.executable, name=name))
        (home / "bin" / name).chmod(0o755)
    told = {**os.environ, "FAKE_PBS": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "LEAK": "yes"}
    yield told
    for folder in home.glob("[0-9]*"):
        subprocess.run([home / "bin" / "qdel", folder.name], env=told, capture_output=True)
    until(lambda: all((folder / "over").exists() for folder in home.glob("[0-9]*")))
