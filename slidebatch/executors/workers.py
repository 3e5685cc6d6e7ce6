"""What is done in every worker process, whoever started it: settings, and what existing workers must have.

Workers that a run starts get `ENVIRONMENT` before they are born and the plugin `Own`. Workers that were there before
are guests' hosts: they get the plugin `Guest`, which settles what still can be settled and leaves them as they were.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from slidebatch import allocator
from slidebatch.deadline import deadline
from slidebatch.errors import EnvironmentFault
from slidebatch.executors.protocol import Call
from slidebatch.release import release
from slidebatch.stages import Receipt, perform

ENVIRONMENT: dict[str, str] = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **allocator.ENVIRONMENT}
"""Of every worker: one thread for each library that would take more, and memory that is kept."""

SEEN_S = 10.0
"""How long a file may take to show on another machine: network file systems remember what was not there."""


class Own(WorkerPlugin):
    """For workers that the run started.

    They leave Ctrl-C to the driver, as a terminal sends it to every process of the run. They end without the
    interpreter's own clearing up: all they made is on disk.
    """

    name = "slidebatch-own"

    def __init__(self, umask: str | None = None) -> None:
        self.umask = umask

    def setup(self, worker: object) -> None:
        """Also for workers that take the place of dead ones."""
        ignore_interrupts()
        settle(self.umask)

    def teardown(self, worker: object) -> None:
        """Called as a worker closes, after its last task."""
        os._exit(0)


class Guest(WorkerPlugin):
    """For workers of an existing cluster: settings of this run, taken back at its end as far as they can be."""

    name = "slidebatch-guest"

    def __init__(self, umask: str | None = None) -> None:
        self.umask = umask
        self._before: int | None = None

    def setup(self, worker: object) -> None:
        """Also for workers that come later."""
        self._before = settle(self.umask)

    def teardown(self, worker: object) -> None:
        if self._before is not None:
            os.umask(self._before)


def settle(umask: str | None) -> int | None:
    """Settings that a running process can still take; the umask before, if one was set."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.environ.update(ENVIRONMENT)  # for libraries that are not loaded yet
        allocator.keep_memory()
    return None if umask is None else os.umask(int(umask, 8))


def ignore_interrupts() -> object:
    """Ignore SIGINT where that can be set, in the main thread; the handler there was."""
    main = threading.current_thread() is threading.main_thread()
    return signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Processes started in here are born ignoring SIGINT."""
    before = ignore_interrupts()
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)  # type: ignore[arg-type]


TOGETHER_S = 0.1
"""How long a worker goes on with calls that came together; what is left of them then is sent anew."""


@dataclass(frozen=True)
class Done:
    """What a worker did of calls that came together: receipts of the first of them, and the seconds that took."""

    receipts: tuple[Receipt, ...]
    seconds: float


def do(calls: tuple[Call, ...]) -> Done:
    """Do calls that came together, one after another: the first one, and as many more as begin within `TOGETHER_S`.

    Where this worker's own time is too short for a call it does no more and leaves. EnvironmentFault where it has
    another slidebatch than the driver.
    """
    _refuse_other(calls[0].release)
    began = time.perf_counter()
    receipts: list[Receipt] = []
    for call in calls:
        if receipts and time.perf_counter() - began > TOGETHER_S:
            break
        if _must_leave(call):
            _leave()
            break
        receipts.append(perform(*call.arguments))
    return Done(tuple(receipts), time.perf_counter() - began)


def _refuse_other(drivers: str) -> None:
    if drivers != release():
        raise EnvironmentFault(
            f"the worker on {socket.gethostname()} has slidebatch {release()} and the driver {drivers}; install "
            "the same in both, start the workers again, and give the same command again"
        )


def _must_leave(call: Call) -> bool:
    """Whether this worker's own time is too short for a call that another could still do."""
    mine = deadline(None)
    mine.saw(call.stage, call.longest_s)
    in_time = call.start_by is None or time.time() <= call.start_by
    return in_time and mine.passed(call.stage)


def _leave() -> None:
    """Close this worker, between two tasks; its nanny goes with it."""
    worker = get_worker()
    worker.loop.add_callback(worker.close_gracefully)


@dataclass(frozen=True)
class Told:
    """What a worker says of itself.

    sees      whether it reads what the driver wrote into the results folder
    writes    why it cannot write there, or None
    """

    host: str
    release: str
    threads: int
    sees: bool
    writes: str | None


def leave_token(work: Path) -> str:
    """Write a file that a worker on another machine must see; its name."""
    token = f"seen-{uuid.uuid4().hex}"
    (work / token).write_text(token)
    return token


def tell(work: str, token: str, dask_worker: Any = None) -> Told:
    """What this worker says of itself. Dask fills in `dask_worker`."""
    folder = Path(work)
    sees = _appears(folder / token)
    return Told(socket.gethostname(), release(), dask_worker.state.nthreads, sees, _unwritable(folder) if sees else "")


def _appears(path: Path) -> bool:
    end = time.monotonic() + SEEN_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _unwritable(folder: Path) -> str | None:
    mine = folder / f"seen-by-{uuid.uuid4().hex}"
    try:
        mine.write_text("")
        mine.unlink()
    except OSError as error:
        return str(error.strerror or error)
    return None
