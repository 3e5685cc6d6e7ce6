"""Executors only run tasks; they know nothing of images. All give one answer.

serial   one task after another in this process: the reference
local    worker processes of this machine under Dask, one task each at a time

A run's driver asks an executor for a stage's tasks by number and gets receipts as they come, in any order.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import psutil
from distributed.diagnostics.plugin import WorkerPlugin
from pydantic import Field, PositiveInt

from slidebatch.allocator import ENVIRONMENT, keep_memory
from slidebatch.errors import EnvironmentFault
from slidebatch.spec import Spec
from slidebatch.stages import Receipt, perform, warm

WINDOW = 3
"""Tasks per worker that are under way at once; more would only wait at the workers."""


class ExecutorSpec(Spec):
    """Where tasks run."""

    kind: Literal["local", "serial"] = Field(
        default="local", description="local: worker processes; serial: this process."
    )
    workers: PositiveInt | Literal["auto"] = Field(
        default="auto", description="Worker processes; auto: by cores and memory."
    )
    attempts: PositiveInt = Field(
        default=3, description="How often a task may fail or kill its worker before its slide fails."
    )

    def count(self, threads: int) -> int:
        """How many workers of `threads` network threads each this machine has cores for."""
        if self.kind == "serial":
            return 1
        if self.workers != "auto":
            return self.workers
        return max(1, usable_cores() // threads)


SETTINGS: dict[str, object] = {
    # A dead worker must not fail tasks: attempt files decide who is to blame, not Dask.
    "distributed.scheduler.allowed-failures": 1_000_000,
    # Sampling every thread's stack a hundred times a second takes processor time from the network.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.tick.interval": "1s",
    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, **ENVIRONMENT},
}


class IgnoreInterrupts(WorkerPlugin):
    """Workers leave Ctrl-C to the driver: a terminal sends it to every process of the run."""

    def setup(self, worker: object) -> None:
        """Also for workers that take the place of dead ones."""
        _ignore()


class LeaveAtOnce(WorkerPlugin):
    """Workers that are let go end without the interpreter's own clearing up: all they made is on disk."""

    def teardown(self, worker: object) -> None:
        """Called as a worker closes, after its last task."""
        os._exit(0)


def _ignore() -> object:
    """Ignore SIGINT where that can be set, in the main thread; the handler there was."""
    main = threading.current_thread() is threading.main_thread()
    return signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started in here are born ignoring SIGINT."""
    before = _ignore()
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)  # type: ignore[arg-type]


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_bytes() -> int:
    """Memory that new processes may take: what the machine has free, or less where a control group allows less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free
    return min(free, limit - used)


class Executor(Protocol):
    """Runs the tasks of a stage."""

    def warm(self, work: str) -> None:
        """Have the workers load the run's network; before this a run has not begun."""

    @property
    def dashboard(self) -> str | None:
        """Address of a live dashboard on this machine, or None."""

    def run(self, work: str, stage: str, tasks: Sequence[int], session: str) -> Iterator[Receipt]:
        """Receipts of the given tasks, in any order. EnvironmentFault stops it."""

    def close(self) -> None:
        """Let the workers go."""


class Serial:
    """One task after another in this process."""

    dashboard: str | None = None

    def __init__(self) -> None:
        keep_memory()

    def warm(self, work: str) -> None:
        warm(work)

    def run(self, work: str, stage: str, tasks: Sequence[int], session: str) -> Iterator[Receipt]:
        for task in tasks:
            yield perform(work, stage, task, session)

    def close(self) -> None:
        """Nothing to let go."""


class Local:
    """Worker processes on this machine under Dask. Tasks are sent a few at a time and kept by nobody."""

    def __init__(self, workers: int) -> None:
        import dask
        from distributed import Client, LocalCluster

        dask.config.set(SETTINGS)
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self.workers = workers
        with _interrupts_ignored():
            self._cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
        self._client = Client(self._cluster)
        self._client.register_plugin(IgnoreInterrupts())
        self._client.register_plugin(LeaveAtOnce())

    @property
    def dashboard(self) -> str | None:
        return self._client.dashboard_link

    def warm(self, work: str) -> None:
        self._client.run(warm, work)

    def run(self, work: str, stage: str, tasks: Sequence[int], session: str) -> Iterator[Receipt]:
        from distributed import as_completed

        waiting = iter(tasks)

        def send(count: int) -> list[object]:
            return [
                self._client.submit(perform, work, stage, task, session, key=f"{stage}-{task}-{session}", pure=False)
                for task in islice(waiting, count)
            ]

        running = as_completed(send(WINDOW * self.workers))
        try:
            for future in running:
                yield self._receipt(future)
                for new in send(1):
                    running.add(new)
        finally:
            self._client.cancel(list(running.futures), force=True)

    def _receipt(self, future: object) -> Receipt:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        try:
            return future.result()  # type: ignore[attr-defined]
        except (KilledWorker, FutureCancelledError) as error:
            raise EnvironmentFault(
                f"the workers were lost ({type(error).__name__}); give the same command again to resume"
            ) from error

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


def start(spec: ExecutorSpec, workers: int) -> Executor:
    """The executor that the config asks for, with so many workers."""
    return Serial() if spec.kind == "serial" else Local(workers)
