"""A job of SLURM or PBS per worker, by dask-jobqueue; Dask's scheduler is in this process.

The driver must be reachable from the jobs' nodes for as long as the run takes. Where it is not, or may not run so long
on a login node, give the driver a job of its own (`jobs/`).
"""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from slidebatch.deadline import VARIABLE
from slidebatch.errors import ConfigError, EnvironmentFault
from slidebatch.executors.certificates import certificates
from slidebatch.executors.local import prepare
from slidebatch.executors.spec import ClusterSpec
from slidebatch.executors.wanted import Wanted
from slidebatch.executors.window import RESUME, SETTINGS, Window, let_go
from slidebatch.executors.workers import ENVIRONMENT, Own
from slidebatch.store import remove

COMMANDS = {"slurm": ("sbatch", "squeue", "scancel"), "pbs": ("qsub", "qstat", "qdel")}
LISTED = {"slurm": ("squeue", "--noheader", "--jobs={}"), "pbs": ("qstat", "{}")}
"""Commands that list jobs which wait or run, the ids filled in."""

NO_PAGE = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
"""Of a worker: no dashboard, and what it still tells of its state over HTTP it tells its own machine alone."""

REPLACE_S = 30.0
"""Between looks for jobs that have ended, whose place is then taken by new ones."""

LOST_S = 15.0
"""How long a job has for bringing a worker back that it lost, before it is cancelled."""

GONE_S = 60.0
"""How long there may be neither a worker nor a job that could bring one."""

STAGGER_S = 0.25
"""Seconds per worker over which workers begin, so that a shared file system does not serve them all at once."""

MOST_STAGGER_S = 60


class Jobs(Window):
    """Submits a job per worker, replaces those that end, and cancels them at the end."""

    def __init__(self, wanted: Wanted, workers: int, gpu: bool, network: bool = True) -> None:
        self.spec, self.gpu = wanted.spec, gpu
        self._tls = wanted.work / f"tls-{'gpu' if gpu else 'cpu'}"
        self._logs = wanted.work / "logs"
        refuse_jobs(self.spec.kind, str(wanted.work))
        self._cluster = self._submitted(workers)
        super().__init__(self._cluster.get_client(), workers, wanted.until, network)
        self.client.register_plugin(Own(self.spec.umask))
        self._replaced = self._seen = time.monotonic()

    def warm(self, work: str) -> None:
        """Wait for the first worker; a job may wait in its queue for as long as it takes."""
        while not self.client.nthreads():
            self._refuse_gone()
            self._refuse_late()
            time.sleep(1.0)
        super().warm(work)

    def look(self) -> None:
        """Submit jobs in place of those that have ended."""
        if self.client.nthreads():
            self._seen = time.monotonic()
        else:
            self._refuse_gone()
        if time.monotonic() - self._replaced > REPLACE_S:
            self._replaced = time.monotonic()
            # As many as there were: that submits what is missing.
            self._cluster.scale(len(self._cluster.worker_spec) or 1)

    def close(self) -> None:
        super().close()
        let_go(self._cluster)
        remove(self._tls)

    def _submitted(self, workers: int) -> Any:
        """The cluster with its jobs submitted. ConfigError with the scheduler's own words where it takes none."""
        import dask_jobqueue

        prepare(LOST_S)
        kind = {"slurm": dask_jobqueue.SLURMCluster, "pbs": dask_jobqueue.PBSCluster}[self.spec.kind]
        made = kind(
            security=certificates(self._tls),
            log_directory=str(self._logs),
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
            **job_settings(self.spec, workers, self.gpu),
        )
        try:
            # As `scale` does, but waiting: in its background what the scheduler says would be lost.
            for _ in range(1 if self.spec.adaptive else workers):
                made.worker_spec.update(made.new_worker_spec())
            made.sync(made._correct_state)
        except Exception as error:
            with suppress(AssertionError):  # it insists that a job which was refused had begun
                made.close()
            remove(self._tls)
            raise ConfigError(f"{COMMANDS[self.spec.kind][0]} took no job: {_last_words(str(error))}") from error
        if self.spec.adaptive:
            made.adapt(minimum=1, maximum=workers)
        return made

    def _refuse_gone(self) -> None:
        """EnvironmentFault where there is no worker and no job that may yet bring one."""
        now = time.monotonic()
        if now - self._seen < GONE_S:
            return
        self._seen = now
        ids = [str(job.job_id) for job in self._cluster.workers.values() if getattr(job, "job_id", None)]
        if not listed(self.spec.kind, ids):
            raise EnvironmentFault(
                f"no job is left that could bring a worker ({len(ids)} have ended); their words are in {self._logs}; "
                f"{RESUME}"
            )


