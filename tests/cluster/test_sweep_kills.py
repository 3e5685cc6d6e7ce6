"""Sweeps as arrays whose jobs and processes are killed at random: every point ends with exactly one result."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from slidebatch.store import read_json
from slidebatch.sweep import Sweep, array_of, open_sweep
from tests.cluster import test_pbs, test_slurm
from tests.support.jobs import give, logs, submitted, until
from tests.support.slurm import Slurm
from tests.support.sweep_points import noted
from tests.support.sweeps import results, written
from tests.test_sweep_task import stamps

pytestmark = pytest.mark.long

KINDS = ("process", "shell", "cancel")
"""SIGKILL of the process that works on a point; of that and its job's shell; the scheduler's own way to end a job."""


@dataclass(frozen=True)
class Site:
    """A scheduler: a user's environment, options of its commands, how a job is cancelled and seen to be over."""

    environment: Mapping[str, str]
    options: list[str]
    cancel: Callable[[Mapping[str, str]], object]
    busy: Callable[[Path], bool]


@dataclass
class Strikes:
    """Points in whose midst a job is to be struck, each once, and those that were struck, by kind."""

    waiting: dict[int, str]
    struck: dict[int, str] = field(default_factory=dict)

    def strike(self, sweep: Sweep, site: Site) -> None:
        """Strike at the points that have begun and that a living process works on."""
        for number in {*noted(sweep.folder.parent / "log", "begin")} & self.waiting.keys():
            kind = self.waiting.pop(number)
            try:
                process = psutil.Process(read_json(sweep.place(sweep.points[number]) / "lease.json")["process"])
                environment, shell = process.environ(), process.parent()
                if kind == "cancel":
                    site.cancel(environment)
                else:
                    process.send_signal(signal.SIGKILL)
                if kind == "shell" and shell is not None:
                    shell.send_signal(signal.SIGKILL)
            except (OSError, ValueError, psutil.Error):
                continue  # its job had ended, or was struck at another point
            self.struck[number] = kind


def site_of_slurm(slurm: Slurm) -> Site:
    def cancel(job: Mapping[str, str]) -> None:
        slurm.tell("scancel", f"{job['SLURM_ARRAY_JOB_ID']}_{job['SLURM_ARRAY_TASK_ID']}")

    def busy(_: Path) -> bool:
        return slurm.tell("squeue", "--noheader", "--name=slidebatch-sweep", "--format=%i") != ""

    return Site(slurm.environment, test_slurm.SITE, cancel, busy)


def site_of_pbs(pbs: dict[str, str]) -> Site:
    def busy(output: Path) -> bool:
        return any(test_pbs.asked(pbs, "qstat", "-t", made["job"]) != 35 for made in submitted(output))

    return Site(pbs, test_pbs.SITE, lambda job: test_pbs.asked(pbs, "qdel", job["PBS_JOBID"]), busy)


@pytest.mark.parametrize(("scheduler", "points"), [pytest.param("slurm", 1000, marks=pytest.mark.slurm), ("pbs", 200)])
def test_every_point_has_one_result_after_kills_and_two_resumes(request, tmp_path, scheduler, points) -> None:
    """Jobs of a sweep's arrays are killed and cancelled at points drawn at random, in the first submission and in the
    first resume: after the second resume every point has exactly one result, and none that was there was touched."""
    native = request.getfixturevalue(scheduler)
    site = site_of_slurm(native) if scheduler == "slurm" else site_of_pbs(native)
    config_file, output = written(tmp_path, points, points_per_job=25, set={"seconds": 0.02}), tmp_path / "sweep"
    draw = random.Random(points)
    strikes = Strikes({number: draw.choice(KINDS) for number in draw.sample(range(points), points // 20)})
    kept: dict[str, tuple[int, bytes]] = {}
    done = []
    for resume in ([], ["--resume"], ["--resume"]):
        give(site.environment, "sweep", config_file, *site.options, *resume, "--submit")
        sweep = open_sweep(output)
        if len(done) == 2:
            strikes.waiting.clear()
        until(lambda sweep=sweep: strikes.strike(sweep, site) or not site.busy(output), told=lambda: logs(output))
        now = stamps(output)
        assert now.items() >= kept.items()
        kept, done = now, [*done, len(now)]
    assert done[0] < done[1] < done[2] == points, done
    assert {*strikes.struck.values()} == {*KINDS}, strikes
    found = results(sweep)
    assert [found[i]["metrics"]["square"] for i in range(points)] == [i * i for i in range(points)]
    assert array_of(sweep).missing == ()
    assert len(list((output / "results").glob("[!.]*"))) == points  # a killed job may leave what it began to write
    assert f"{points} of {points} points" in give(os.environ, "sweep-collect", output)
