"""Kind `slurm` on a real SLURM: a worker per job, killed jobs replaced, the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.support.dask_cluster import PATIENCE_S
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides
from tests.support.slurm import Slurm
from tests.test_kills import write_config

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_run_on_slurm_jobs(slurm: Slurm, tmp_path: Path) -> None:
    """Two jobs as workers, one cancelled at work: the bytes of a calm run, and no job is left."""
    rng = np.random.default_rng(61)
    write_slides(tmp_path, {"a": touching_field((700, 620), 24, rng), "b": touching_field((200, 220), 20, rng)})
    run(config(tmp_path, "calm"))
    job = {"interface": "lo", "memory_gb": 4.0, "walltime_s": 1800, "queue": "short"}
    settings = write_config(tmp_path, "out", cluster={"kind": "slurm", "workers": 2, "job": job})
    engine = subprocess.Popen(
        [sys.executable, "-m", "slidebatch", "run", str(settings)],
        cwd=ROOT,
        env={**slurm.environment, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    attempts, end = tmp_path / "out" / "work" / "attempts", time.monotonic() + PATIENCE_S
    while not list(attempts.glob("infer-*.json")) and engine.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    running = slurm.tell("squeue", "--noheader", "--states=R", "--name=slidebatch", "--format=%A").split()
    assert running, engine.communicate()[1].decode()
    slurm.tell("scancel", running[0])
    _, told = engine.communicate(timeout=PATIENCE_S)
    assert engine.returncode == 0, told.decode()
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")
    while slurm.tell("squeue", "--noheader", "--name=slidebatch", "--format=%A") and time.monotonic() < end:
        time.sleep(0.5)
    assert slurm.tell("squeue", "--noheader", "--name=slidebatch", "--format=%A") == ""
    assert os.listdir(tmp_path / "out")
