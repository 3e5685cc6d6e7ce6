"""What a site wants of every job: `conf/cluster/*.yaml`.

What goes into a line of directives is checked here to be harmless there: schedulers read those lines by rules of
their own, which no quoting suits. Everything else may hold any character and is quoted by the templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from slidebatch.config import read
from slidebatch.jobscripts.amounts import memory_bytes, walltime_s
from slidebatch.shipped import find_config
from slidebatch.spec import Spec

Scheduler = Literal["slurm", "pbs", "torque"]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_@.,:=+/\-\[\]]+$")]
"""One word of letters, digits and `_@.,:=+/-[]`."""
Line = Annotated[str, Field(pattern=r"^[^\n\r]+$")]
"""One line."""
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Moment = Literal["begin", "end", "fail"]


class JobSpec(Spec):
    """What a site wants of every job."""

    scheduler: Scheduler = Field(description="slurm; pbs: OpenPBS and PBS Pro; torque: told as text, not tried.")
    queue: Word | None = Field(default=None, description="Queue; SLURM calls it a partition. None: the site's default.")
    account: Word | None = Field(default=None, description="Account or project that is charged.")
    walltime: str = Field(default="08:00:00", description="Time limit: hours:minutes:seconds, or days-hours:...")
    nodes: PositiveInt = Field(
        default=1, description="Template run: nodes of the job, each with these cores, memory and GPUs."
    )
    cpus: PositiveInt = Field(default=8, description="Cores of a node of a job.")
    memory: str = Field(default="32 GiB", description="Memory of a node of a job, with its unit: 32 GiB, 32 GB.")
    gpus: NonNegativeInt = Field(default=0, description="GPUs of a node of a job.")
    gpu_kind: Word | None = Field(default=None, description="SLURM: kind of GPU, such as a100.")
    select: Word | None = Field(default=None, description="PBS: more of the chunk, such as gpu_model=a100.")
    mail: Word | None = Field(default=None, description="Address that the scheduler writes to.")
    mail_when: list[Moment] = Field(default=["end", "fail"], description="When it writes.")
    directives: list[Line] = Field(default=[], description="More directives, such as --constraint=ib or -W umask=027.")
    modules: list[Word] = Field(default=[], description="Modules to load.")
    setup: list[str] = Field(default=[], description="Lines of shell before anything starts, as they stand.")
    variables: dict[Variable, str] = Field(default={}, description="Environment variables of the job.")
    environment: str | None = Field(
        default=None, description="Virtual environment to activate; none: the Python that submits, by its path."
    )
    image: str | None = Field(default=None, description="Apptainer image that holds slidebatch.")
    binds: list[str] = Field(default=[], description="Folders that the image sees besides its own: source[:inside].")
    workers: PositiveInt = Field(default=4, description="Template workers: jobs of the array.")
    per_job: PositiveInt | None = Field(
        default=None,
        description="Worker processes of a node, where nodes meet; none: one a GPU, without GPUs as many as its cores "
        "hold with the network's threads each.",
    )
    interface: Word | None = Field(
        default=None, description="Where nodes meet: the network interface that they reach each other by, such as ib0."
    )
    meet_s: PositiveInt = Field(default=3600, description="Template workers: how long a worker waits for the others.")
    grace_s: NonNegativeInt = Field(
        default=120, description="SLURM: how long before the time limit the engine is asked to stop; PBS has no such."
    )
    largest_array: PositiveInt = Field(
        default=1000, description="Most jobs of an array: SLURM's MaxArraySize, or PBS's max_array_size."
    )
    at_once: PositiveInt | None = Field(default=None, description="Most jobs of an array that run at a time.")
    templates: str | None = Field(
        default=None, description="Folder of your own templates, from this file; what it lacks is taken from jobs/."
    )

    @field_validator("walltime")
    @classmethod
    def _a_time(cls, text: str) -> str:
        walltime_s(text)
        return text

    @field_validator("memory")
    @classmethod
    def _an_amount(cls, text: str) -> str:
        memory_bytes(text)
        return text

    @model_validator(mode="after")
    def _agree(self) -> JobSpec:
        if self.environment is not None and self.image is not None:
            raise ValueError("found environment and image; give one of them")
        if self.binds and self.image is None:
            raise ValueError("found binds without an image; take them away, or name the image")
        if self.grace_s >= self.walltime_s:
            raise ValueError(f"grace_s {self.grace_s} is no shorter than walltime {self.walltime}; make it shorter")
        return self

    @property
    def walltime_s(self) -> int:
        return walltime_s(self.walltime)

    @property
    def memory_bytes(self) -> int:
        return memory_bytes(self.memory)

    def processes(self, threads: int) -> int:
        """Worker processes, of so many threads each, of a node whose workers meet those of others."""
        return self.per_job or self.gpus or max(1, self.cpus // threads)


def job_spec(path: str, overrides: Sequence[str] = ()) -> JobSpec:
    """Read what a site wants.

    :param path: a YAML file, or the name of a shipped one (`conf/cluster/slurm.yaml`).
    :param overrides: `key=value` each.
    :returns: the checked spec; paths that begin with ~ are written out, and templates lie where the file says.
    :raises ConfigError: what is wrong, and where.
    """
    spec = read(JobSpec, path, overrides)
    changes = {key: str(Path(value).expanduser()) for key in ("environment", "image") if (value := getattr(spec, key))}
    if spec.templates is not None:
        changes["templates"] = str(find_config(path).absolute().parent / Path(spec.templates).expanduser())
    return spec.model_copy(update=changes)
