"""The template `workers` on a real SLURM: an array of jobs whose Dask workers meet through a scheduler file."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import ssl
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster.test_slurm import SITE, ended, states
from tests.conftest import ROOT
from tests.support.held import Held, processes_of, processes_with
from tests.support.jobs import give, jobs_of, logs, submitted, until
from tests.support.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.long]

# Stands where Python stands: Dask is the real one, the engine is a client that asks every worker which job it is of.
PYTHON = """#!/bin/bash
if [ "$2" != slidebatch ]; then exec {python} "$@"; fi
exec {python} {engine} "$@"
"""
ENGINE = """
import json, os, sys, time
from pathlib import Path
from distributed import Client

here = Path(__file__).parent
with Client(scheduler_file=sys.argv[-1]) as client:
    client.wait_for_workers(3)
    told = client.run(lambda: [os.environ["SLURM_ARRAY_TASK_ID"], os.environ["SLIDEBATCH_DEADLINE"]])
    total = client.submit(sum, client.map(lambda x: x * x, range(20))).result()
    found = {"words": sys.argv[1:], "jobs": sorted(told.values()), "total": total, "address": client.scheduler.address}
    (here / "told.part").write_text(json.dumps(found))
    (here / "told.part").rename(here / "told")
    while not (here / "gate").exists():
        time.sleep(0.1)
sys.exit(int(os.environ["ENDS"]))
"""


@pytest.fixture
def site(tmp_path: Path) -> list[str]:
    """What the site wants: three jobs of one worker each, and an environment whose Python is the stand-in."""
    place = tmp_path / "env"
    (place / "bin").mkdir(parents=True)
    (place / "engine.py").write_text(ENGINE)
    (place / "bin" / "activate").write_text(f"PATH={shlex.quote(str(place / 'bin'))}:$PATH\n")
    words = {"python": sys.executable, "engine": shlex.quote(str(place / "engine.py"))}
    (place / "bin" / "python").write_text(PYTHON.format(**words))
    (place / "bin" / "python").chmod(0o755)
    return [*SITE, "--job", "workers=3", "--job", "per_job=1", "--job", f"environment={place}", "--template", "workers"]


def refused_without_certificate(address: str) -> bool:
    """Whether the scheduler closes the door on who shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = address.removeprefix("tls://").split(":")
    try:
        with context.wrap_socket(socket.create_connection((host, int(port)), timeout=60)) as door:
            return door.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True


@pytest.mark.parametrize("status", [0, 1])
def test_workers_of_an_array_meet(slurm, tmp_path, site, status):
    """The jobs of an array meet through their scheduler file, behind a certificate of their own; when the engine has
    ended all end, the first job with the engine's status, and nothing of the meeting is left."""
    sets, output = ["--set", f"output.path={tmp_path / 'my out'}"], tmp_path / "my out"
    wishes = ["--job", f"variables={{ENDS: '{status}'}}"]
    give(slurm.environment, "submit", "conf/plate.yaml", *sets, *site, *wishes)
    job = submitted(output)[0]["job"]
    told, meet = tmp_path / "env" / "told", jobs_of(output) / f"meet-{job}"
    until(told.exists, seconds=900, told=lambda: f"{states(slurm, job)} {logs(output)}")
    found = json.loads(told.read_text())
    run = ["-m", "slidebatch", "run", f"{ROOT}/conf/plate.yaml", *sets]
    waits = ["--set", "cluster.wait_s=600"]
    assert found["words"] == [*run, *waits, "--cluster", f"{meet}/scheduler.json"]
    assert [number for number, _ in found["jobs"]] == ["0", "1", "2"]
    assert found["total"] == sum(x * x for x in range(20))
    assert found["address"].startswith("tls://")
    assert refused_without_certificate(found["address"])
    assert {p.name: p.stat().st_mode & 0o077 for p in [meet, meet / "key.pem"]} == {meet.name: 0, "key.pem": 0}
    (tmp_path / "env" / "gate").touch()
    ends = ended(slurm, output)[0]
    assert ends[f"{job}_0"] == ("FAILED" if status else "COMPLETED"), logs(output)
    assert [ends[f"{job}_{i}"] for i in (1, 2)] == ["COMPLETED"] * 2, logs(output)
    assert not meet.exists()


