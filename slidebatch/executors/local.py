"""Worker processes of this machine under Dask, one task each at a time."""

from __future__ import annotations

import logging
from typing import Any

from slidebatch.executors.window import SETTINGS, Window, quiet
from slidebatch.executors.workers import ENVIRONMENT, Own, interrupts_ignored


class Local(Window):
    """Starts the workers, and stops them at the end."""

    def __init__(
        self, workers: int, umask: str | None = None, until: float | None = None, network: bool = True
    ) -> None:
        from distributed import Client, LocalCluster

        prepare()
        with interrupts_ignored():
            self._cluster = LocalCluster(n_workers=workers, **settings())
        super().__init__(Client(self._cluster), workers, until, network)
        self.client.register_plugin(Own(umask))

    def close(self) -> None:
        super().close()
        self._cluster.close()


def prepare() -> None:
    """Dask's settings in this process, for a scheduler in it and workers that it starts."""
    import dask
    import distributed  # noqa: F401  (its loggers are there to be quiet)

    quiet()
    dask.config.set({**SETTINGS, "distributed.nanny.pre-spawn-environ": ENVIRONMENT})


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
