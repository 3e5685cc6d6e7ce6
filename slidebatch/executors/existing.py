"""A Dask cluster that is there already: found by address or scheduler file, checked, and left as it was.

The workers are somebody else's, so nothing is taken for granted: each must run this very slidebatch, one task at a
time, and must read and write the results folder. A worker that comes later is checked the same way; one that does not
pass stops the run, before it can do harm.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from slidebatch.errors import ConfigError, EnvironmentFault, SlidebatchError
from slidebatch.executors.spec import ClusterSpec
from slidebatch.executors.window import CLOSE_S, RESUME, SETTINGS, Window, asking, quiet
from slidebatch.executors.workers import Guest, Told, leave_token, tell
from slidebatch.release import release

LOOK_S = 0.2
"""Between looks for a scheduler's file or a worker."""

CONNECT_S = 10.0
"""What a scheduler has for answering."""


class Existing(Window):
    """Borrows a cluster for a run."""

    def __init__(self, spec: ClusterSpec, until: float | None = None) -> None:
        self._spec, self._work, self._checked = spec, "", frozenset[str]()
        self._alone_since: float | None = None
        super().__init__(_client(spec), 0, until)
        self._wait_for_a_worker()

    @property
    def dashboard(self) -> str | None:
        """None: it is told where the cluster was started."""
        return None

    def warm(self, work: str) -> None:
        self._work = work
        self._check()
        with asking(self.client):
            self.client.register_plugin(Guest(self._spec.umask))
        super().warm(work)

    def look(self) -> None:
        """Count the workers, and check those that are new."""
        self._check()
        if self.workers:
            self._alone_since = None
            return
        now = time.monotonic()
        self._alone_since = self._alone_since or now
        if now - self._alone_since > self._spec.wait_s:
            raise EnvironmentFault(
                f"all workers of {_place(self._spec)} are gone since {self._spec.wait_s:g} s; start others; {RESUME}"
            )

    def close(self) -> None:
        if self.client.status == "running":
            # The cluster may be going, or a worker hang; nothing is lost with a plugin.
            with suppress(Exception):
                remove = self.client.scheduler.unregister_worker_plugin
                self.client.sync(remove, name=Guest.name, callback_timeout=CLOSE_S)
        super().close()

    def _wait_for_a_worker(self) -> None:
        end = time.monotonic() + self._spec.wait_s
        while not (there := self._there()):
            if time.monotonic() > end:
                self.client.close()
                raise ConfigError(
                    f"{_place(self._spec)} has no workers after {self._spec.wait_s:g} s; start some with `dask worker` "
                    "or give cluster.wait_s more time"
                )
            time.sleep(LOOK_S)
        self.workers = len(there)

    def _there(self) -> list[str]:
        """Addresses of the workers."""
        with asking(self.client):
            return list(self.client.nthreads())

    def _check(self) -> None:
        """Look at the workers that were not seen before."""
        there = self._there()
        self.workers = len(there)
        new = [address for address in there if address not in self._checked]
        if not new:
            return
        token = leave_token(Path(self._work))
        try:
            with asking(self.client):
                found = self.client.run(tell, self._work, token, workers=new, on_error="return")
        finally:
            (Path(self._work) / token).unlink(missing_ok=True)
        _refuse(found, Path(self._work).parent)
        self._checked |= frozenset(found)


def _client(spec: ClusterSpec) -> Any:
    import dask
    from distributed import Client

    quiet()
    dask.config.set(SETTINGS)
    where = {"address": spec.address} if spec.address else {"scheduler_file": _file(spec)}
    try:
        return Client(**where, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Dask scheduler answers at {_place(spec)} ({error}); start it with `dask scheduler`, or name another"
        ) from error


def _file(spec: ClusterSpec) -> str:
    """The scheduler's file, once it is there: jobs that start together do not start at once."""
    assert spec.scheduler_file is not None
    path, end = Path(spec.scheduler_file), time.monotonic() + spec.wait_s
    while not path.exists() or not path.stat().st_size:
        if time.monotonic() > end:
            raise ConfigError(
                f"cluster.scheduler_file {path} is not there after {spec.wait_s:g} s; start "
                f"`dask scheduler --scheduler-file {path}`, or give cluster.wait_s more time"
            )
        time.sleep(LOOK_S)
    return str(path)


def _place(spec: ClusterSpec) -> str:
    return f"the Dask cluster at {spec.address or spec.scheduler_file}"


def _refuse(found: Mapping[str, Told | Exception], results: Path) -> None:
    """ConfigError for the first worker that cannot take part, in the order of their addresses.

    A worker that died meanwhile is no fault.
    """
    for address, told in sorted(found.items()):
        fault = _fault(told, results)
        if fault is not None:
            raise ConfigError(f"worker {address} {fault}")


def _fault(told: Told | Exception, results: Path) -> str | None:
    if isinstance(told, OSError):  # its connection is lost
        return None
    if isinstance(told, SlidebatchError):
        return str(told)
    if isinstance(told, Exception):
        return (
            f"cannot run slidebatch {release()} ({type(told).__name__}: {told}); "
            "install this very version in its environment and start it again"
        )
    if told.release != release():
        return (
            f"on {told.host} has slidebatch {told.release} and the driver {release()}; install the same in both and "
            "start the workers again"
        )
    if told.threads != 1:
        return f"on {told.host} takes {told.threads} tasks at a time; start workers with `--nthreads 1`"
    if not told.sees:
        return f"on {told.host} does not see {results}; set output.path to a folder that all machines share"
    if told.writes is not None:
        return f"on {told.host} cannot write to {results} ({told.writes}); run workers as a user that can"
    return None
