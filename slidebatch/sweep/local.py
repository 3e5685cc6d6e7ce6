"""The scheduler `local`: the jobs of a sweep as processes of this machine, some at a time.

Each job is the very command that a cluster would run. A job holds the end of a pipe from here; when this process
dies, however it dies, the pipe closes and the job stops, resumable. So the same command again finds no one else at
work, and if it does (a job that is slow to stop), it waits for that one's points.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from slidebatch.lease import lease
from slidebatch.sweep.arrays import array_of
from slidebatch.sweep.folder import Sweep
from slidebatch.sweep.status import Counts, counts

LOOK_S = 0.05
"""Between looks at the running jobs."""

PATIENCE_S = 10.0
"""What a job has to stop in before it is killed."""

OVER = (0, 3)
"""Exit statuses of a job whose points are all done or failed for good."""

Tell = Callable[[Counts], None]


@dataclass
class _Jobs:
    """Jobs waiting and running: how often each was begun, and processes by job."""

    waiting: deque[int]
    begun: dict[int, int] = field(default_factory=dict)
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)


def run_local(sweep: Sweep, workers: int = 1, tell: Tell = lambda found: None) -> Counts:
    """Run all missing jobs, `workers` at a time; how the sweep stands then.

    A job whose process died is begun again, as often as the sweep lets a point die and once more, which sees that the
    point has failed. LeaseError: another command runs this sweep here.
    """
    with lease(sweep.folder / "work"):
        jobs = _Jobs(deque(array_of(sweep).missing))
        try:
            while jobs.waiting or jobs.running:
                while jobs.waiting and len(jobs.running) < workers:
                    _start(sweep, jobs, jobs.waiting.popleft())
                if _collected(sweep, jobs):
                    tell(counts(sweep))
                else:
                    time.sleep(LOOK_S)
        finally:
            _stop(jobs)
    return counts(sweep)


def command(folder: Path, index: int) -> list[str]:
    """The command of a job that stops when its standard input closes."""
    return [sys.executable, "-m", "slidebatch", "sweep-task", str(folder), str(index), "--attended"]


def _start(sweep: Sweep, jobs: _Jobs, index: int) -> None:
    log = sweep.folder / "logs" / f"{index:05d}.log"
    log.parent.mkdir(exist_ok=True)
    # The package must be found from there too, where it is run from a checkout's folder.
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("ab") as file:
        jobs.running[index] = subprocess.Popen(
            command(sweep.folder, index),
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=sweep.started,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is this process's, which then stops its jobs
        )
    jobs.begun[index] = jobs.begun.get(index, 0) + 1


def _collected(sweep: Sweep, jobs: _Jobs) -> bool:
    """Take away the jobs that have ended; those that did not finish wait again, last. Whether any ended."""
    ended = [index for index, process in jobs.running.items() if process.poll() is not None]
    for index in ended:
        process = jobs.running.pop(index)
        assert process.stdin is not None
        process.stdin.close()
        if process.returncode not in OVER and jobs.begun[index] <= sweep.spec.deaths:
            jobs.waiting.append(index)
    return bool(ended)


def _stop(jobs: _Jobs) -> None:
    """Ask running jobs to stop, and kill those that do not."""
    for process in jobs.running.values():
        process.terminate()
    end = time.monotonic() + PATIENCE_S
    for process in jobs.running.values():
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def attend() -> None:
    """End this process as by SIGTERM once its standard input closes: whoever started it is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
