"""Workers of this machine that die: each comes back, however long that takes, or the run stops and says so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest

from slidebatch.errors import EnvironmentFault
from slidebatch.executors import Local, local

pytestmark = pytest.mark.long

PATIENCE_S = 300
DASKS_OWN_S = 15
"""What Dask gives a worker for coming back where nobody says otherwise."""


@contextmanager
def one_worker(folder: Path, beginning: str) -> Iterator[Local]:
    """A worker whose successors do something before they begin: a statement, once the file `died` is there."""
    script = f"import os, time\nif os.path.exists({str(folder / 'died')!r}): {beginning}\n"
    with dask.config.set({"distributed.worker.preload": [script]}):
        executor = Local(workers=1)
        try:
            yield executor
        finally:
            executor.close()


def kill(executor: Local, folder: Path) -> int:
    """SIGKILL the worker; its process."""
    (folder / "died").touch()
    [process] = executor.client.run(os.getpid).values()
    os.kill(process, signal.SIGKILL)
    return process


def successor(executor: Local, process: int) -> int:
    """The process of the worker that comes after one that died, while the run looks after its workers as it does."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        executor.look()
        found = executor.client.run(os.getpid, on_error="ignore")
        for other in found.values():
            if other != process:
                return other
        time.sleep(0.1)
    raise AssertionError("no worker came back")


def test_a_worker_that_takes_long_to_come_back_is_waited_for(tmp_path: Path) -> None:
    """A successor whose libraries take longer to load than Dask waits for is there in the end, and stays."""
    with one_worker(tmp_path, f"time.sleep({DASKS_OWN_S + 5})") as executor:
        process = kill(executor, tmp_path)
        found = successor(executor, process)
        time.sleep(5)  # one that was given up meanwhile is ended as soon as it is there
        assert successor(executor, process) == found


def test_a_worker_that_dies_again_comes_back_again(tmp_path: Path) -> None:
    """A successor killed at once, and again, within the time that Dask counts from the first death: still one comes."""
    with one_worker(tmp_path, "time.sleep(4)") as executor:
        process = kill(executor, tmp_path)
        end = time.monotonic() + 2 * DASKS_OWN_S
        while time.monotonic() < end:
            assert successor(executor, process) != process
            process = kill(executor, tmp_path)
        assert successor(executor, process)


def test_a_worker_that_was_given_up_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a worker is not back in the time it has, another is started in its place."""
    monkeypatch.setattr(local, "BACK_S", 1.0)
    with one_worker(tmp_path, "time.sleep(4)") as executor:
        assert successor(executor, kill(executor, tmp_path))


def test_without_workers_a_run_stops_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no worker can begin any more, waiting ends with a sentence that says so, and how to go on."""
    monkeypatch.setattr(local, "GONE_S", 3.0)
    with one_worker(tmp_path, "raise RuntimeError('no')") as executor:
        process = kill(executor, tmp_path)
        with pytest.raises(EnvironmentFault, match=r"all workers died.*resumable: give the same command again"):
            successor(executor, process)
