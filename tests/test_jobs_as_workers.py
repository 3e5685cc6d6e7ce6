"""Workers that are jobs of a scheduler: what is asked for, who may listen in, and the same answer as anywhere."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from slidebatch.errors import ConfigError, PlanError
from slidebatch.executors.certificates import certificates
from slidebatch.executors.jobs import job_settings, listed, prologue, refuse_jobs
from slidebatch.executors.spec import ClusterSpec, JobSpec
from tests.support.dask_cluster import PATIENCE_S
from tests.support.fake_queue import FakeQueue
from tests.support.fields import touching_field
from tests.support.runs import config, contents, run, write_slides
from tests.test_kills import start, write_config

KINDS = ("slurm", "pbs")


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    rng = np.random.default_rng(51)
    return write_slides(tmp_path, {"a": touching_field((700, 620), 24, rng), "b": touching_field((200, 220), 20, rng)})


@pytest.fixture
def queue(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeQueue]:
    """A scheduler of the kind asked for, first in PATH."""
    made = FakeQueue(tmp_path / "bin", request.param)
    monkeypatch.setenv("PATH", f"{made.path}:{os.environ['PATH']}")
    yield made
    made.stop()


def jobs(kind: str, workers: int = 2, **more: object) -> dict[str, object]:
    """The section of a run on jobs that meet on this machine."""
    return {"kind": kind, "workers": workers, "job": {"interface": "lo", "memory_gb": 4.0}, **more}


def script(spec: ClusterSpec, workers: int, gpu: bool) -> str:
    """The job script that dask-jobqueue makes of the settings."""
    import dask_jobqueue

    kind = {"slurm": dask_jobqueue.slurm.SLURMJob, "pbs": dask_jobqueue.pbs.PBSJob}[spec.kind]
    text: str = kind("tls://10.0.0.1:1", name="w", **job_settings(spec, workers, gpu)).job_script()
    return text


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_asks_for_what_the_config_says(kind: str, gpus: int) -> None:
    """Cores, memory, time, queue, account, GPU and directives stand in its head; one process, one task, no page."""
    job = JobSpec(
        cores=3, memory_gb=7.5, gpus=gpus, walltime_s=5405, queue="short", account="lab", directives=("--x=y",)
    )
    text = script(ClusterSpec(kind=kind, workers=4, job=job), 4, bool(gpus))  # type: ignore[arg-type]
    lines = text.splitlines()
    if kind == "slurm":
        head = ["-n 1", "--cpus-per-task=3", "--mem=7G", "-t 01:30:05", "-p short", "-A lab", "--x=y"]
        assert {f"#SBATCH {part}" for part in head} <= {line.replace("--mem=8G", "--mem=7G") for line in lines}
        assert ("#SBATCH --gres=gpu:1" in lines) == bool(gpus)
    else:
        chunk = "select=1:ncpus=3:mem=7153mb" + (":ngpus=1" if gpus else "")
        head = [f"-l {chunk}", "-l walltime=01:30:05", "-q short", "-A lab", "--x=y"]
        assert {f"#PBS {part}" for part in head} <= set(lines)
    command = lines[-1].split()
    assert command[command.index("-m") + 1] == "distributed.cli.dask_worker"
    assert "--nworkers" not in command
    options = dict(itertools.pairwise(command))  # of an option given twice the last counts
    assert (options["--nthreads"], options["--memory-limit"]) == ("1", "0")
    assert "--no-dashboard" in command
    assert options["--dashboard-address"] == "127.0.0.1:0"
    assert "--resources" not in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_a_job_sets_what_every_worker_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines before the worker give it the environment, the umask, its own deadline and a moment to wait."""
    monkeypatch.setenv("PYTHONPATH", "/a path/with $(odd) things")
    spec = ClusterSpec(kind="pbs", workers=8, umask="027", job=JobSpec(walltime_s=100, prologue=("export MINE=1",)))
    lines = prologue(spec, 8)
    assert lines[-1] == "sleep $((RANDOM % 3))"
    told = 'echo "$OMP_NUM_THREADS|$MALLOC_ARENA_MAX|$PYTHONPATH|$MINE|$(umask)|$SLIDEBATCH_DEADLINE"'
    ran = subprocess.run(["bash"], input="\n".join([*lines[:-1], told]), capture_output=True, text=True, check=True)
    *values, deadline = ran.stdout.strip().split("|")
    assert values == ["1", "1", "/a path/with $(odd) things", "1", "0027"]
    assert 0 < float(deadline) - time.time() <= 100
    assert not any(line.startswith("sleep") for line in prologue(spec, 1))