def refuse_jobs(kind: str, work: str) -> None:
    """ConfigError where the extra or the scheduler's commands are missing, or a path cannot stand in a job script."""
    if find_spec("dask_jobqueue") is None:
        raise ConfigError(f"cluster.kind is {kind}, but dask-jobqueue is not installed; install slidebatch[hpc]")
    absent = [name for name in COMMANDS[kind] if shutil.which(name) is None]
    if absent:
        raise ConfigError(
            f"cluster.kind is {kind}, but this machine has no {', '.join(absent)}; run on a node that submits jobs"
        )
    if shlex.quote(work) != work or "%" in work:
        raise ConfigError(f"{work!r} cannot stand in a job script of dask-jobqueue; take a plainer output.path")


def job_settings(spec: ClusterSpec, workers: int, gpu: bool) -> dict[str, Any]:
    """Keywords of dask-jobqueue's clusters: one process per job, one task at a time, nothing to listen on but TLS."""
    job = spec.job
    directives, more = list(job.directives), {}
    megabytes = math.ceil(job.memory_gb * 1e9 / 2**20)
    if spec.kind == "slurm" and gpu:
        directives.append("--gres=gpu:1")
    if spec.kind == "pbs":
        chunk = f"select=1:ncpus={job.cores}:mem={megabytes}mb"
        more["resource_spec"] = chunk + (":ngpus=1" if gpu else "")
    return {
        "cores": job.cores,
        "processes": 1,
        "memory": f"{megabytes}MiB",
        "job_name": "slidebatch",
        "queue": job.queue,
        "account": job.account,
        "walltime": clock(job.walltime_s),
        "python": shlex.quote(job.python) if job.python else None,
        "interface": job.interface,
        "job_extra_directives": directives,
        "job_script_prologue": prologue(spec, workers),
        # The last of an option counts: a job's cores are for one task, and no memory limit of Dask's pauses a worker.
        "worker_extra_args": ["--nthreads", "1", "--memory-limit", "0", *NO_PAGE],
        **more,
    }


def prologue(spec: ClusterSpec, workers: int) -> list[str]:
    """Shell lines before a worker starts: settings, the job's deadline, and a moment's wait that differs by job."""
    stagger_s = min(MOST_STAGGER_S, math.ceil(STAGGER_S * workers)) if workers > 1 else 0
    dask = {"DASK_" + key.upper().replace("-", "_").replace(".", "__"): str(v) for key, v in SETTINGS.items()}
    path = {k: v for k, v in os.environ.items() if k == "PYTHONPATH"}
    return [
        f'export {VARIABLE}="$(($(date +%s) + {spec.job.walltime_s}))"',
        *(f"export {name}={shlex.quote(value)}" for name, value in {**ENVIRONMENT, **dask, **path}.items()),
        *([f"umask {spec.umask}"] if spec.umask else []),
        *spec.job.prologue,
        *([f"sleep $((RANDOM % {stagger_s + 1}))"] if stagger_s else []),
    ]


def clock(seconds: int) -> str:
    """Seconds as schedulers want a time limit.

    >>> clock(90061)
    '25:01:01'
    """
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def listed(kind: str, ids: Iterable[str]) -> bool:
    """Whether any of these jobs waits or runs. A scheduler that does not answer is taken to have them."""
    for one in ids:
        command = [part.format(one) for part in LISTED[kind]]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return True
        if told.returncode == 0 and told.stdout.strip():
            return True
    return False


def _last_words(text: str) -> str:
    """What the scheduler itself said, out of what dask-jobqueue tells about it; one line."""
    said = re.search(r"stderr:\n(.*)", text, re.DOTALL)
    lines = (said[1] if said else text).strip().splitlines()
    return lines[-1].strip() if lines else "it gave no reason"
