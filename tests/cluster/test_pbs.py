"""Jobs under PBS's rules: `qsub`, `qstat` and `qdel` that refuse what OpenPBS refuses and run what it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from slidebatch.jobscripts.queue import in_queue
from slidebatch.sweep import array_of, open_sweep
from tests.conftest import ROOT
from tests.support.fake_pbs import LARGEST
from tests.support.fields import touching_field
from tests.support.held import Held, processes_of
from tests.support.jobs import give, given, jobs_of, logs, submitted, until
from tests.support.runs import config, contents, run, write_slides
from tests.support.sweep_points import noted
from tests.support.sweeps import results, written
from tests.test_kills import write_config

pytestmark = pytest.mark.long

SITE = ["--scheduler", "pbs", "--job", "cpus=1", "--job", f"largest_array={LARGEST}"]


def ended(environment: dict[str, str], output: Path) -> None:
    """Wait until all jobs of an output have ended: qstat knows none of them any more."""
    for made in submitted(output):
        until(lambda made=made: asked(environment, "qstat", "-t", made["job"]) == 35, told=lambda: logs(output))


def asked(environment: dict[str, str], *command: str) -> int:
    """The exit status of a command of PBS."""
    return subprocess.run(command, env=environment, capture_output=True).returncode


def test_a_run_is_given_to_qsub(pbs, tmp_path):
    """A run under PBS, which starts jobs elsewhere and without the submitter's environment, gives the same result."""
    place = tmp_path / 'my "plate" $(x)'
    write_slides(place, {"a": touching_field((200, 200), 24, np.random.default_rng(7))})
    run(config(place, "calm"))
    settings, output = write_config(place, "there"), place / "there"
    told = give(pbs, "submit", settings, *SITE, "--job", 'setup=["echo LEAK=${LEAK-}, $SLIDEBATCH_DEADLINE"]')
    assert "submitted: job 1.fake" in told
    ended(pbs, output)
    assert contents(output) == contents(place / "calm"), logs(output)
    assert "LEAK=, 1" in logs(output)
    assert [p.name for p in jobs_of(output).glob("run-1.*")] == ["run-1.fake.log"]


def test_two_nodes_of_pbs_and_a_killed_worker(pbs: dict[str, str], calm: Path) -> None:
    """pbsdsh gives what it starts nothing of the script's environment and another folder; the workers of both nodes
    have them all the same, work, and survive SIGKILL of one inside a network's task: the calm run's bytes, and nothing
    of the job is left."""
    held = Held(calm, "pbs-nodes")
    more = ["--job", "nodes=2", "--job", "setup=['umask 027', 'export KEPT=\"a b\"']"]
    give(pbs, "submit", held.write(), *SITE, *more)
    victim, other = held.until_held(told=lambda: logs(held.output))
    found = [psutil.Process(process).environ() for process in (victim, other)]
    assert {one["PBS_NODENUM"] for one in found} == {"0", "1"}
    assert [(one["KEPT"], one["OMP_NUM_THREADS"]) for one in found] == [("a b", "1")] * 2
    assert psutil.Process(victim).cwd() == psutil.Process(other).cwd() == str(ROOT)
    scratch = [psutil.Process(process).parent().cmdline()[-1] for process in (victim, other)]
    assert {Path(folder).name for folder in scratch} == {"tmp.single.0", "tmp.single.1"}
    os.kill(victim, signal.SIGKILL)
    held.open()
    ended(pbs, held.output)
    assert held.is_calm(), logs(held.output)
    assert (held.output / "work" / "receipts").stat().st_mode & 0o777 == 0o750
    until(lambda: not processes_of(str(jobs_of(held.output))))
    left = {p.name for p in jobs_of(held.output).iterdir()}
    assert left == {"run-0001.sh", "submitted.jsonl", "run-1.fake.log", "slidebatch-test.o1"}


def test_an_array_of_workers_meets_under_pbs(pbs: dict[str, str], calm: Path) -> None:
    """Two jobs of an array meet, each with its own deadline; qdel of the second inside a network's task costs nothing
    but that task: the calm run's bytes."""
    held = Held(calm, "pbs-array")
    wishes = ["--template", "workers", "--job", "workers=2", "--job", "walltime=01:00:00"]
    before = int(time.time())
    give(pbs, "submit", held.write(), *SITE, *wishes)
    both = held.until_held(told=lambda: logs(held.output))
    found = [psutil.Process(process).environ() for process in both]
    assert sorted(one["PBS_ARRAY_INDEX"] for one in found) == ["0", "1"]
    assert all(before <= int(one["SLIDEBATCH_DEADLINE"]) - 3600 <= time.time() for one in found)
    victim = both[[one["PBS_ARRAY_INDEX"] for one in found].index("1")]
    assert asked(pbs, "qdel", "1[1].fake") == 0
    until(lambda: not psutil.pid_exists(victim))
    held.open()
    ended(pbs, held.output)
    assert held.is_calm(), logs(held.output)
    until(lambda: not processes_of(str(jobs_of(held.output))))
    assert not list(jobs_of(held.output).glob("meet-*[0-9]"))


