"""Job scripts hand signals on and end as the engine ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parent.parent / "jobs").glob("*/run.sh"))

# Stands where the engine stands: says how it was called, then ends by itself or waits for SIGTERM.
ENGINE = """#!/bin/bash
trap 'echo stopped >> "$TOLD"; exit 130' TERM
printf '%s\\n' "$PWD" "$@" > "$TOLD"
case "$ENDS" in waits) for _ in $(seq 200); do sleep 0.05; done; exit 99 ;; *) exit "$ENDS" ;; esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a job finds: awkward names, so that a missing quote shows."""
    folder = tmp_path / "my runs"
    folder.mkdir()
    engine = folder / "the engine"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    base = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(folder), "PBS_O_WORKDIR": str(folder)}
    return base | {"SLIDEBATCH": str(engine), "CONFIG": "my plate.yaml", "TOLD": str(folder / "told")}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.parent.name)
@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_the_job_ends_as_the_engine_ends(script: Path, environment: dict[str, str], status: int) -> None:
    """The exit status is the engine's, and the engine is called in the folder of submission."""
    ended = subprocess.run([str(script)], env={**environment, "ENDS": str(status)}, timeout=30)
    assert ended.returncode == status
    told = Path(environment["TOLD"]).read_text().splitlines()
    assert told == [environment["PBS_O_WORKDIR"], "run", "my plate.yaml"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.parent.name)
def test_a_signal_reaches_the_engine(script: Path, environment: dict[str, str]) -> None:
    """SIGTERM to the shell alone stops the engine at once, and its status becomes the job's."""
    job = subprocess.Popen([str(script)], env={**environment, "ENDS": "waits"})
    told = Path(environment["TOLD"])
    while not told.exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 130
    assert "stopped" in told.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.parent.name)
def test_without_a_config_nothing_starts(script: Path, environment: dict[str, str]) -> None:
    """A job without CONFIG says what is missing and does not start the engine."""
    del environment["CONFIG"]
    ended = subprocess.run([str(script)], env={**environment, "ENDS": "0"}, capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    assert "set CONFIG" in ended.stderr
    assert not Path(environment["TOLD"]).exists()
