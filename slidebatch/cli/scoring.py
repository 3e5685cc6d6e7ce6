"""The commands that judge results by truth: evaluate, calibrate and tune."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slidebatch.cli.app import Set, app
from slidebatch.cli.exits import exits
from slidebatch.cli.options import spread
from slidebatch.cli.show import say
from slidebatch.errors import ConfigError

if TYPE_CHECKING:
    from slidebatch.evaluate import Bootstrap, Column

Truth = Annotated[Path, typer.Argument(help="True nuclei: results folder, folder of label images, or DSB CSV.")]
Subset = Annotated[Path | None, typer.Option(help="Text file with the ids to judge, one a line.")]
Groups = Annotated[Path | None, typer.Option(help="TSV with a column id: headings for means.")]
Heading = Annotated[str | None, typer.Option("--column", help="Its column with the headings.  [default: modality]")]
Clusters = Annotated[
    Path | None, typer.Option("--bootstrap-groups", help="TSV with a column id: what belongs together.")
]
Cluster = Annotated[
    str | None, typer.Option("--bootstrap-column", help="Its column with the groups.  [default: group]")
]
Shapes = Annotated[Path | None, typer.Option(help="TSV with columns id, height, width, for CSVs without shapes.")]
Resamples = Annotated[int, typer.Option(min=0, help="Bootstrap draws; 0: no intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write everything here, as JSON.")]

SOME_MISSING = 3
"""Exit status where images were not predicted: finished, but some inputs are at fault."""


@dataclass(frozen=True)
class Judging:
    """What all three commands may be told."""

    subset: Subset = None
    clusters: Clusters = None
    cluster: Cluster = None
    shapes: Shapes = None
    resamples: Resamples = 2000
    seed: Seed = 0
    json: Json = None


@dataclass(frozen=True)
class Options(Judging):
    """What evaluate and tune may be told besides."""

    groups: Groups = None
    column: Heading = None


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """What `evaluate` may be told."""

    csv: Annotated[Path | None, typer.Option("--csv", help="Also write one row per image here.")] = None
    coco: Annotated[Path | None, typer.Option("--coco", help="Folder: also write truth.json and results.json.")] = None


@app.command()
@exits
@spread
def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Results folder, folder of label images, or DSB CSV.")],
    truth: Truth,
    options: EvaluateOptions,
) -> int:
    """Compare results with the truth: DSB score, AP, F1, SEG, PQ, AJI, counts, with 95 % intervals; COCO's mAP.

    \b
    Example:
        slidebatch evaluate results/plate sample/plate/truth
        slidebatch evaluate results/validation labels/ --subset validation.txt --groups index.tsv \\
            --bootstrap-groups groups.tsv --json scores.json --csv images.csv
    """
    from slidebatch.evaluate import evaluate as judge
    from slidebatch.evaluate import write_coco

    _make_room(options.json, options.csv, options.coco and options.coco / "results.json")
    how = _bootstrap(options)
    judged = judge(predicted, truth, options.subset, _column(options.groups, options.column), how, options.shapes)
    _write(options.json, judged.to_json() + "\n")
    _write(options.csv, judged.to_csv())
    if options.coco is not None:
        write_coco(options.coco, predicted, truth, options.subset, options.shapes)
    say(judged.describe())
    return SOME_MISSING if judged.missing else 0


@dataclass(frozen=True)
class CalibrateOptions(Judging):
    """What `calibrate` may be told."""

    weights: Annotated[
        Path | None, typer.Option("--weights", help="Weights (.safetensors) whose card is to hold the calibration.")
    ] = None


@app.command()
@exits
@spread
def calibrate(
    results: Annotated[Path, typer.Argument(help="Results folder of a run of one network.")],
    truth: Truth,
    options: CalibrateOptions,
) -> int:
    """Learn what a network's scores are worth: the overlap with the truth to expect, cross-fitted by group.

    Ensembles whose rule joins nuclei compare their members by it, once it lies in the card of the weights.

    \b
    Example:
        slidebatch calibrate results/fit labels/ --subset fit.txt --bootstrap-groups groups.tsv \\
            --weights my.safetensors
    """
    from slidebatch import models
    from slidebatch.evaluate import calibrate as fit

    _make_room(options.json)
    found = fit(results, truth, options.subset, _bootstrap(options), options.shapes)
    told = [found.to_text()]
    if options.weights is not None:
        warning = models.store_calibration(found.model, options.weights, found.calibration)
        told += [*filter(None, [warning]), f"stored in {options.weights.with_suffix('.json')}"]
    _write(options.json, found.to_json() + "\n")
    return say("\n".join(told))


@dataclass(frozen=True)
class TuneOptions(Options):
    """What `tune` may be told."""

    set_: Set = None
    measure: Annotated[str, typer.Option(help="What is made large: dsb, ap50, f1, seg, pq or aji.")] = "dsb"
    settings: Annotated[str | None, typer.Option(help="Settings to tune, by commas.  [default: all]")] = None
    sampler: Annotated[Literal["auto", "optuna", "grid"], typer.Option(help="How settings are tried.")] = "auto"
    trials: Annotated[int, typer.Option(min=1, help="Settings that optuna tries in each search.")] = 60
    folds: Annotated[int, typer.Option(min=2, help="Parts that the groups are dealt into.")] = 5
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.  [default: one a core]")] = None
    yaml: Annotated[Path | None, typer.Option("--yaml", help="Also write the sections for a config here.")] = None


@app.command()
@exits
@spread
def tune(
    source: Annotated[str, typer.Argument(help="Config or results folder of a run with keep_maps, or folder of maps.")],
    truth: Truth,
    options: TuneOptions,
) -> int:
    """Choose settings of decoding, or of an ensemble, on what the networks of a finished run left; no network runs.

    Cross-fitted by group.

    \b
    Example:
        slidebatch tune results/plate sample/plate/truth --yaml decode.yaml
        slidebatch tune results/ensemble labels/ --bootstrap-groups groups.tsv \\
            --settings min_votes,score_threshold --yaml ensemble.yaml
    """
    from slidebatch.tuning import Choice, TuneSpec
    from slidebatch.tuning import tune as search

    _make_room(options.yaml, options.json)
    choice = Choice(
        subset=options.subset,
        groups=_column(options.groups, options.column),
        clusters=_column(options.clusters, options.cluster),
        shapes=options.shapes,
    )
    given = {} if options.settings is None else {"settings": tuple(options.settings.replace(",", " ").split())}
    spec = TuneSpec(
        measure=options.measure,
        sampler=options.sampler,
        trials=options.trials,
        folds=options.folds,
        seed=options.seed,
        resamples=options.resamples,
        workers=options.workers or "auto",
        **given,
    )
    found = search(source, truth, choice, spec, options.set_ or [])
    _write(options.yaml, found.to_yaml())
    _write(options.json, found.to_json() + "\n")
    return say(f"{found.to_text()}\n\n{found.to_yaml()}".rstrip())


def _column(path: Path | None, name: str | None) -> Column | None:
    from slidebatch.evaluate import Column

    if path is None and name is not None:
        raise ConfigError(f"the column {name} has no table; name its table too (--groups or --bootstrap-groups).")
    return None if path is None else Column(path, name)


def _bootstrap(options: Judging) -> Bootstrap:
    from slidebatch.evaluate import Bootstrap

    return Bootstrap(_column(options.clusters, options.cluster), options.resamples, options.seed)


def _make_room(*paths: Path | None) -> None:
    """Make the folders of files to be written. ConfigError, before any work is done, where one cannot be written."""
    for path in filter(None, paths):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = path.exists()
            path.open("ab").close()
            if not kept:  # an empty file would look like a result
                path.unlink()
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror}); name another file.") from error


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text, encoding="utf-8")
