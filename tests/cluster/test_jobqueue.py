"""Kind `slurm` on a real SLURM: a worker per job, killed and cancelled workers replaced, the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.support.dask_cluster import PATIENCE_S
from tests.support.held import Held, processes_of
from tests.support.jobs import until
from tests.support.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.long]


def jobs(**more: Any) -> dict[str, Any]:
    """The section `cluster` of a run whose two workers are jobs that meet on this machine."""
    job = {"interface": "lo", "memory_gb": 2.0, "walltime_s": 1800, "queue": "short", **more}
    return {"kind": "slurm", "workers": 2, "job": job}


def start(slurm: Slurm, settings: Path) -> subprocess.Popen[str]:
    """The command of a user who finds this SLURM."""
    return subprocess.Popen(
        [sys.executable, "-m", "slidebatch", "run", str(settings)],
        cwd=ROOT,
        env={**slurm.environment, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def job_of(process: int) -> str:
    """The job of SLURM that a process belongs to."""
    return psutil.Process(process).environ()["SLURM_JOB_ID"]


def test_killed_workers_and_cancelled_jobs_are_replaced(slurm: Slurm, calm: Path) -> None:
    """SIGKILL of a worker inside a network's task: its job has another one; scancel of a job inside another task: a new
    job takes its place. The calm run's bytes, no slide failed, and no job, process or certificate is left."""
    held = Held(calm, "jobqueue", times=2)
    engine = start(slurm, held.write(cluster=jobs()))
    first, second = held.until_held(told=lambda: str(engine.poll()))
    before = [job_of(first), job_of(second)]
    assert before[0] != before[1]
    os.kill(first, signal.SIGKILL)
    reborn, same = held.until_held(2, 1)
    assert (job_of(reborn), same) == (before[0], second)
    slurm.tell("scancel", before[1])
    _, third = held.until_held(2, 2)
    assert job_of(third) not in before
    held.open()
    _, told = engine.communicate(timeout=PATIENCE_S)
    assert engine.returncode == 0, told
    assert held.is_calm()
    until(lambda: slurm.tell("squeue", "--noheader", "--name=slidebatch", "--format=%A") == "")
    assert not list(held.output.rglob("*.pem"))
    assert not processes_of(str(held.output))
