"""Executors only do calls of task functions; they know nothing of images. All give one answer.

serial      one task after another in this process: the reference
local       worker processes of this machine under Dask, one task each at a time; with networks on a GPU one for them,
            and others for what needs no GPU
cuda        a worker process per GPU of this machine, and others for what needs no GPU
slurm, pbs  a job of a batch scheduler per worker, under a Dask scheduler in this process
existing    a Dask cluster that is there, by address or scheduler file

A run's driver gives an executor a stage's calls and gets receipts as they come, in any order.
"""

from __future__ import annotations

from slidebatch.executors.cuda import Cuda
from slidebatch.executors.existing import Existing
from slidebatch.executors.jobs import Jobs
from slidebatch.executors.local import Local
from slidebatch.executors.protocol import Call, Executor
from slidebatch.executors.serial import Serial
from slidebatch.executors.spec import JOBS, ClusterSpec
from slidebatch.executors.split import Split
from slidebatch.executors.wanted import Wanted

__all__ = ["Call", "ClusterSpec", "Executor", "Existing", "Local", "Serial", "Wanted", "start"]


def start(wanted: Wanted) -> Executor:
    """The executor that a run asks for. ConfigError where it cannot be had; it says what is missing."""
    main = _main(wanted)
    if not wanted.cpu_workers:
        return main
    try:
        return Split(main, _without_gpu(wanted))
    except BaseException:
        main.close()
        raise


def _main(wanted: Wanted) -> Executor:
    """The workers that run networks, and all else where there are no others."""
    spec = wanted.spec
    if spec.kind == "serial":
        return Serial()
    if spec.kind == "existing":
        return Existing(spec, wanted.until)
    if spec.kind == "local":
        return Local(wanted.workers, spec.umask, wanted.until)
    return Jobs(wanted, wanted.workers, wanted.gpu) if spec.kind in JOBS else Cuda(wanted)


def _without_gpu(wanted: Wanted) -> Executor:
    """Workers besides, which load no network."""
    if wanted.spec.kind in JOBS:
        return Jobs(wanted, wanted.cpu_workers, gpu=False, network=False)
    return Local(wanted.cpu_workers, wanted.spec.umask, wanted.until, network=False)
