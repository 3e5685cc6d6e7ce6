"""Laws of leases: one holder at a time, and a killed one lets go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slidebatch.errors import LeaseError
from slidebatch.lease import held, lease
from tests.conftest import ROOT

HOLDS = """
import os, subprocess, sys, time
from pathlib import Path
from slidebatch.lease import lease
with lease(Path(sys.argv[1])):
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and os.path.exists(f"/proc/self/fd/{number}"):
            os.set_inheritable(number, True)
    below = subprocess.Popen(["sleep", sys.argv[2]], close_fds=False, stdout=subprocess.DEVNULL)
    print("held", flush=True)
    time.sleep(600)
"""


def holder(work: Path, longer_s: int) -> subprocess.Popen[str]:
    """A process that holds the lease, and one below it that has the lock's file open for so long."""
    command = [sys.executable, "-c", HOLDS, str(work), str(longer_s)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_living_holder_is_named(tmp_path):
    """A lease that a living process holds is refused with its number."""
    process = holder(tmp_path / "work", 0)
    try:
        with pytest.raises(LeaseError, match=f"process {process.pid} "), lease(tmp_path / "work"):
            pass
    finally:
        process.kill()
        process.wait()


def test_processes_of_a_killed_holder_are_waited_for(tmp_path):
    """A holder that was killed may leave a process that dies later: the lease is given once that one is gone."""
    process = holder(tmp_path / "work", 2)
    process.kill()
    process.wait()
    assert held(tmp_path / "work")
    with lease(tmp_path / "work"):
        assert held(tmp_path / "work")
    assert not held(tmp_path / "work")
