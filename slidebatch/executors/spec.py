"""The config's section `cluster`: where a run runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from slidebatch import models
from slidebatch.executors import machine
from slidebatch.spec import Spec

Kind = Literal["local", "serial", "cuda", "slurm", "pbs", "existing"]

JOBS = ("slurm", "pbs")
"""Kinds whose workers are jobs of a batch scheduler."""

HERE = ("local", "cuda")
"""Kinds whose workers are processes of this machine."""

ELSEWHERE = (*JOBS, "existing")
"""Kinds whose workers may be on other machines than the driver."""


class JobSpec(Spec):
    """What each worker's job asks its scheduler for (`slurm`, `pbs`)."""

    cores: PositiveInt = Field(default=1, description="Cores of a job.")
    memory_gb: PositiveFloat = Field(default=8.0, description="Memory of a job, 10^9 bytes.")
    gpus: NonNegativeInt = Field(default=0, le=1, description="GPUs of a job: none or one, for its one worker.")
    walltime_s: PositiveInt = Field(
        default=4 * 3600, description="Time limit of a job; its worker leaves before, between two tasks."
    )
    queue: str | None = Field(default=None, description="Queue or partition; none: the site's own choice.")
    account: str | None = Field(default=None, description="Account or project that pays.")
    directives: tuple[str, ...] = Field(
        default=(), description="More directives, without their #SBATCH or #PBS: '--constraint=a100'."
    )
    prologue: tuple[str, ...] = Field(default=(), description="Shell lines before the worker starts: 'module load x'.")
    python: str | None = Field(default=None, description="Python of the jobs; none: the one that runs this.")
    interface: str | None = Field(default=None, description="Network interface, such as ib0; none: the first.")


class ClusterSpec(Spec):
    """Where a run runs."""

    kind: Kind = Field(
        default="local",
        description="local: worker processes here; serial: this process; cuda: a worker per GPU here; slurm, pbs: a "
        "job per worker; existing: a Dask cluster that is there, by address or scheduler_file.",
    )
    workers: PositiveInt | Literal["auto"] = Field(
        default="auto",
        description="Workers; auto: by cores and memory (local; with networks on a GPU one), by GPUs (cuda), all there "
        "are (existing).",
    )
    cpu_workers: NonNegativeInt | Literal["auto"] = Field(
        default="auto",
        description="Workers without a GPU, for the stages that need none, where networks run on GPUs; 0: the GPU "
        "workers do it all; auto: by cores and memory (local, cuda), none (slurm, pbs).",
    )
    attempts: PositiveInt = Field(
        default=3, description="How often a task may fail or kill its worker before its slide fails."
    )
    adaptive: bool = Field(default=False, description="slurm, pbs: between one job and `workers`, by what waits.")
    address: str | None = Field(default=None, description="existing: the scheduler's address, tcp://host:8786.")
    scheduler_file: str | None = Field(default=None, description="existing: the file that `dask scheduler` wrote.")
    wait_s: PositiveFloat = Field(
        default=60.0, description="existing: how long to wait for the scheduler, and for a worker when there is none."
    )
    walltime_s: PositiveFloat | None = Field(
        default=None,
        description="Time that this run has; no task is begun that would not end in it. SLIDEBATCH_DEADLINE (seconds "
        "since the epoch) in the environment says the same; the earlier one counts.",
    )
    job: JobSpec = Field(default=JobSpec(), description="What each job asks for (slurm, pbs).")
    scratch: str | None = Field(
        default=None,
        description="Folder of each node for copies of images that it reads, such as $TMPDIR; none: no copies.",
    )
    umask: str | None = Field(
        default=None, pattern=r"^0?[0-7]{3}$", description="Permissions taken from new files, such as '007'."
    )
    group: str | None = Field(default=None, description="Group that the results are to belong to.")

    @model_validator(mode="after")
    def _one_place(self) -> ClusterSpec:
        named = [k for k in ("address", "scheduler_file") if getattr(self, k) is not None]
        if self.kind != "existing" and named:
            raise ValueError(f"{named[0]} is for kind existing, and kind is {self.kind}; leave one of them out")
        if self.kind == "existing" and len(named) != 1:
            raise ValueError("kind existing takes one of address and scheduler_file; give one")
        if self.kind in JOBS and self.workers == "auto":
            raise ValueError(f"kind {self.kind} needs the number of jobs; set cluster.workers")
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether workers may be on other machines than this."""
        return self.kind in ELSEWHERE

    def count(self, threads: int, gpu: bool = False) -> int:
        """Workers of `threads` network threads each to plan with: as asked for, else as this machine has cores for.

        gpu: networks run on GPUs; then `local` has one worker for the first of them. An existing cluster may have more
        or fewer than planned; it is taken as it is.
        """
        if self.kind == "serial":
            return 1
        if self.workers != "auto":
            return self.workers
        if self.kind == "cuda":
            return max(1, len(models.gpus()))
        if self.kind == "existing" or gpu:
            return 1
        return max(1, machine.usable_cores() // threads)

    def cpu_count(self, gpu: bool) -> int:
        """Workers without a GPU, besides those with one: at most as many as this machine has cores for, or jobs."""
        if not gpu or self.kind not in (*HERE, *JOBS):
            return 0
        if self.cpu_workers != "auto":
            return self.cpu_workers
        return machine.usable_cores() if self.kind in HERE else 0
