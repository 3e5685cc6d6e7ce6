"""The template `run` on two nodes: the real engine, its Dask scheduler on the first node and workers on both."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.cluster.test_slurm import SITE, ended
from tests.support.held import Held, processes_of, processes_with
from tests.support.jobs import give, jobs_of, logs, submitted, until
from tests.support.slurm import NODES, Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.long]


def test_two_nodes_of_slurm_a_killed_worker_and_a_lost_node(slurm: Slurm, calm: Path) -> None:
    """Workers of both nodes work on the run; SIGKILL of that of the first inside a network's task, then of everything
    on the second, leaves the calm run's bytes, and nothing of the job is left: no folder where its nodes met, no
    process, nothing in the queue."""
    held = Held(calm, "nodes")
    give(slurm.environment, "submit", held.write(), *SITE, "--job", "nodes=2")
    output, job = held.output, submitted(held.output)[0]["job"]
    both = held.until_held(told=lambda: logs(output))
    at = {psutil.Process(process).environ()["SLURMD_NODENAME"]: process for process in both}
    assert at.keys() == {*NODES}
    ports = {c.laddr for c in psutil.Process(both[0]).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert len({a.port for a in ports if not a.ip.startswith("127.")}) == 1, "the door of TLS, and nothing else"
    os.kill(at["n0"], signal.SIGKILL)
    for process in processes_with(SLURM_CONF=slurm.environment["SLURM_CONF"], SLURM_JOB_ID=job, SLURMD_NODENAME="n1"):
        process.kill()
    held.open()
    assert list(ended(slurm, output)[0].values()) == ["COMPLETED"], logs(output)
    assert held.is_calm(), logs(output)
    until(lambda: not processes_of(str(jobs_of(output))), told=lambda: str(processes_of(str(jobs_of(output)))))
    assert {p.name for p in jobs_of(output).iterdir()} == {"run-0001.sh", "submitted.jsonl", f"run-{job}.log"}
    assert slurm.tell("squeue", "--noheader", "--states=R,PD,CG") == ""
