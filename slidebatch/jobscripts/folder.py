"""What was submitted, beside the output: `results/plate.jobs/` for `results/plate`.

run-0001.sh        a script as it was submitted; never changed
submitted.jsonl    a line for each job: its id, script, array, and when
*.log              what jobs print

The folder lies beside the output and not in it: the output is the engine's own, which tidies it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from slidebatch.errors import ResultsError
from slidebatch.jobscripts.parts import Part
from slidebatch.jobscripts.spec import Scheduler
from slidebatch.store import disk_faults


@dataclass(frozen=True)
class Submitted:
    """One job or array that a scheduler has taken.

    job     its id as the scheduler says it
    script  name of its script in the folder
    part    the array; None for a job that is no sweep's
    """

    job: str
    scheduler: Scheduler
    script: str
    part: Part | None
    since: str


def folder_of(output: str | Path) -> Path:
    """The folder of the jobs of an output.

    >>> str(folder_of("/results/plate/"))
    '/results/plate.jobs'
    """
    path = Path(output).absolute()
    return path.with_name(f"{path.name}.jobs")


def write_script(folder: Path, template: str, text: str) -> Path:
    """Write a script under the next free number; its path. EnvironmentFault: the disk fails."""
    with disk_faults():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1_000_000):
            path = folder / f"{template}-{number:04d}.sh"
            try:
                with open(path, "x", opener=_executable) as file:
                    file.write(text)
            except FileExistsError:
                continue
            return path
    raise ResultsError(f"{folder} holds a million scripts; set another output.path.")


def _executable(path: str, flags: int) -> int:
    return os.open(path, flags, 0o755)


def remember(folder: Path, scheduler: Scheduler, job: str, script: Path, part: Part | None) -> Submitted:
    """Add a job to the list, durably: a short line in one write. EnvironmentFault: the disk fails."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    made = Submitted(job, scheduler, script.name, part, since)
    with disk_faults(), open(folder / "submitted.jsonl", "ab", buffering=0) as file:
        file.write((json.dumps(asdict(made), default=str) + "\n").encode())
        os.fsync(file.fileno())
    return made


def remembered(folder: Path) -> Iterator[Submitted]:
    """Every job that was submitted, the first one first; a line that a power cut tore is left out."""
    try:
        lines = (folder / "submitted.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        part = told.pop("part")
        yield Submitted(**told, part=part and Part(**part | {"through": part["through"] and Path(part["through"])}))
