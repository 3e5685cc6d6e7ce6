"""The commands of sweeps: sweep, and sweep-task, sweep-status and sweep-collect, which work on its folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slidebatch.cli.app import Set, app
from slidebatch.cli.exits import exits
from slidebatch.cli.options import spread
from slidebatch.cli.show import say
from slidebatch.cli.submitting import ClusterConfig, JobSet, site

if TYPE_CHECKING:
    from slidebatch.sweep import Array, Sweep

SOME_FAILED, RESUMABLE = 3, 1

Folder = Annotated[Path, typer.Argument(help="Folder of a sweep: its output.path.")]


@dataclass(frozen=True)
class SweepOptions:
    """What `sweep` may be told."""

    set_: Set = None
    scheduler: Annotated[Literal["local", "pbs", "slurm"], typer.Option(help="Who runs the jobs.")] = "local"
    workers: Annotated[int, typer.Option(min=1, help="local: jobs at a time.")] = 1
    cluster_config: ClusterConfig = None
    job: JobSet = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the points and stop.")] = False
    submit: Annotated[bool, typer.Option("--submit", help="pbs, slurm: submit the array.")] = False
    resume: Annotated[bool, typer.Option("--resume", help="Only go on with a sweep that is there.")] = False
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also try failed points again.")] = False


@app.command()
@exits
@spread
def sweep(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped one: conf/sweep/quick.yaml.")],
    options: SweepOptions,
) -> int:
    """Run a config at many points (a grid, random draws, or a list) as jobs; given again, resume.

    \b
    Example:
        slidebatch sweep conf/sweep/quick.yaml --workers 2
        slidebatch sweep conf/sweep/quick.yaml --set output.path=sweeps/mine --set 'grid.batch=[2, 4]' --dry-run
    """
    from slidebatch.config import read
    from slidebatch.sweep import SweepSpec, array_for, array_of, ask, begin, forget_failures
    from slidebatch.sweep.plan import describe

    asked = ask(read(SweepSpec, config, options.set_ or []))
    if options.dry_run:
        say(describe(asked))
        return 0 if options.scheduler == "local" else _array(array_for(asked), options, send=False)
    if options.scheduler != "local":
        site(options.scheduler, options.cluster_config, options.job)  # refused before anything is written
    made = begin(asked, options.resume)
    if options.retry_failed:
        say(f"failed points to be tried again: {forget_failures(made)}")
    if options.scheduler != "local":
        return _array(array_of(made), options, send=options.submit)
    return _local(made, options.workers)


def _array(array: Array, options: SweepOptions, send: bool) -> int:
    """Show the missing jobs as arrays for the scheduler, or submit them."""
    from slidebatch.jobscripts import submit_array

    submit_array(array, site(options.scheduler, options.cluster_config, options.job), send, say)
    return 0


def _note(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _local(made: Sweep, workers: int) -> int:
    from slidebatch.sweep.local import run_local

    found = run_local(made, workers, lambda counts: _note(counts.describe()))
    say(f"sweep: {made.folder}\n{found.describe()}")
    if not found.over:
        say(f"{made.folder / 'logs'} says why; give the same command again to resume")
    return RESUMABLE if not found.over else SOME_FAILED if found.failed else 0


@app.command("sweep-task")
@exits
def sweep_task(
    folder: Folder,
    index: Annotated[int, typer.Argument(min=0, help="Number of the job, from 0; with --through, of the line.")],
    through: Annotated[Path | None, typer.Option(help="File with the number of a job on each line.")] = None,
    attended: Annotated[bool, typer.Option("--attended", help="Stop once standard input closes.")] = False,
) -> int:
    """Run the points of one job of a sweep that are not finished: what schedulers start.

    \b
    Example:
        slidebatch sweep-task sweeps/quick 0
    """
    from slidebatch.sweep import job_at, run_job
    from slidebatch.sweep.local import attend

    if attended:
        attend()
    job = index if through is None else job_at(through, index)
    end = run_job(folder, job, lambda point, ended: _note(f"point {point.key}: {ended}"))
    say(f"job {job}: {end.done} done, {end.failed} failed, {end.elsewhere} with another process")
    return RESUMABLE if end.elsewhere else SOME_FAILED if end.failed else 0


@app.command("sweep-status")
@exits
def sweep_status(folder: Folder) -> int:
    """Show how far a sweep is: points done, failed, running and to come, and the jobs that are missing.

    \b
    Example:
        slidebatch sweep-status sweeps/quick
    """
    from slidebatch.sweep import status

    return say(status(folder).describe())


@app.command("sweep-collect")
@exits
def sweep_collect(folder: Folder) -> int:
    """Write one table of all results (parquet, CSV) and a report (HTML, Markdown).

    \b
    Example:
        slidebatch sweep-collect sweeps/quick
    """
    from slidebatch.sweep.collect import collect, write_table
    from slidebatch.sweep.report import write_report

    found = collect(folder)
    tables = write_table(found)
    say("\n".join(f"table: {path}" for path in tables))
    say(f"report: {write_report(found)}")
    return say(f"{len(found.table)} of {found.points} points")
