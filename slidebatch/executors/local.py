"""Worker processes of this machine under Dask, one task each at a time."""

from __future__ import annotations

import logging
import time
from typing import Any

from slidebatch.errors import EnvironmentFault
from slidebatch.executors.window import RESUME, SETTINGS, Window, let_go, quiet
from slidebatch.executors.workers import ENVIRONMENT, Own, interrupts_ignored

BACK_S = 300.0
"""How long a worker that died has for coming back before another takes its place.

Dask's own 15 s are too short for the libraries' loading on a busy machine or a slow file system, and count from a
death on, whatever happens meanwhile: a worker that died twice would be given up while it comes back.
"""

GONE_S = 900.0
"""How long there may be no worker at all."""


class Here(Window):
    """Workers of this machine, each under a nanny that starts it again when it dies.

    cluster  of Dask, whose nannies these are
    """

    def __init__(self, cluster: Any, workers: int, until: float | None = None, network: bool = True) -> None:
        from distributed import Client

        self._cluster = cluster
        self._alone_since: float | None = None
        super().__init__(Client(cluster), workers, until, network)

    def look(self) -> None:
        """See to it that every worker comes back: Dask forgets those that it has given up."""
        if self.client.nthreads():
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > GONE_S:
            raise EnvironmentFault(
                f"all workers died, and none came back in {GONE_S:g} s; see whether this machine lacks memory; {RESUME}"
            )
        if len(self._cluster.workers) < self.workers:
            self._cluster.scale(self.workers)

    def close(self) -> None:
        super().close()
        let_go(self._cluster)


class Local(Here):
    """Starts the workers, and stops them at the end."""

    def __init__(
        self, workers: int, umask: str | None = None, until: float | None = None, network: bool = True
    ) -> None:
        from distributed import LocalCluster

        prepare(BACK_S)
        with interrupts_ignored():
            cluster = LocalCluster(n_workers=workers, **settings())
        super().__init__(cluster, workers, until, network)
        self.client.register_plugin(Own(umask))


def prepare(back_s: float) -> None:
    """Dask's settings in this process, for a scheduler in it and workers that it starts.

    back_s  how long a worker that was lost is waited for
    """
    import dask
    import distributed  # noqa: F401  (its loggers are there to be quiet)

    quiet()
    own = {"distributed.nanny.pre-spawn-environ": ENVIRONMENT, "distributed.deploy.lost-worker-timeout": f"{back_s}s"}
    dask.config.set({**SETTINGS, **own})


def settings() -> dict[str, Any]:
    """Keywords of a LocalCluster or one of its kind: a thread a worker, no memory limit of Dask's, all on localhost."""
    return {
        "threads_per_worker": 1,
        "processes": True,
        "memory_limit": 0,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.CRITICAL,
    }
