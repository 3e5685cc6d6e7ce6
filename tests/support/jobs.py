"""Commands of slidebatch where a scheduler is found, and what they left beside an output."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slidebatch.jobscripts import sweeps as arrays
from slidebatch.jobscripts.folder import remembered
from tests.conftest import ROOT

PATIENCE_S = 300


def give(environment: Mapping[str, str], *words: object, expected: int = 0, cwd: Path = ROOT) -> str:
    """A command of slidebatch in a process of its own; what it printed, errors last."""
    done = subprocess.run(
        [sys.executable, "-m", "slidebatch", *map(str, words)],
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def jobs_of(output: Path) -> Path:
    """The folder beside an output."""
    return output.with_name(output.name + ".jobs")


def submitted(output: Path) -> list[dict[str, Any]]:
    """What was submitted for an output, as the file beside it tells."""
    path = jobs_of(output) / "submitted.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def logs(output: Path) -> str:
    """All that the jobs of an output printed."""
    return "\n".join(f"{p.name}: {p.read_text()}" for p in sorted(jobs_of(output).glob("*.log")))


def until(true: Callable[[], object], seconds: float = PATIENCE_S, told: Callable[[], str] = str) -> None:
    """Wait for something to become true; fails with what `told` says if it does not."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it did not happen: {told()}"
        time.sleep(0.1)


def given(output: Path, since: int = 0) -> list[int]:
    """The sweep's jobs that were submitted, in order, from the array number `since` on."""
    return [job for made in list(remembered(jobs_of(output)))[since:] for job in arrays.jobs_of(made.part).values()]
