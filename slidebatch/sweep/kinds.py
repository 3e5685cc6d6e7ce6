"""How a point of each kind is run, and what it is worth: metrics by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slidebatch.errors import ConfigError
from slidebatch.shipped import shipped
from slidebatch.sweep.folder import Sweep
from slidebatch.sweep.points import Point, as_overrides, function

if TYPE_CHECKING:
    from slidebatch.evaluate import Evaluation

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Worth:
    """What came of a point: numbers (None where there is none), texts, and what the reader must know."""

    metrics: Metrics
    facts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def run_point(sweep: Sweep, point: Point) -> Worth:
    """Run a point in its folder. What is there of an earlier attempt is gone on with. Errors: whatever comes."""
    if sweep.spec.kind == "decode":
        from slidebatch.sweep.decoding import decode_point  # late, as below: only what the kind needs is loaded

        return decode_point(sweep, point)
    return {"train": _train, "run": _run, "call": _call}[sweep.spec.kind](sweep, point)


def numbers(found: Mapping[str, Any]) -> Metrics:
    """Metrics as JSON has them: NaN and infinity are None. ConfigError for what is no number."""
    wrong = [name for name, value in found.items() if not isinstance(value, int | float | None)]
    if wrong:
        raise ConfigError(f"metrics: {wrong[0]} is {found[wrong[0]]!r}; expected a number.")
    return {name: value if value is None or math.isfinite(value) else None for name, value in found.items()}


def scores(judged: Evaluation) -> Metrics:
    """The means and sums over all images."""
    return numbers(judged.means["all"])


def _call(sweep: Sweep, point: Point) -> Worth:
    found = function(sweep.spec.base)({**sweep.base, **point.settings}, sweep.place(point))
    if not isinstance(found, Mapping):
        raise ConfigError(f"{sweep.spec.base} returned {found!r}; expected metrics by name.")
    return Worth(numbers(found))


def _train(sweep: Sweep, point: Point) -> Worth:
    from slidebatch.training import train

    place = sweep.place(point)
    weights = train(str(sweep.base_file), [*point.overrides, f"output={json.dumps(str(place / 'training'))}"])
    assert weights is not None  # None comes to the later processes of torchrun alone; a point is one process
    card = json.loads(weights.with_suffix(".json").read_text())
    metrics: Metrics = {"epochs": card["training"]["epochs"], "train_s": card["training"]["seconds"]}
    metrics |= {name: card["scores"][name].get("all") for name in ("held_out", "excluded")}
    metrics["loss"] = _last_loss(weights.parent)
    facts = {"weights": str(card.get("sha256", ""))}
    if sweep.spec.score.run is None:
        return Worth(numbers(metrics), facts)
    judged = _run_with(sweep, weights, place / "results")
    return Worth(numbers(metrics) | judged.metrics, facts, judged.notes)


def _last_loss(folder: Path) -> float | None:
    """The loss of the last epoch, from the training's log."""
    head, *rows = (folder / "log.csv").read_text().splitlines()
    return float(dict(zip(head.split(","), rows[-1].split(","), strict=True))["loss"]) if rows else None


def _run_with(sweep: Sweep, weights: Path, results: Path) -> Worth:
    """The run that the score asks for, with these weights."""
    score = sweep.spec.score
    assert score.run is not None
    told = {"model.weights": str(weights), "output.path": str(results)}
    return _judged(sweep, score.run, as_overrides({**score.set, **told}))


def _run(sweep: Sweep, point: Point) -> Worth:
    results = json.dumps(str(sweep.place(point) / "results"))
    return _judged(sweep, str(sweep.base_file), [*point.overrides, f"output.path={results}"])


def _judged(sweep: Sweep, config: str, overrides: list[str]) -> Worth:
    """A run, and its scores where there is truth."""
    from slidebatch import batch
    from slidebatch.config import load
    from slidebatch.evaluate import evaluate

    outcome = batch.run(load(config, overrides))
    metrics: Metrics = {"inputs_done": outcome.done, "inputs_failed": outcome.failed}
    truth, subset = truth_of(sweep), subset_of(sweep)
    judged = outcome.accuracy if truth is None else evaluate(outcome.results, truth, subset)
    if judged is None:
        return Worth(metrics)
    return Worth(metrics | scores(judged), notes=tuple(judged.notes))


def truth_of(sweep: Sweep) -> Path | None:
    """The truth that the score names; None: none, or a sample's own."""
    return None if sweep.spec.score.truth is None else Path(sweep.spec.score.truth)


def subset_of(sweep: Sweep) -> Path | None:
    """The file of ids to judge, a path or the name of a shipped file."""
    name = sweep.spec.score.subset
    return None if name is None else next((p for p in (Path(name), shipped(name)) if p and p.is_file()), Path(name))
