"""What `chaos.py` loads into every worker: a log of tasks begun and ended, and exceptions by a schedule.

Dask imports this file into each worker (`distributed.worker.preload`). Two environment variables say where things
are: LOG, a file to which each worker adds lines, and SCHEDULE, a folder with a file for each exception that is to
come. Such a file is named `<stage>-<slide>-<y0>-<x0>.<attempt>`, after the item of a task, and says "before" or
"after": whether the task's function raises before its work or after it. It is renamed as it is used up.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from slidebatch import stages
from slidebatch.geometry import Box
from slidebatch.job import Job, Made

LOG, SCHEDULE = "SLIDEBATCH_CHAOS_LOG", "SLIDEBATCH_CHAOS_SCHEDULE"
TAKEN = ".taken"


def tell(**what: Any) -> None:
    """Add a line to the log; lines of several processes do not mix."""
    line = json.dumps({**what, "process": os.getpid(), "ns": time.time_ns()}) + "\n"
    handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)


def due(name: str) -> str | None:
    """What the schedule says of this attempt at an item, used up; None: nothing."""
    for path in sorted(Path(os.environ[SCHEDULE]).glob(f"{name}.[0-9]")):
        word = path.read_text()
        path.rename(path.with_name(path.name + TAKEN))
        return word
    return None


def failed_in(attempt: Path) -> list[str]:
    """The slides that failed in a task, as the receipt says that it has just written."""
    stage, number = attempt.stem.rsplit("-", 1)
    receipt = attempt.parent.parent / "receipts" / stage / f"{number}.json"
    failed: list[str] = json.loads(receipt.read_bytes())["failed"]
    return failed


def upset(stage: str, function: stages.StageFunction) -> stages.StageFunction:
    """A stage's function that raises where the schedule says so."""

    def upsetting(job: Job, number: int, box: Box) -> Made:
        name = f"{stage}-{number}-{box.y0}-{box.x0}"
        word = due(name)
        made = None if word == "before" else function(job, number, box)
        if word is not None:
            tell(what="raise", stage=stage, item=name, when=word)
            raise RuntimeError(f"scheduled at {name}, {word} its work")
        assert made is not None
        return made

    return upsetting


def dask_setup(worker: object) -> None:
    """Called by Dask as a worker starts."""
    choose, begin, end = stages.stage_function, stages.Attempt.begin, stages.Attempt.end

    def told_begin(attempt: stages.Attempt) -> None:
        begin(attempt)
        tell(what="begin", task=attempt.path.stem, session=attempt.session)

    def told_end(attempt: stages.Attempt) -> None:
        tell(what="end", task=attempt.path.stem, session=attempt.session, failed=failed_in(attempt.path))
        end(attempt)

    stages.stage_function = lambda job, stage: upset(stage, choose(job, stage))
    stages.Attempt.begin = told_begin  # type: ignore[method-assign]
    stages.Attempt.end = told_end  # type: ignore[method-assign]
