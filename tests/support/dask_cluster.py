"""A real Dask cluster for tests: `dask scheduler` and `dask worker` processes that meet through a scheduler file."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT

PATIENCE_S = 600
LOCAL = ("--host", "127.0.0.1", "--no-dashboard")


@dataclass
class DaskCluster:
    """Processes of a cluster; `folder` holds the scheduler's file and every process's log."""

    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    def add_blind_worker(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start a worker for which a folder is an empty one of its own, as on a machine that does not share it."""
        hide = f'mount -t tmpfs none {shlex.quote(str(folder))} && exec "$@"'
        return self.add_worker(wrapper=("unshare", "--mount", "sh", "-c", hide, "sh"))

    def add_worker(
        self,
        *options: str,
        python_path: Path = ROOT,
        more: dict[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start one worker process, without a nanny, so that its process is the worker."""
        arguments = ["worker", "--scheduler-file", str(self.file), "--no-nanny", "--memory-limit", "0", *LOCAL]
        threads = () if "--nthreads" in options else ("--nthreads", "1")
        name = f"worker{len(self.workers)}"
        process = dask(self.folder, name, [*arguments, *threads, *options], python_path, more, wrapper)
        self.workers.append(process)
        return process

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()


def dask(
    folder: Path,
    name: str,
    arguments: Sequence[str],
    python_path: Path = ROOT,
    more: dict[str, str] | None = None,
    wrapper: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start `dask ...` in a folder, as on a machine with nothing in its environment but the package."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*wrapper, sys.executable, "-m", "dask", *arguments],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(python_path), **(more or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[DaskCluster]:
    """A cluster of so many workers, one thread each, that ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    scheduler = dask(folder, "scheduler", ["scheduler", "--scheduler-file", str(file), "--port", "0", *LOCAL])
    cluster = DaskCluster(folder, scheduler)
    try:
        end = time.monotonic() + PATIENCE_S
        while not file.exists():
            assert scheduler.poll() is None, (folder / "scheduler.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        cluster.stop()