def test_an_array_is_split_and_its_last_job_stands_alone(pbs, tmp_path):
    """Arrays keep to max_array_size and to X < Y: six jobs are an array of five and a job by itself."""
    config_file, output = written(tmp_path, 6, points_per_job=1), tmp_path / "sweep"
    give(pbs, "sweep", config_file, *SITE, "--submit")
    assert [made["job"] for made in submitted(output)] == ["1[].fake", "2.fake"]
    assert [made["part"]["indices"] for made in submitted(output)] == ["0-4", None]
    ended(pbs, output)
    assert sorted(noted(tmp_path / "log", "end")) == list(range(6)), logs(output)
    assert array_of(open_sweep(output)).missing == ()


def test_deleted_jobs_are_given_again_through_a_file(pbs, tmp_path):
    """qdel of some jobs of an array, then --resume: the missing ones, which are no range, go through a file, those in
    the queue are left alone, and every point has one result."""
    config_file, output = written(tmp_path, 5, points_per_job=1, set={"held": 0}), tmp_path / "sweep"
    give(pbs, "sweep", config_file, *SITE, "--submit")
    until(lambda: {0, 1, 2} <= set(noted(tmp_path / "log", "begin")), told=lambda: logs(output))
    until(lambda: {1, 2, 3, 4} == set(noted(tmp_path / "log", "end")), told=lambda: logs(output))
    sweep = open_sweep(output)
    for number in (1, 3):  # as if these had been deleted: nothing of them is there
        sweep.result(sweep.points[number]).unlink()
    with pytest.MonkeyPatch.context() as patch:  # jobs that have done their points may still be ending
        for name, value in pbs.items():
            patch.setenv(name, value)
        until(lambda: {index for _, index in in_queue("pbs", ["1[]"])} <= {0, None}, told=lambda: logs(output))
    told = give(pbs, "sweep", config_file, *SITE, "--resume", "--submit")
    assert "3 of 5 jobs are missing, 1 of them are in the queue" in told
    assert submitted(output)[1]["part"]["indices"] == "0-1"
    assert Path(submitted(output)[1]["part"]["through"]).read_text() == "1\n3\n"
    until(lambda: asked(pbs, "qstat", "-t", "2[]") == 35, told=lambda: logs(output))
    assert array_of(sweep).missing == (0,)
    assert asked(pbs, "qdel", "1[0].fake") == 0
    ended(pbs, output)
    (tmp_path / "gate").touch()
    give(pbs, "sweep", config_file, *SITE, "--resume", "--submit")
    assert given(output) == [0, 1, 2, 3, 4, 1, 3, 0]
    assert submitted(output)[2]["job"] == "3.fake"
    ended(pbs, output)
    assert [results(sweep)[i]["metrics"]["square"] for i in range(5)] == [0, 1, 4, 9, 16]
    assert noted(tmp_path / "log", "begin").count(4) == 1


def test_the_walltime_ends_a_job_and_it_is_given_again(pbs, tmp_path):
    """PBS ends a job at its limit with SIGTERM: the engine stops resumable, which counts for nothing, and goes on."""
    config_file, output = written(tmp_path, 2, set={"held": 1}), tmp_path / "sweep"
    give(pbs, "sweep", config_file, *SITE, "--job", "grace_s=0", "--job", "walltime=00:00:20", "--submit")
    ended(pbs, output)
    (tmp_path / "gate").touch()
    give(pbs, "sweep", config_file, *SITE, "--resume", "--submit")
    ended(pbs, output)
    found = results(open_sweep(output))
    assert [found[i]["metrics"]["square"] for i in range(2)] == [0, 1], logs(output)


@pytest.mark.parametrize(
    ("directive", "words"),
    [
        ("-J 0-0", "illegal -J value"),
        ("-J 0-1,3", "illegal -J value"),
        ("-J 0-5", "exceeds server"),
        ("-q nowhere", "Unknown queue"),
        ("-l walltime=8h", "value for walltime"),
        ("-l select=1:ncpus=8:mem=32GiB", "value for select"),
        ("-t 0-3", "illegal -t value"),
    ],
)
def test_what_openpbs_refuses_is_told(pbs, tmp_path, directive, words):
    """What qsub refuses is one sentence with its words and status 2, and is not remembered."""
    wishes = ["--job", f"directives=['{directive}']"]
    sets = ["--set", f"output.path={tmp_path / 'out'}"]
    told = give(pbs, "submit", "conf/plate.yaml", *sets, *SITE, *wishes, expected=2)
    assert told.splitlines()[-1].startswith("error: qsub refused")
    assert words in told
    assert submitted(tmp_path / "out") == []


def test_a_refusal_in_the_middle_can_be_resumed(pbs, tmp_path):
    """Where one array is taken and the next one refused, the first stays, and the same command gives the rest."""
    config_file, output = written(tmp_path, 6, points_per_job=1, set={"held": 0}), tmp_path / "sweep"
    real = Path(pbs["FAKE_PBS"]) / "bin" / "qsub"
    text = real.read_text()
    real.write_text(text.replace("#!/bin/bash\n", '#!/bin/bash\n[ -d "$FAKE_PBS/1" ] && { echo no more; exit 1; }\n'))
    told = give(pbs, "sweep", config_file, *SITE, "--submit", expected=1)
    assert "no more; 1[].fake were submitted before it" in told
    real.write_text(text)
    (tmp_path / "gate").touch()
    give(pbs, "sweep", config_file, *SITE, "--submit")
    assert given(output)[-1] == 5
    ended(pbs, output)
    assert sorted(results(open_sweep(output))) == list(range(6)), logs(output)
