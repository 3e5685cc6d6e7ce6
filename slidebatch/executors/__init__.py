"""Executors only do calls of task functions; they know nothing of images. All give one answer.

serial      one task after another in this process: the reference
local       worker processes of this machine under Dask, one task each at a time
cuda        a worker process per GPU of this machine, and others for what needs no GPU
slurm, pbs  a job of a batch scheduler per worker, under a Dask scheduler in this process
existing    a Dask cluster that is there, by address or scheduler file

A run's driver gives an executor a stage's calls and gets receipts as they come, in any order.
"""

from __future__ import annotations

from slidebatch.executors.existing import Existing
from slidebatch.executors.local import Local
from slidebatch.executors.protocol import Call, Executor
from slidebatch.executors.serial import Serial
from slidebatch.executors.spec import ClusterSpec

__all__ = ["Call", "ClusterSpec", "Executor", "Existing", "Local", "Serial", "start"]


def start(spec: ClusterSpec, workers: int, until: float | None = None) -> Executor:
    """The executor that the config asks for, with so many workers.

    until   seconds since the epoch at which waiting for calls ends, or None
    """
    if spec.kind == "serial":
        return Serial()
    if spec.kind == "existing":
        return Existing(spec, until)
    return Local(workers, spec.umask, until)
