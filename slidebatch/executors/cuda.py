"""One worker process per GPU of this machine, by dask-cuda's LocalCUDACluster: each sees its own GPU and near cores.

Its GPU comes first in a worker's CUDA_VISIBLE_DEVICES, so "cuda" is that one. Its process is bound to the cores that
NVML names as the GPU's neighbours; as many of these as there are, or eight, read patches (`overlaps`).
Source: dask-cuda 26.10, `LocalCUDACluster`, `CPUAffinity`. Not measured: no GPU was at hand (docs/gpu-queue.md).
"""

from __future__ import annotations

from importlib.util import find_spec

from slidebatch.errors import ConfigError
from slidebatch.executors.local import BACK_S, Here, prepare, settings
from slidebatch.executors.wanted import Wanted
from slidebatch.executors.workers import Own, interrupts_ignored


def refuse_without(missing_gpu: str | None) -> None:
    """ConfigError where the GPU, its driver or the extra is missing; it says which."""
    if missing_gpu is not None:
        raise ConfigError(f"cluster.kind is cuda, but {missing_gpu}; take kind local to run on the CPU")
    if find_spec("dask_cuda") is None:
        raise ConfigError(
            "cluster.kind is cuda, but dask-cuda is not installed; install slidebatch[cuda], or take kind local, which "
            "runs networks on the first GPU"
        )


class Cuda(Here):
    """Starts a worker per GPU, and stops them at the end."""

    def __init__(self, wanted: Wanted) -> None:
        from dask_cuda import LocalCUDACluster

        prepare(BACK_S)
        with interrupts_ignored():
            try:
                # Nothing is spilled from a GPU: what a task holds there is gone when it ends.
                cluster = LocalCUDACluster(n_workers=wanted.workers, device_memory_limit=0, **settings())
            except Exception as error:  # NVML's, CUDA's or Dask's own
                raise ConfigError(
                    f"cluster.kind is cuda, but dask-cuda starts no worker ({type(error).__name__}: {error}); see "
                    "`slidebatch doctor`, or take kind local, which runs networks on the first GPU"
                ) from error
        super().__init__(cluster, wanted.workers, wanted.until)
        self.client.register_plugin(Own(wanted.spec.umask))
