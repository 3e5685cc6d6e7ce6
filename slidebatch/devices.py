"""On what networks will run, and where: told by the config's `model.device` and `cluster` together."""

from __future__ import annotations

from slidebatch import models
from slidebatch.errors import ConfigError
from slidebatch.executors.cuda import refuse_without
from slidebatch.executors.spec import JOBS, ClusterSpec


def place(device: str, cluster: ClusterSpec) -> tuple[str, str | None]:
    """What `model.device` means on a cluster ("cpu" or "cuda"), and a note on what `auto` took, if it was given.

    Never a CPU in silence: ConfigError or ModelError where a GPU is asked for and cannot be had.
    """
    if cluster.kind == "cuda":
        return _on_gpus_here(device, cluster)
    if cluster.kind in JOBS:
        return _in_jobs(device, cluster)
    if cluster.kind == "existing" and device == "cuda":
        return "cuda", None  # the workers' GPUs; each answers for its own when it loads the network
    taken = models.pick_device(device)
    return taken, _note(taken, device)


def _note(taken: str, device: str) -> str | None:
    if device != "auto":
        return None
    if taken == "cpu":
        return f"networks run on the CPU (model.device: auto): {models.why_no_gpu()}"
    return f"networks run on the GPU (model.device: auto): {models.gpus()[0].name}"


def _on_gpus_here(device: str, cluster: ClusterSpec) -> tuple[str, str | None]:
    if device == "cpu":
        raise ConfigError("cluster.kind is cuda and model.device is cpu; leave one of them out")
    refuse_without(models.why_no_gpu())
    there = len(models.gpus())
    if cluster.workers != "auto" and cluster.workers > there:
        raise ConfigError(
            f"cluster.kind is cuda with {cluster.workers} cluster.workers, a GPU for each, but this process may use "
            f"{there}; set cluster.workers to {there} or auto"
        )
    taken = models.pick_device("cuda")
    return taken, _note(taken, device)


def _in_jobs(device: str, cluster: ClusterSpec) -> tuple[str, str | None]:
    if cluster.job.gpus and device == "cpu":
        raise ConfigError("cluster.job.gpus asks for a GPU and model.device is cpu; leave one of them out")
    if not cluster.job.gpus and device == "cuda":
        raise ConfigError("model.device is cuda and the jobs have no GPU; set cluster.job.gpus to 1")
    taken = "cuda" if cluster.job.gpus else "cpu"
    told = f"networks run on the {'GPU' if cluster.job.gpus else 'CPU'} of each job (model.device: auto)"
    return taken, told if device == "auto" else None
