"""The commands, one thin function each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from slidebatch.cli.exits import exits
from slidebatch.cli.show import say, say_lines

app = typer.Typer(
    name="slidebatch",
    help="Batch nucleus segmentation of whole slides and plates.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Config = Annotated[str, typer.Argument(help="YAML file, or the name of a shipped one: conf/plate.yaml.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; repeatable.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="serial, local, cuda, slurm, pbs, or a Dask cluster's address or scheduler file; sets cluster.kind.",
    ),
]
Workers = Annotated[int | None, typer.Option(help="Workers; short for --set cluster.workers=...")]
Folder = Annotated[Path, typer.Argument(help="Results folder of a run.")]


def _overrides(sets: list[str] | None, cluster: str | None = None, workers: int | None = None) -> list[str]:
    """The `--set` values, those that options stand for last."""
    short = {**_cluster(cluster), "cluster.workers": workers}
    return [*(sets or []), *(f"{key}={json.dumps(value)}" for key, value in short.items() if value is not None)]


def _cluster(named: str | None) -> dict[str, str | None]:
    """The settings that `--cluster` stands for: a kind, an address (with ://) or a scheduler file (.json)."""
    if named is None or not ("://" in named or named.endswith(".json")):
        return {"cluster.kind": named}
    return {"cluster.kind": "existing", "cluster.address" if "://" in named else "cluster.scheduler_file": named}


@app.command()
@exits
def run(
    config: Config,
    set_: Set = None,
    cluster: Cluster = None,
    workers: Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
) -> int:
    """Segment the slides or the plate that a config names; given again, resume.

    \b
    Example:
        slidebatch run conf/plate.yaml
        slidebatch run conf/slide.yaml --set input.path=slides/ --set output.path=results/slides
    """
    from slidebatch import batch
    from slidebatch.config import load
    from slidebatch.progress import display

    settings = load(config, _overrides(set_, cluster, workers))
    if dry_run:
        return say(batch.plan(settings).describe())
    with display(sys.stderr) as on_event:
        outcome = batch.run(settings, on_event)
    say(f"results: {outcome.results}")
    if settings.report.enabled and (page := outcome.results / "report" / "index.html").exists():
        say(f"report: {page}")
    if outcome.failed:
        say(f"{outcome.failed} inputs failed: see {outcome.results / 'failures.jsonl'}")
    if outcome.accuracy is not None:
        say(f"accuracy against the sample's truth:\n{outcome.accuracy.to_text()}")
    return int(outcome.exit_status)


@app.command()
@exits
def plan(
    config: Annotated[str, typer.Argument(help="YAML file, shipped or your own; or images: a folder or a file.")],
    set_: Set = None,
    cluster: Cluster = None,
    workers: Workers = None,
) -> int:
    """Show what a run would do: slides, patches, tiles, memory, disk, files, time. Starts nothing.

    Of images without a config, says how their names are read and gives the command that runs them.

    \b
    Example:
        slidebatch plan my_plate/
        slidebatch plan conf/slide.yaml --set tiling.core_px=2048
    """
    from slidebatch import batch
    from slidebatch.config import load
    from slidebatch.first_look import first_look, is_images

    sets = _overrides(set_, cluster, workers)
    if not is_images(config):
        return say(batch.plan(load(config, sets)).describe())
    look = first_look(config, sets)
    say(look.describe())
    say(batch.plan(load(look.config, look.sets)).describe())
    return say(f"to run it:\n    {look.command}")


@app.command()
@exits
def status(results: Folder) -> int:
    """Show how far a run is: slides done, failed and to come.

    \b
    Example:
        slidebatch status results/plate
    """
    from slidebatch.status import status as told

    return say(told(results).describe())


@app.command()
@exits
def validate(results: Folder) -> int:
    """Check that results are valid OME-Zarr and that raster, table and counts agree one to one.

    \b
    Example:
        slidebatch validate results/plate
    """
    from slidebatch.validate import validate as check

    faults = check(results)
    say_lines(faults)
    say(f"{results}: {len(faults)} faults" if faults else f"{results}: valid")
    return 1 if faults else 0


@app.command()
@exits
def train(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped one: conf/train/small_unet.yaml.")],
    set_: Set = None,
) -> int:
    """Train a network; given again, resume from the last checkpoint.

    \b
    Example:
        slidebatch train conf/train/small_unet.yaml
        slidebatch train conf/train/small_unet.yaml --set data.path=my_images --set data.exclude=null \\
            --set data.mix={} --set output=training/mine
    """
    from slidebatch.cli.fitting import fitting
    from slidebatch.training import train as fit

    with fitting(sys.stderr) as tell:
        path = fit(config, set_ or [], tell)
    return say(f"weights: {path}") if path else 0


@app.command()
@exits
def sample(
    kind: Annotated[Literal["plate", "tissue", "training"], typer.Argument(help="What to show.")],
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
) -> int:
    """Write sample images with their ground truth, as real files.

    \b
    Example:
        slidebatch sample plate sample/plate
    """
    from slidebatch.sample import write_sample

    return say(f"sample {kind}: {write_sample(kind, folder)}")


@app.command()
@exits
def schema() -> int:
    """Print the JSON schema of the config, with a description of every key.

    \b
    Example:
        slidebatch schema > slidebatch.schema.json
    """
    from slidebatch.config import schema as made

    return say(json.dumps(made(), indent=2))
