"""The commands of the guides to SLURM and PBS, given to a SLURM and to a stand-in for PBS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.fake_queue import FakeQueue
from tests.support.guide_commands import commands, quick
from tests.support.jobs import give, logs, until
from tests.support.slurm import Slurm

pytestmark = pytest.mark.long

GUIDES = ROOT / "docs" / "guides"


def _give_all(name: str, environment: Mapping[str, str], queue: Mapping[str, str], folder: Path) -> None:
    """A guide's commands, one after the other; `queue` is for those that ask for jobs as workers."""
    for words in commands(GUIDES / name):
        told = queue if "--cluster" in words else environment
        give(told, *quick(words), cwd=folder)
        if words[1] == "submit" and "--dry-run" not in words:
            done = folder / "results" / "plate" / "summary.parquet"  # written at the end
            until(done.exists, seconds=600, told=lambda: logs(folder / "results" / "plate"))


@pytest.mark.slurm
def test_the_commands_for_slurm(slurm: Slurm, tmp_path: Path) -> None:
    """Each command of the guide to SLURM ends with status 0, and the job that it sends with the results."""
    _give_all("slurm.md", slurm.environment, slurm.environment, tmp_path)
    assert "done, 24 slides" in give(slurm.environment, "status", tmp_path / "results" / "plate")


def test_the_commands_for_pbs(pbs: dict[str, str], tmp_path: Path) -> None:
    """Likewise for PBS."""
    queue = FakeQueue(tmp_path / "bin", "pbs")
    try:
        told = {**os.environ, "PATH": f"{queue.path}:{os.environ['PATH']}"}
        _give_all("pbs.md", pbs, told, tmp_path)
    finally:
        queue.stop()
    assert "done, 24 slides" in give(pbs, "status", tmp_path / "results" / "plate")
