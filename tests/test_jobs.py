"""Job scripts hand signals on, end as the engine ends, and tell it when it must be over."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from slidebatch.jobscripts.spec import JobSpec
from slidebatch.jobscripts.templates import fill

# Stands where Python stands: says how it was called, then ends by itself or waits for SIGTERM.
ENGINE = """#!/bin/bash
trap 'echo stopped >> "$TOLD"; exit 130' TERM
printf '%s\\n' "$PWD" "$SLIDEBATCH_DEADLINE" "$@" > "$TOLD.part"
mv "$TOLD.part" "$TOLD"
case "$ENDS" in waits) for _ in $(seq 200); do sleep 0.05; done; exit 99 ;; *) exit "$ENDS" ;; esac
"""
END = 1_900_000_000
IDS = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(END), "PBS_JOBID": "7.server"}
SCRIPTS = [(s, t) for s in ("slurm", "pbs", "torque") for t in ("run", "sweep")]
EXPECTED = {"run": ["run", "my plate.yaml", "--set", "name=it's"], "sweep": ["sweep-task", "my sweep", "3"]}

scripts = pytest.mark.parametrize(("scheduler", "template"), SCRIPTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a job starts: awkward names, so that a missing quote shows."""
    made = tmp_path / "my $(runs)"
    (made / "env" / "bin").mkdir(parents=True)
    (made / "env" / "bin" / "activate").write_text(
        f'PATH={str(made / "env" / "bin")!r}:"$PATH"; echo $UNSET_VARIABLE\n'
    )
    engine = made / "env" / "bin" / "python"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    return made


@pytest.fixture
def script(folder: Path) -> Callable[..., list[str]]:
    """The command that runs a filled script of a scheduler, template and wishes."""

    def made(scheduler: str, template: str, **wishes: Any) -> list[str]:
        spec = JobSpec.model_validate({"scheduler": scheduler, "environment": str(folder / "env"), **wishes})
        places = {"name": "a", "template": template, "folder": str(folder), "jobs": str(folder), "own_log": False}
        run = {"config": "my plate.yaml", "sets": ["name=it's"], "sweep": "my sweep", "nodes": 1}
        path = folder / f"{scheduler} {template}.sh"
        part = {"array": None, "offset": 3, "through": None}
        path.write_text(fill(template, spec, {**places, **run, **part}))
        return ["bash", str(path)]

    return made


def environment(folder: Path, ends: object, **more: str) -> dict[str, str]:
    """What a job finds."""
    return {"PATH": os.environ["PATH"], "TOLD": str(folder / "told"), "ENDS": str(ends), **IDS, **more}


@scripts
@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_the_job_ends_as_the_engine_ends(folder, script, scheduler, template, status) -> None:
    """The exit status is the engine's, and the engine is called in the folder of submission."""
    ended = subprocess.run(script(scheduler, template), env=environment(folder, status), timeout=60)
    assert ended.returncode == status
    told = (folder / "told").read_text().splitlines()
    assert [told[0], *told[2:]] == [str(folder), "-m", "slidebatch", *EXPECTED[template]]


@scripts
def test_a_signal_reaches_the_engine(folder, script, scheduler, template) -> None:
    """SIGTERM to the shell alone stops the engine at once, and its status becomes the job's."""
    job = subprocess.Popen(script(scheduler, template), env=environment(folder, "waits"))
    told = folder / "told"
    while not told.exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 130
    assert "stopped" in told.read_text()


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_a_fault_before_the_engine_starts_ends_the_job(folder, script, scheduler) -> None:
    """What fails while the job is set up ends it, and the engine is not started."""
    ended = subprocess.run(script(scheduler, "run", setup=["false"]), env=environment(folder, 0), timeout=60)
    assert ended.returncode == 1
    assert not (folder / "told").exists()


def deadline(folder: Path, command: list[str], **more: str) -> int:
    """When the engine must be over, as it was told, in seconds since 1970."""
    ended = subprocess.run(command, env=environment(folder, 0, **more), timeout=60)
    assert ended.returncode == 0
    return int((folder / "told").read_text().splitlines()[1])


def stand_in(folder: Path, name: str, says: str) -> str:
    """A PATH on which a scheduler's command says something."""
    place = folder / "fake"
    place.mkdir()
    (place / name).write_text(f"#!/bin/bash\n{says}\n")
    (place / name).chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


def test_slurm_tells_when_the_job_will_be_ended(folder, script) -> None:
    """The deadline is the end time that SLURM tells the job, or that its queue tells where SLURM is older."""
    command = script("slurm", "run")
    assert deadline(folder, command) == END
    local = datetime.fromtimestamp(END).isoformat()
    path = stand_in(folder, "squeue", f'[ "$*" = "--noheader --jobs=7 --format=%e" ] && echo {local}')
    assert deadline(folder, command, PATH=path, SLURM_JOB_END_TIME="") == END


@pytest.mark.parametrize("says", ["exit 1", "echo N/A", "true", "echo Unknown"])
@pytest.mark.parametrize(("scheduler", "command"), [("slurm", "squeue"), ("pbs", "qstat")])
def test_without_an_answer_the_walltime_counts_from_now(folder, script, scheduler, command, says) -> None:
    """A scheduler that does not tell leaves the walltime, counted from the job's start."""
    path = stand_in(folder, command, says)
    before = int(time.time())
    told = deadline(folder, script(scheduler, "run", walltime="1-01:02:08"), PATH=path, SLURM_JOB_END_TIME="")
    assert before <= told - 90128 <= time.time()


def test_pbs_tells_the_walltime_that_the_job_has(folder, script) -> None:
    """The walltime that the server says goes before that of the script: it may have been given to qsub."""
    path = stand_in(folder, "qstat", 'echo "Job Id: $2"; echo "    Resource_List.walltime = 00:08:09"')
    before = int(time.time())
    told = deadline(folder, script("pbs", "run"), PATH=path)
    assert before <= told - 489 <= time.time()


def test_pbs_output_can_be_read_at_once(folder, script) -> None:
    """Under PBS, what a job prints stands in a log beside the scripts while it runs."""
    subprocess.run(script("pbs", "run", setup=["echo it begins"]), env=environment(folder, 0), timeout=60)
    assert "it begins" in (folder / "run-7.server.log").read_text()


def test_modules_and_variables_are_there_before_the_engine(folder, script) -> None:
    """Modules are loaded by the site's own function, variables hold any text, in both before `setup`."""
    wishes = {"modules": ["gcc/12", "python"], "variables": {"MINE": "it's\n$(x)"}, "setup": ['echo "$MINE"']}
    module = {"BASH_FUNC_module%%": '() { echo "module $*"; }'}
    command = script("slurm", "run", **wishes)
    ended = subprocess.run(command, env=environment(folder, 0, **module), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("module load gcc/12 python\nit's\n$(x)\n")