def test_who_comes_after_the_end_leaves_at_once(slurm, tmp_path, site):
    """A job of the array that starts after the run has ended finds that out and ends well."""
    output = tmp_path / "out"
    (tmp_path / "env" / "gate").touch()
    (tmp_path / "env" / "engine.py").write_text("raise SystemExit(0)\n")
    one_by_one = ["--job", "directives=['--array=0-1%1']"]
    give(slurm.environment, "submit", "conf/plate.yaml", "--set", f"output.path={output}", *site, *one_by_one)
    assert set(ended(slurm, output)[0].values()) == {"COMPLETED"}, logs(output)
    assert "the run has ended: nothing to do" in logs(output)


def member_of(process: int) -> str:
    """The number of the job in its array that a process belongs to."""
    return psutil.Process(process).environ()["SLURM_ARRAY_TASK_ID"]


def test_the_engine_on_an_array_survives_a_kill_and_a_cancelled_job(slurm: Slurm, calm: Path) -> None:
    """Workers of two jobs work on the run; SIGKILL of a worker inside a network's task, then scancel of the other job
    inside another: its own job's new worker takes both, with the calm run's bytes; nothing of the array is left."""
    held = Held(calm, "array", times=2)
    template = ["--template", "workers", "--job", "workers=2"]
    give(slurm.environment, "submit", held.write(), *SITE, *template)
    output, job = held.output, submitted(held.output)[0]["job"]
    both = held.until_held(told=lambda: logs(output))
    assert sorted(map(member_of, both)) == ["0", "1"]
    task = [member_of(process) for process in both].index("0")
    os.kill(both[task], signal.SIGKILL)
    again = held.until_held(*[2 if n == task else 1 for n in (0, 1)], told=lambda: logs(output))
    assert again[task] != both[task]
    assert (member_of(again[task]), again[1 - task]) == ("0", both[1 - task])
    slurm.tell("scancel", f"{job}_1")
    until(lambda: not psutil.pid_exists(both[1 - task]))
    held.open()
    assert ended(slurm, output)[0] == {f"{job}_0": "COMPLETED", f"{job}_1": "CANCELLED"}, logs(output)
    assert held.is_calm(), logs(output)
    until(lambda: not processes_of(str(jobs_of(output))))
    names = [f"workers-{job}_{member}.log" for member in (0, 1)]
    assert {p.name for p in jobs_of(output).iterdir()} == {
        "workers-0001.sh",
        "submitted.jsonl",
        f"meet-{job}.over",
        *names,
    }


def test_a_lost_first_job_ends_the_others_and_the_same_array_resumes(slurm: Slurm, calm: Path) -> None:
    """SIGKILL of everything in the first job, as when its node is lost: the workers of the other job leave by
    themselves, and the same array again goes on to the calm run's bytes."""
    held = Held(calm, "lost")
    template = ["--template", "workers", "--job", "workers=2"]
    give(slurm.environment, "submit", held.write(), *SITE, *template)
    output, job = held.output, submitted(held.output)[0]["job"]
    both = held.until_held(told=lambda: logs(output))
    ours = slurm.environment["SLURM_CONF"]
    for process in processes_with(SLURM_CONF=ours, SLURM_ARRAY_JOB_ID=job, SLURM_ARRAY_TASK_ID="0"):
        process.kill()
    ends = ended(slurm, output)[0]
    assert ends[f"{job}_0"] in ("FAILED", "NODE_FAIL"), ends
    assert not any(map(psutil.pid_exists, both))
    held.open()
    give(slurm.environment, "submit", held.folder / "lost.yaml", *SITE, *template)
    assert set(ended(slurm, output)[1].values()) == {"COMPLETED"}, logs(output)
    assert held.is_calm()
