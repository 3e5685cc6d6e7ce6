"""Where `chaos.py` runs: a small disk of its own, the command of a user, a Dask cluster; what is in flight there.

Everything runs in mount and process namespaces of its own, so that nothing of it outlives the program.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from chaos_worker import LOG, SCHEDULE
from images import ROOT

PATIENCE_S = 1800
LOOK_S = 0.001
INSIDE = "SLIDEBATCH_CHAOS_INSIDE"
LOCAL = ("--host", "127.0.0.1", "--no-dashboard")

Process = subprocess.Popen[bytes]


def go_inside() -> None:
    """Start this program again in namespaces of its own, where it may mount. SystemExit where that cannot be."""
    if INSIDE in os.environ:
        return
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [] if os.geteuid() == 0 else ["--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        raise SystemExit("a disk that fills up needs a mount of its own, and this system allows none; run this as root")
    os.environ[INSIDE] = "1"
    os.execvp(command[0], [*command, sys.executable, *sys.argv])


@dataclass(frozen=True)
class Place:
    """Folders and files of the program, all below `folder`; results are on a disk of `size_bytes`."""

    folder: Path
    size_bytes: int

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def results(self) -> Path:
        return self.disk / "results"

    @property
    def work(self) -> Path:
        return self.results / "work"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def schedule(self) -> Path:
        return self.folder / "schedule"

    @property
    def scheduler_file(self) -> Path:
        return self.folder / "dask" / "scheduler.json"

    @property
    def filler(self) -> Path:
        return self.disk / "filler"

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """The small disk is there: memory that the kernel makes a file system of."""
        self.disk.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.size_bytes}", "chaos", str(self.disk)]
        subprocess.run(mount, check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=True)

    def clear(self) -> None:
        """As before a run."""
        for path in (self.results, self.schedule):
            shutil.rmtree(path, ignore_errors=True)
        self.schedule.mkdir()
        self.log.write_bytes(b"")

    def fill(self, spare_bytes: int) -> None:
        """Leave at most so many bytes of the disk free."""
        with open(self.filler, "ab") as file:
            there = os.statvfs(self.disk)
            more = there.f_bavail * there.f_frsize - spare_bytes
            with suppress(OSError):  # the run has just taken some of it itself
                os.posix_fallocate(file.fileno(), file.tell(), max(more, 1))

    def free(self) -> None:
        """Make room again."""
        self.filler.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """Of runs and of workers."""
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(Path(__file__).with_name("chaos_worker.py"))]),
            LOG: str(self.log),
            SCHEDULE: str(self.schedule),
        }

    def start(self, name: str, arguments: list[str]) -> Process:
        """Start a module of Python in a process group of its own; what it says goes to a file."""
        (self.folder / "dask").mkdir(exist_ok=True)
        with open(self.folder / f"{name}.log", "wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.folder / "dask",
                env=self.environment(),
                start_new_session=True,
                stdout=said,
                stderr=subprocess.STDOUT,
            )


@dataclass(frozen=True)
class InFlight:
    """A task that is being worked on, as its attempt file tells: by which process, on which slide, after how many
    deaths over it."""

    stage: str
    task: int
    process: int
    slide: str | None
    deaths: int


def in_flight(work: Path, stage: str, old: frozenset[str]) -> list[InFlight]:
    """The tasks of a stage that are being worked on; not those that sessions `old` or dead workers left behind."""
    found = []
    for path in (work / "attempts").glob(f"{stage}-*.json"):
        number = path.stem.removeprefix(f"{stage}-")
        try:
            told, stamp = json.loads(path.read_bytes()), path.stat().st_mtime_ns
            over = _stamp(work / "receipts" / stage / f"{number}.json") > stamp
        except (FileNotFoundError, ValueError):
            continue
        if told["session"] not in old and not over and alive(told["process"]):
            deaths = told["deaths"].get(told["slide"], 0)
            found.append(InFlight(stage, int(number), told["process"], told["slide"], deaths))
    return found


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@dataclass
class Log:
    """What workers told so far, read on as it grows."""

    path: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    read_bytes: int = 0

    def __call__(self) -> list[dict[str, Any]]:
        """All lines that there are."""
        with open(self.path, "rb") as file:
            file.seek(self.read_bytes)
            for line in file:
                if line.endswith(b"\n"):  # or else its writer was killed in the middle, or is not done yet
                    self.lines.append(json.loads(line))
                    self.read_bytes += len(line)
        return self.lines

    def tell(self, **what: Any) -> None:
        """A line of our own among theirs."""
        with open(self.path, "a") as log:
            log.write(json.dumps({**what, "ns": time.time_ns()}) + "\n")


def alive(process: int) -> bool:
    """Whether a process is there, and more than a name that nobody asked after."""
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gone(processes: Sequence[int]) -> bool:
    """Whether all have ended before PATIENCE_S are over."""
    end = time.monotonic() + PATIENCE_S
    while any(map(alive, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_S)
    return True


def signalled(process: int, number: signal.Signals) -> bool:
    """Send a signal; False where the process is gone."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Cluster:
    """A Dask scheduler and its workers, as somebody else would have started them."""

    place: Place
    scheduler: Process
    workers: list[Process] = field(default_factory=list)
    left: list[Process] = field(default_factory=list)

    @classmethod
    def begin(cls, place: Place, workers: int, left: Sequence[Process] = ()) -> Cluster:
        """Start one; returns when its scheduler's file is there. `left`: workers of one before, to be ended with it."""
        file = place.scheduler_file
        file.unlink(missing_ok=True)
        arguments = ["dask", "scheduler", "--scheduler-file", str(file), "--port", "0", *LOCAL]
        cluster = cls(place, place.start("scheduler", arguments), left=list(left))
        end = time.monotonic() + PATIENCE_S
        while not file.exists():
            if time.monotonic() > end or cluster.scheduler.poll() is not None:
                raise SystemExit(f"no scheduler: {(place.folder / 'scheduler.log').read_text()[-500:]}")
            time.sleep(0.05)
        for _ in range(workers):
            cluster.add_worker()
        return cluster

    def add_worker(self) -> None:
        options = ["--no-nanny", "--nthreads", "1", "--memory-limit", "0", *LOCAL]
        name = f"worker{len(self.workers)}"
        self.workers.append(
            self.place.start(name, ["dask", "worker", "--scheduler-file", str(self.place.scheduler_file), *options])
        )

    def replace(self, process: int) -> None:
        """Start a worker in place of one that was killed."""
        for worker in self.workers:
            if worker.pid == process:
                worker.wait(PATIENCE_S)
                self.add_worker()

    def stop(self) -> None:
        for process in (*self.left, *self.workers, self.scheduler):
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE_S)


def write_settings(path: Path, settings: Mapping[str, Any]) -> Path:
    """A config as a file: JSON is YAML."""
    path.write_text(json.dumps(settings))
    return path
