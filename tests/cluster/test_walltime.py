"""Jobs that outlive their time limit, on a real SLURM: a run, an array of workers, a sweep, jobs as workers.

SLURM's limits are whole minutes, so all are begun together and each test waits for its own. Once they are at work,
however long that took, their limit is cut to a minute.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from slidebatch.sweep import open_sweep
from tests.cluster.test_jobqueue import job_of, jobs, start
from tests.cluster.test_slurm import SITE, ended
from tests.support.dask_cluster import PATIENCE_S
from tests.support.held import Held
from tests.support.jobs import give, logs, submitted, until
from tests.support.slurm import Slurm
from tests.support.sweeps import results, written

pytestmark = [pytest.mark.slurm, pytest.mark.long]

ARRAY = ["--template", "workers", "--job", "workers=2"]
LOCAL = ["--job", "cpus=2", "--job", "memory=4 GiB"]


@dataclass(frozen=True)
class Limited:
    """What was begun and has a minute of time each.

    run, array       submitted runs, on two workers of a job and on two jobs of one each; held
    told, ends       when the workers of the array were told to be over, and when SLURM said it would end their jobs
    sweep            folder of the config of a submitted sweep, asked to stop 20 s before its limit; held
    queue, engine    a run on two jobs as workers, held, and its process
    first_jobs       of that run
    hopeless         a run on jobs that end before they have a worker
    """

    run: Held
    array: Held
    told: list[int]
    ends: list[int]
    sweep: Path
    queue: Held
    engine: subprocess.Popen[str]
    first_jobs: list[str]
    hopeless: subprocess.Popen[str]


@pytest.fixture(scope="module")
def limited(slurm: Slurm, calm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    """All of it, begun and at work."""
    run, array, queue = (Held(calm, f"limited-{name}") for name in ("run", "array", "queue"))
    sweep = tmp_path_factory.mktemp("limited")
    hopeless = start(slurm, Held(calm, "hopeless").write(cluster=jobs(prologue=["exit 3"])))
    engine = start(slurm, queue.write(cluster=jobs()))
    for settings, more in ((array.write(), ARRAY), (run.write(cluster={"kind": "local"}), LOCAL)):
        give(slurm.environment, "submit", settings, *SITE, "--job", "grace_s=0", *more)
    limit = ["--job", "walltime=00:01:00", "--job", "grace_s=20"]
    give(slurm.environment, "sweep", written(sweep, 2, set={"held": 1}), *SITE, *limit, "--submit")
    told, ends = deadlines(slurm, array)
    run.until_held(told=lambda: logs(run.output))
    first = [job_of(process) for process in queue.until_held(told=lambda: str(engine.poll()))]
    for job in (*first, *(submitted(held.output)[0]["job"] for held in (run, array))):
        slurm.tell("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    yield Limited(run, array, told, ends, sweep, queue, engine, first, hopeless)
    for process in (engine, hopeless):
        process.kill()
        process.wait()


def deadlines(slurm: Slurm, array: Held) -> tuple[list[int], list[int]]:
    """When the workers of an array that waits at its gate were told to be over, and when SLURM will end their jobs."""
    both = array.until_held(told=lambda: logs(array.output))
    found = [psutil.Process(process).environ() for process in both]
    job = submitted(array.output)[0]["job"]
    names = [f"{job}_{one['SLURM_ARRAY_TASK_ID']}" for one in found]
    ends = [slurm.tell("squeue", "--noheader", "--jobs", name, "--format=%e") for name in names]
    told = [int(one["SLIDEBATCH_DEADLINE"]) for one in found]
    return told, [int(datetime.fromisoformat(end).timestamp()) for end in ends]


def test_every_worker_of_an_array_knows_its_end_and_the_same_command_resumes(slurm: Slurm, limited: Limited) -> None:
    """The workers are told the end of their own job, to seconds; SLURM ends all jobs of the array
    inside networks' tasks; submitted again, the run gives the undisturbed result."""
    held, output = limited.array, limited.array.output
    apart = [abs(told - end) for told, end in zip(limited.told, limited.ends, strict=True)]
    assert max(apart) <= 5, apart  # a busy SLURM moves a job's times by seconds while it begins
    assert set(ended(slurm, output)[0].values()) == {"TIMEOUT"}, logs(output)
    held.open()
    give(slurm.environment, "submit", held.folder / f"{held.name}.yaml", *SITE, *ARRAY)
    assert set(ended(slurm, output)[1].values()) == {"COMPLETED"}, logs(output)
    assert held.is_calm()


def test_the_walltime_kills_and_the_same_command_resumes(slurm: Slurm, limited: Limited) -> None:
    """A job that outlives its time limit is ended by SLURM and told as interrupted; submitted again,
    it gives the undisturbed result."""
    held, output = limited.run, limited.run.output
    assert list(ended(slurm, output)[0].values()) == ["TIMEOUT"], logs(output)
    assert "interrupted" in give(slurm.environment, "status", output)
    held.open()
    give(slurm.environment, "submit", held.folder / f"{held.name}.yaml", *SITE, *LOCAL)
    assert list(ended(slurm, output)[1].values()) == ["COMPLETED"], logs(output)
    assert held.is_calm()


def test_slurm_asks_before_the_walltime_and_the_engine_stops_resumable(slurm: Slurm, limited: Limited) -> None:
    """With a time of grace the engine is asked to stop before the limit, and says that it can be resumed."""
    output = limited.sweep / "sweep"
    states_then = ended(slurm, output)[0]
    assert list(states_then.values()) == ["FAILED"], logs(output)  # status 130, not TIMEOUT
    assert "give the same command again to resume" in logs(output)
    (limited.sweep / "gate").touch()
    give(slurm.environment, "sweep", limited.sweep / "sweep.yaml", *SITE, "--resume", "--submit")
    ended(slurm, output)
    found = results(open_sweep(output))
    assert [found[i]["deaths"] for i in range(2)] == [0, 0]


def test_jobs_shorter_than_the_run_are_replaced(slurm: Slurm, limited: Limited) -> None:
    """A run on jobs as workers outlives them: SLURM ends both at their limit, others come, and the bytes are the
    calm run's."""
    held = limited.queue
    told = ["squeue", "--noheader", "--states=all", "--format=%T", "--jobs"]
    until(lambda: [slurm.tell(*told, job) for job in limited.first_jobs] == ["TIMEOUT"] * 2)
    held.open()
    _, said = limited.engine.communicate(timeout=PATIENCE_S)
    assert limited.engine.returncode == 0, said
    assert held.is_calm()


def test_when_no_job_is_left_the_run_says_so(limited: Limited) -> None:
    """Jobs that end before they have a worker, whoever replaces them: one sentence with where their words are."""
    _, told = limited.hopeless.communicate(timeout=PATIENCE_S)
    assert limited.hopeless.returncode == 1, told
    last = told.splitlines()[-1]
    assert last.startswith("error: no job is left that could bring a worker (")
    assert last.endswith("the run is resumable: give the same command again")
