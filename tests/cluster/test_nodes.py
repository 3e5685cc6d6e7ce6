"""The template `run` on two nodes: the real engine, its Dask scheduler on the first node and workers on both."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.cluster.test_slurm import SITE, ended
from tests.support.held import Held, processes_of
from tests.support.jobs import give, jobs_of, logs, submitted, until
from tests.support.slurm import NODES, Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_two_nodes_of_slurm_and_a_killed_worker(slurm: Slurm, calm: Path) -> None:
    """Workers of both nodes work on the run; SIGKILL of one inside a network's task leaves the calm run's bytes, and
    nothing of the job is left: no folder where its nodes met, no process, nothing in the queue."""
    held = Held(calm, "nodes")
    give(slurm.environment, "submit", held.write(), *SITE, "--job", "nodes=2")
    output = held.output
    victim, other = held.until_held(told=lambda: logs(output))
    assert {psutil.Process(p).environ()["SLURMD_NODENAME"] for p in (victim, other)} == {*NODES}
    ports = {c.laddr for c in psutil.Process(victim).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert len({a.port for a in ports if not a.ip.startswith("127.")}) == 1, "the door of TLS, and nothing else"
    os.kill(victim, signal.SIGKILL)
    held.open()
    assert list(ended(slurm, output)[0].values()) == ["COMPLETED"], logs(output)
    assert held.is_calm(), logs(output)
    until(lambda: not processes_of(str(jobs_of(output))), told=lambda: str(processes_of(str(jobs_of(output)))))
    left = {p.name for p in jobs_of(output).iterdir()}
    assert left == {"run-0001.sh", "submitted.jsonl", f"run-{submitted(output)[0]['job']}.log"}
    assert slurm.tell("squeue", "--noheader", "--states=R,PD,CG") == ""
