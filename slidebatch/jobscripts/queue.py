"""The scheduler's own commands: giving it a script, and asking what is still in its queue."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from slidebatch.errors import ConfigError, EnvironmentFault
from slidebatch.jobscripts.schedulers import RULES
from slidebatch.jobscripts.spec import Scheduler

PATIENCE_S = 300
_ID = re.compile(r"(\d+)(?:\[\])?")
_ENDED = {"C", "E", "F", "X"}
"""States of jobs that PBS lists although they have ended: complete, exiting, finished, and so in an array."""
_ELEMENT = re.compile(r"^\s*(\d+)(?:_(\d+)|\[(\d+)\])?(?:[.\s]|$)")


def submit_script(scheduler: Scheduler, script: Path) -> str:
    """Give a script to the scheduler, from its own folder; the id of its job.

    :raises ConfigError: the scheduler's command is not here, or it refuses the script.
    :raises EnvironmentFault: it does not answer.
    """
    command = RULES[scheduler].submit
    done = _run([*command, script.name], script.parent)
    told = done.stdout.strip().split(";")[0]
    if done.returncode or not _ID.match(told):
        said = " ".join((done.stderr or done.stdout).split()) or "nothing"
        raise ConfigError(f"{command[0]} refused {script} (status {done.returncode}), and said: {said}")
    return told


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{command[0]} is not on PATH; submit from a machine of the cluster, or see the script with --dry-run."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFault(f"{command[0]} did not answer for {PATIENCE_S} seconds; try again later.") from error


def number_of(job: str) -> str:
    """The number of a job's id: 17 of `17[].server`."""
    found = _ID.match(job)
    return found[1] if found else job


def in_queue(scheduler: Scheduler, jobs: Iterable[str]) -> set[tuple[str, int | None]]:
    """Which of these jobs wait or run: (number of the job, index in its array or None for a job that is none).

    Asked job by job, because schedulers answer about none of them if they have forgotten one: then it has ended.
    """
    listing = RULES[scheduler].listing
    found: set[tuple[str, int | None]] = set()
    for job in jobs:
        done = _run([*listing, number_of(job) if scheduler == "slurm" else job], Path.cwd())
        elements = [_ELEMENT.match(line) for line in done.stdout.splitlines() if not _ended(line)]
        found |= {(e[1], None if (e[2] or e[3]) is None else int(e[2] or e[3])) for e in elements if e}
    return found


def _ended(line: str) -> bool:
    """Whether PBS says so: id, name, user, time, state, queue."""
    columns = line.split()
    return len(columns) > 2 and columns[-2] in _ENDED
