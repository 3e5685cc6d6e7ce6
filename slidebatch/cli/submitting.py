"""The command that gives a run to a cluster's scheduler, and what `sweep` shares with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slidebatch.cli.app import Config, Set, app
from slidebatch.cli.exits import exits
from slidebatch.cli.options import spread
from slidebatch.cli.show import say

if TYPE_CHECKING:
    from slidebatch.jobscripts import JobSpec

ClusterConfig = Annotated[
    str | None,
    typer.Option("--cluster-config", help="What the site wants; none: conf/cluster/<scheduler>.yaml."),
]
JobSet = Annotated[
    list[str] | None, typer.Option("--job", metavar="KEY=VALUE", help="Override a key of the cluster's config.")
]


@dataclass(frozen=True)
class SubmitOptions:
    """What `submit` may be told."""

    set_: Set = None
    scheduler: Annotated[Literal["pbs", "slurm"] | None, typer.Option(help="Who takes the job.")] = None
    cluster_config: ClusterConfig = None
    job: JobSet = None
    template: Annotated[str, typer.Option(help="run: one job; workers: an array; or one of your own.")] = "run"
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the script and stop.")] = False


@app.command()
@exits
@spread
def submit(config: Config, options: SubmitOptions) -> int:
    """Submit a run to PBS or SLURM as a job; given again after the job has ended, resume.

    \b
    Example:
        slidebatch submit conf/plate.yaml --scheduler slurm --dry-run
        slidebatch submit conf/slide.yaml --scheduler pbs --cluster-config my_site.yaml --template workers
    """
    from slidebatch.jobscripts import RunAsked, submit_run

    asked = RunAsked(config, tuple(options.set_ or ()), options.template)
    submit_run(asked, site(options.scheduler, options.cluster_config, options.job), not options.dry_run, say)
    return 0


def site(scheduler: str | None, path: str | None, overrides: list[str] | None) -> JobSpec:
    """What the site wants of jobs. ConfigError: neither a scheduler nor a file is named, or they disagree."""
    from slidebatch.errors import ConfigError
    from slidebatch.jobscripts import job_spec

    if scheduler is None and path is None:
        raise ConfigError("found neither --scheduler nor --cluster-config; give --scheduler pbs or --scheduler slurm.")
    spec = job_spec(path or f"conf/cluster/{scheduler}.yaml", overrides or [])
    family = "slurm" if spec.scheduler == "slurm" else "pbs"
    if scheduler not in (None, family):
        raise ConfigError(f"--scheduler {scheduler}, but {path} is for {spec.scheduler}; name one of them.")
    return spec
