"""Commands of SLURM and PBS that run jobs as processes of this machine: for kinds of clusters, not for schedulers.

They take a script, print a job's id as the real ones do, list what runs and cancel it. What a scheduler itself does
(limits, queues, directives) they leave out; tests/cluster has a real SLURM.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

SUBMIT = """#!/bin/bash
cat "$1" > "{folder}/script-$$"
setsid bash "{folder}/script-$$" > "{folder}/job-$$.out" 2>&1 < /dev/null &
echo $! >> "{folder}/jobs"
echo "{words}"
"""
LIST = """#!/bin/bash
id="${{@: -1}}"; id="${{id##*=}}"; id="${{id%%.*}}"
kill -0 "$id" 2> /dev/null && echo "$id R" || exit 1
"""
CANCEL = """#!/bin/bash
id="${{1%%.*}}"
kill -TERM -- "-$id" 2> /dev/null
"""

NAMES = {
    "slurm": ("sbatch", "squeue", "scancel", "Submitted batch job $!"),
    "pbs": ("qsub", "qstat", "qdel", "$!.server"),
}


class FakeQueue:
    """The commands in a folder of their own; `path` is to come first in PATH."""

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir(parents=True)
        self.folder, self.path = folder, str(folder)
        submit, listing, cancel, words = NAMES[kind]
        for name, text in ((submit, SUBMIT), (listing, LIST), (cancel, CANCEL)):
            command = folder / name
            command.write_text(text.format(folder=folder, words=words))
            command.chmod(0o755)

    @property
    def jobs(self) -> list[int]:
        """Process ids of all jobs ever submitted."""
        file = self.folder / "jobs"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    @property
    def scripts(self) -> list[str]:
        return [p.read_text() for p in sorted(self.folder.glob("script-*"))]

    def stop(self) -> None:
        """End what is left of every job."""
        for job in self.jobs:
            try:
                os.killpg(job, signal.SIGKILL)
            except ProcessLookupError:
                continue