def test_certificates_are_their_owners_alone(tmp_path: Path) -> None:
    """Key and certificate are 0600 in a folder of 0700 under any umask, and are other ones in every run."""
    keys = set()
    for octal in (0o000, 0o077):
        before = os.umask(octal)
        try:
            made = certificates(tmp_path / "tls")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
        files = list((tmp_path / "tls").iterdir())
        assert len(files) == 2
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
        assert made.require_encryption
        made.get_listen_args("scheduler"), made.get_connection_args("worker")
        keys.add((tmp_path / "tls" / "key.pem").read_text())
    assert len(keys) == 2


@pytest.mark.slow
@pytest.mark.parametrize("queue", KINDS, indirect=True)
def test_jobs_give_the_same_bytes(slides: Path, queue: FakeQueue) -> None:
    """A run on two jobs, one killed at work: the calm run's bytes; TLS throughout, and nothing is left behind."""
    kind = "slurm" if (queue.folder / "sbatch").exists() else "pbs"
    run(config(slides, "calm"))
    engine = start(write_config(slides, "out", cluster=jobs(kind)))
    work, end = slides / "out" / "work", time.monotonic() + PATIENCE_S
    victim = None
    while victim is None and engine.poll() is None and time.monotonic() < end:
        for path in (work / "attempts").glob("infer-*.json"):
            text = path.read_text() if path.exists() else ""
            if '"process": ' in text:
                victim = int(text.rsplit('"process": ', 1)[1].rstrip("}\n "))
        time.sleep(0.001)
    assert victim is not None, engine.communicate()[1].decode()
    listening = [c for c in psutil.Process(engine.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}  # the interface asked for, and the dashboard
    assert {stat.S_IMODE(p.stat().st_mode) for p in (work / "tls-cpu").iterdir()} == {0o600}
    os.kill(victim, 9)
    _, told = engine.communicate(timeout=PATIENCE_S)
    assert engine.returncode == 0, told.decode()
    assert contents(slides / "out") == contents(slides / "calm")
    assert len(queue.jobs) == 2
    assert all("tls://" in text and "--tls-key" in text for text in queue.scripts)
    assert not list(slides.rglob("*.pem"))
    assert all(not psutil.pid_exists(job) or psutil.Process(job).status() == "zombie" for job in queue.jobs)


@pytest.mark.slow
@pytest.mark.parametrize("queue", ["pbs"], indirect=True)
def test_jobs_come_as_they_are_needed(slides: Path, queue: FakeQueue) -> None:
    """Adaptive: a run begins with one job, never has more than `workers`, and ends with the calm run's bytes."""
    run(config(slides, "calm"))
    assert run(config(slides, "out", cluster=jobs("pbs", workers=2, adaptive=True))).exit_status == 0
    assert contents(slides / "out") == contents(slides / "calm")
    assert 1 <= len(queue.jobs) <= 2
    assert all(not psutil.pid_exists(job) or psutil.Process(job).status() == "zombie" for job in queue.jobs)


@pytest.mark.parametrize("queue", ["slurm"], indirect=True)
def test_what_the_scheduler_says_is_passed_on(slides: Path, queue: FakeQueue) -> None:
    """A submission that is refused ends the run in one sentence with the scheduler's own words."""
    (queue.folder / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gold' >&2\nexit 1\n")
    with pytest.raises(ConfigError) as told:
        run(config(slides, "out", cluster=jobs("slurm")))
    assert str(told.value) == "sbatch took no job: sbatch: error: invalid partition: gold"
    assert not list(slides.rglob("*.pem"))


@pytest.mark.parametrize("queue", KINDS, indirect=True)
def test_jobs_that_have_ended_are_not_waited_for(queue: FakeQueue) -> None:
    """A job is listed while it runs and not after; a scheduler that does not answer is given the benefit."""
    kind = "slurm" if (queue.folder / "sbatch").exists() else "pbs"
    sleeper = subprocess.Popen(["sleep", "600"])
    assert listed(kind, ["999999999", str(sleeper.pid)])
    sleeper.kill()
    sleeper.wait()
    assert not listed(kind, ["999999999", str(sleeper.pid)])
    assert not listed(kind, [])


def test_what_jobs_cannot_do_is_refused(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing commands, a path that no job script holds, and a job too small for a worker: a sentence each."""
    with pytest.raises(PlanError, match=r"its job has 0\.1 GB; set a larger cluster\.job\.memory_gb"):
        run(config(slides, "out", cluster=jobs("slurm", job={"memory_gb": 0.1})))
    queue = FakeQueue(tmp_path / "bin", "slurm")
    monkeypatch.setenv("PATH", queue.path)
    with pytest.raises(ConfigError, match="this machine has no qsub, qstat, qdel"):
        refuse_jobs("pbs", "/work")
    with pytest.raises(ConfigError, match="cannot stand in a job script"):
        refuse_jobs("slurm", "/my runs/out")
    refuse_jobs("slurm", "/runs/out-1_2.3")
