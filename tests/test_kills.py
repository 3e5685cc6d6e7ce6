"""A run that is killed again and again, in every stage, ends with the undisturbed result."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT
from tests.support.fields import touching_field
from tests.support.runs import COARSE, config, contents, run, write_slides

STAGES = ["prepare", "infer", "decode", "seams", "paint", "pyramid2", "measure", "table", "manifest"]
PATIENCE_S = 300


def start(settings: Path) -> subprocess.Popen[bytes]:
    """The command of a user, in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "slidebatch", "run", str(settings)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """A job in a shell's background ignores SIGINT, and so do its children; the tests must not depend on that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def in_flight(work: Path, stage: str) -> bool:
    """Whether a task of the stage is being worked on: its attempt file is there."""
    folder = str(work / "attempts")  # a run that begins removes the folder: glob.glob does not mind
    return bool(glob.glob(f"{folder}/{stage}-*.json"))


def kill_inside(process: subprocess.Popen[bytes], work: Path, stage: str) -> bool:
    """SIGKILL the whole run while a task of the stage is in flight; False if the run ended first."""
    hit = signal_inside(process, work, stage, signal.SIGKILL)
    if hit:
        process.wait()
    return hit


def signal_inside(process: subprocess.Popen[bytes], work: Path, stage: str, number: signal.Signals) -> bool:
    """Signal the whole run while a task of the stage is in flight; False if the run ended first.

    The run is stopped before the look that counts, so that nothing can end between the look and the signal.
    """
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        if in_flight(work, stage):
            os.killpg(process.pid, signal.SIGSTOP)
            if in_flight(work, stage):
                os.killpg(process.pid, number)
                os.killpg(process.pid, signal.SIGCONT)
                return True
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.0005)
    return False


def write_config(folder: Path, name: str, **sections: object) -> Path:
    path = folder / f"{name}.yaml"
    with open(path, "w") as file:
        YAML().dump(config(folder, name, **sections).model_dump(mode="json"), file)
    return path


@pytest.mark.long
@pytest.mark.parametrize("cluster", [{"kind": "serial"}, {"kind": "local", "workers": 2}])
def test_killed_in_every_stage_the_result_is_the_same(tmp_path, cluster):
    """SIGKILL inside every stage, one after another, and resume: the result is the undisturbed one."""
    rng = np.random.default_rng(11)
    write_slides(tmp_path, {"a": touching_field((1100, 900), 24, rng), "b": touching_field((200, 220), 20, rng)})
    calm = config(tmp_path, "calm", **COARSE)
    run(calm)
    settings = write_config(tmp_path, "killed", **COARSE, cluster=cluster)
    work = tmp_path / "killed" / "work"
    for stage in STAGES:
        process = start(settings)
        assert kill_inside(process, work, stage), f"{stage}: {process.communicate()[1].decode()[-500:]}"
    assert start(settings).wait(PATIENCE_S) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")
    assert not list((tmp_path / "killed").rglob("*.partial"))


@pytest.mark.long
@pytest.mark.parametrize("cluster", [{"kind": "serial"}, {"kind": "local", "workers": 1}])
def test_an_interrupt_leaves_a_resumable_state(tmp_path, cluster):
    """Ctrl-C (SIGINT to the whole group, as a terminal sends it) exits 130 with one line, and the run resumes."""
    rng = np.random.default_rng(12)
    write_slides(tmp_path, {"a": touching_field((900, 1100), 24, rng)})
    run(config(tmp_path, "calm", **COARSE))
    settings = write_config(tmp_path, "stopped", **COARSE, cluster=cluster)
    process = start(settings)
    assert signal_inside(process, tmp_path / "stopped" / "work", "infer", signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in told.decode()
    assert "resume" in told.decode()
    assert start(settings).wait(PATIENCE_S) == 0
    assert contents(tmp_path / "stopped") == contents(tmp_path / "calm")
