"""Jobs on a real SLURM of two nodes: a run, sweeps as arrays, kills and resumes, workers that meet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slidebatch.sweep import array_of, open_sweep
from tests.conftest import ROOT
from tests.support.fields import touching_field
from tests.support.jobs import give, given, jobs_of, logs, submitted, until
from tests.support.runs import config, contents, run, write_slides
from tests.support.slurm import LARGEST, Slurm
from tests.support.sweep_points import noted
from tests.support.sweeps import results, written
from tests.test_kills import write_config

pytestmark = [pytest.mark.slurm, pytest.mark.long]

SITE = ["--scheduler", "slurm"] + [
    word
    for wish in ("cpus=1", "memory=2 GiB", "walltime=00:20:00", f"largest_array={LARGEST}")
    for word in ("--job", wish)
]
AWKWARD = 'it\'s "my" plate; $(touch gotcha)\nnew `line` 100%A\\b\n#SBATCH --time=1'
LIVING = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}


def states(slurm: Slurm, job: str) -> dict[str, str]:
    """States of a job, or of an array's jobs, by id; jobs that were cancelled before they began are not told."""
    told = slurm.tell("squeue", "--noheader", "--array", "--states=all", "--format=%i %T", "--jobs", job, check=False)
    return dict(line.split() for line in told.splitlines())


def ended(slurm: Slurm, output: Path) -> list[dict[str, str]]:
    """Wait until all jobs of an output have ended; their states, a dictionary for each that was submitted."""
    jobs = [made["job"] for made in submitted(output)]
    until(lambda: not any(LIVING & set(states(slurm, job).values()) for job in jobs), told=lambda: logs(output))
    return [states(slurm, job) for job in jobs]


# Runs


def test_the_sample_as_a_job(slurm, tmp_path):
    """The shipped config, submitted with two commands from an empty folder, ends with the results and a log of it."""
    told = give(slurm.environment, "submit", "conf/plate.yaml", *SITE, "--set", "input.sample=plate", cwd=tmp_path)
    output = tmp_path / "results" / "plate"
    job = submitted(output)[0]["job"]
    assert f"submitted: job {job}, {jobs_of(output) / 'run-0001.sh'}" in told
    assert (jobs_of(output) / "run-0001.sh").read_text() in told
    assert ended(slurm, output) == [{job: "COMPLETED"}], logs(output)
    assert "accuracy against the sample's truth" in logs(output)
    assert "24 slides" in give(slurm.environment, "status", output)


def test_a_run_of_an_awkward_name(slurm, tmp_path):
    """A run whose folders and name hold spaces, quotes, newlines and $(...) gives the undisturbed result."""
    place = tmp_path / AWKWARD.replace("/", "")
    write_slides(place, {"a": touching_field((300, 200), 24, np.random.default_rng(5))})
    run(config(place, "calm"))
    settings = write_config(place, "there")
    give(slurm.environment, "submit", settings, *SITE, "--set", f"name={json.dumps(AWKWARD)}")
    assert list(ended(slurm, place / "there")[0].values()) == ["COMPLETED"], logs(place / "there")
    assert contents(place / "there") == contents(place / "calm")
    assert not [*tmp_path.rglob("gotcha"), *ROOT.glob("gotcha")]


# Sweeps


