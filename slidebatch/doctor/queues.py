"""Commands of batch schedulers, and whether the scheduler behind them answers."""

from __future__ import annotations

import shutil
import subprocess

from slidebatch.doctor.finding import Finding
from slidebatch.executors.jobs import COMMANDS

ASKED = {"slurm": ("sinfo", "--version"), "pbs": ("qstat", "--version")}
ANSWERS = {"slurm": ("squeue", "--noheader"), "pbs": ("qstat", "-B")}
PATIENCE_S = 20


def look() -> list[Finding]:
    """Findings of SLURM and PBS."""
    return [_queue(kind) for kind in COMMANDS]


def _queue(kind: str) -> Finding:
    name, use = f"scheduler: {kind}", f"cluster.kind {kind}, job scripts and sweeps on {kind}"
    absent = [command for command in COMMANDS[kind] if shutil.which(command) is None]
    if absent:
        return Finding(name, "absent", f"no {', '.join(absent)} here", use, "run on a node that submits jobs")
    status, words = _said(ANSWERS[kind])
    if status != 0:
        return Finding(name, "absent", f"does not answer ({words})", use, "ask the cluster's administrators")
    return Finding(name, "fine", _said(ASKED[kind])[1] or "answers", use)


def _said(command: tuple[str, ...]) -> tuple[int, str]:
    """Exit status and last line of a command; 1 where it cannot be run or does not end."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    lines = (ended.stdout + ended.stderr).strip().splitlines()
    return ended.returncode, lines[-1] if lines else ""