def test_half_of_an_array_is_cancelled_and_resume_gives_what_is_missing(slurm, tmp_path):
    """scancel of half of a sweep's arrays, then --resume: what is missing is submitted, and nothing else; every point
    has one result, and finished ones are not touched again."""
    config_file, output = written(tmp_path, 12, points_per_job=1, set={"held": 2}), tmp_path / "sweep"
    give(slurm.environment, "sweep", config_file, *SITE, "--submit")
    arrays = [made["job"] for made in submitted(output)]
    assert given(output) == list(range(12))
    assert [made["part"]["indices"] for made in submitted(output)] == ["0-4", "0-4", "0-1"]
    until(lambda: 2 in noted(tmp_path / "log", "begin"), told=lambda: logs(output))
    slurm.tell("scancel", f"{arrays[0]}_2", f"{arrays[0]}_[3-4]", arrays[1])
    until(lambda: states(slurm, arrays[0])[f"{arrays[0]}_2"] not in LIVING)
    (tmp_path / "gate").touch()  # not before: else it might end well, in spite of its signal
    ended(slurm, output)
    sweep = open_sweep(output)
    missing, before = array_of(sweep).missing, results(sweep)
    assert 2 in missing
    told = give(slurm.environment, "sweep", config_file, *SITE, "--resume", "--submit")
    assert f"{len(missing)} of 12 jobs are missing\n" in told
    assert given(output, since=3) == list(missing)
    ended(slurm, output)
    after = results(sweep)
    assert [after[i]["metrics"]["square"] for i in range(12)] == [i * i for i in range(12)]
    assert len(list((output / "results").iterdir())) == 12
    assert all(after[i] == result for i, result in before.items())
    ends = noted(tmp_path / "log", "end")  # a job that is cancelled may have done its point and not written it down
    assert set(ends) == set(range(12))
    assert [ends.count(i) for i in before] == [1] * len(before)
    assert "all 12 jobs are finished" in give(slurm.environment, "sweep", config_file, *SITE, "--resume", "--submit")
    assert len(submitted(output)) == 3 + len({i // LARGEST for i in missing})


def test_what_is_in_the_queue_is_not_submitted_again(slurm, tmp_path):
    """While an array waits or runs, the same command submits none of its jobs again; a cancelled one it does."""
    config_file, output = written(tmp_path, 3, points_per_job=1, set={"held": 0}), tmp_path / "sweep"
    give(slurm.environment, "sweep", config_file, *SITE, "--job", "at_once=1", "--submit")
    job = submitted(output)[0]["job"]
    assert "3 of them are in the queue" in give(slurm.environment, "sweep", config_file, *SITE, "--submit")
    assert len(submitted(output)) == 1
    slurm.tell("scancel", f"{job}_1")
    until(lambda: f"{job}_1" not in states(slurm, job))
    assert "2 of them are in the queue" in give(slurm.environment, "sweep", config_file, *SITE, "--submit")
    assert given(output, since=1) == [1]
    (tmp_path / "gate").touch()
    ended(slurm, output)
    assert noted(tmp_path / "log", "begin").count(1) == 1
    assert array_of(open_sweep(output)).missing == ()


def test_trained_networks_as_an_array(slurm, tmp_path):
    """The shipped sweep of trainings goes out as an array and comes back as one table."""
    tiny = ["--set", "set.epochs=1", "--set", "set.steps_per_epoch=2", "--set", "set.score_every=1"]
    give(slurm.environment, "sweep", "conf/sweep/quick.yaml", *tiny, *SITE, "--submit", cwd=tmp_path)
    output = tmp_path / "sweeps" / "quick"
    assert set(ended(slurm, output)[0].values()) == {"COMPLETED"}, logs(output)
    assert "4 of 4 points" in give(slurm.environment, "sweep-collect", output)


# PBS's scripts, run by SLURM


def test_pbs_scripts_run_under_sbatch(slurm, tmp_path):
    """A sweep's array for PBS is read by sbatch, and spank_pbs gives it PBS's variables: each job does its points."""
    config_file, output = written(tmp_path, 4, points_per_job=1), tmp_path / "sweep"
    pbs = ["--scheduler", "pbs", *SITE[2:]]
    give(slurm.environment, "sweep", config_file, *pbs)  # writes the folder, submits nothing
    shown = give(slurm.environment, "sweep", config_file, *pbs, "--dry-run")
    jobs_of(output).mkdir()
    script = jobs_of(output) / "array.sh"
    script.write_text(shown[shown.index("#!/bin/bash") :])
    job = slurm.tell("sbatch", "--parsable", script.name, cwd=script.parent)
    until(lambda: set(states(slurm, job).values()) == {"COMPLETED"}, told=lambda: str(states(slurm, job)))
    assert sorted(results(open_sweep(output))) == [0, 1, 2, 3]
    assert sorted(noted(tmp_path / "log", "begin")) == [0, 1, 2, 3]
    assert len(list(jobs_of(output).glob("sweep-*.log"))) == 4


def test_a_pbs_run_under_sbatch(slurm, tmp_path):
    """A run's script for PBS, run by sbatch, gives the undisturbed result."""
    write_slides(tmp_path, {"a": touching_field((200, 200), 24, np.random.default_rng(7))})
    run(config(tmp_path, "calm"))
    settings = write_config(tmp_path, "there")
    shown = give(slurm.environment, "submit", settings, "--scheduler", "pbs", *SITE[2:], "--dry-run")
    jobs_of(tmp_path / "there").mkdir()
    (tmp_path / "there.jobs" / "run.sh").write_text(shown)
    job = slurm.tell("sbatch", "--parsable", "run.sh", cwd=jobs_of(tmp_path / "there"))
    until(lambda: states(slurm, job) == {job: "COMPLETED"}, told=lambda: logs(tmp_path / "there"))
    assert contents(tmp_path / "there") == contents(tmp_path / "calm")
