"""Judges the plates of a results folder as an assay: controls apart, response to doses.

Owns which facts of the wells mean what, and the words; the figures are `slidebatch.assay`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slidebatch.assay import (
    AssaySpec,
    FourParameters,
    bootstrap,
    dose_medians,
    ec50_interval,
    four_parameter_fit,
    robust_zprime,
    spearman,
    ssmd,
    zprime,
)
from slidebatch.errors import ConfigError
from slidebatch.results import Results, open_results

if TYPE_CHECKING:
    import pandas as pd

Interval = tuple[float, float]

CONTROLS, DOSES = ("control",), ("dose", "conc")
"""Words in the names of facts that tell controls and doses."""

NEGATIVE, POSITIVE = ("-1", "negative", "neg"), ("1", "positive", "pos")
"""Values of such a fact for negative and positive controls."""

MOST_FITS = 400
"""Curves that are fitted for the interval of an EC50."""


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % bootstrap interval (NaN where there is none)."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Controls:
    """How well the control wells of a plate are told apart. `fact` names them; counts are of wells with nuclei."""

    fact: str
    negative: int
    positive: int
    zprime: Figure
    robust_zprime: Figure
    ssmd: Figure


@dataclass(frozen=True)
class Doses:
    """Response to doses. doses (D,) ascending, medians of the wells of each; `fit` None with fewer than four doses."""

    fact: str
    doses: tuple[float, ...]
    medians: tuple[float, ...]
    spearman: float
    fit: FourParameters | None
    ec50: Interval


@dataclass(frozen=True)
class PlateAssay:
    """One plate: its readout, wells with and without nuclei, and what controls and doses say (None: no such facts)."""

    plate: str
    column: str
    statistic: str
    wells: int
    empty: int
    controls: Controls | None
    doses: Doses | None

    def to_json(self) -> str:
        """Everything as JSON; what is not a number is null."""
        return json.dumps(_plain(asdict(self)), indent=1)


def judge(results: Results | str | Path, spec: AssaySpec | None = None) -> tuple[PlateAssay, ...]:
    """The assay of each plate of a results folder, by name.

    spec    what is the readout and which facts tell controls and doses; None: what the run's config said
    errors  ResultsError for results without wells, ConfigError where the readout or a fact is not known
    """
    opened = results if isinstance(results, Results) else open_results(results)
    spec = spec or spec_of(opened)
    if spec.column is None:
        raise ConfigError(
            "no readout is named; give a measured column such as --column nucleus_to_ring_GFP, or set assay.column"
        )
    wells = opened.wells([spec.column], spec.statistic)
    facts = [name for name in wells.columns if name not in _OWN and name != spec.column]
    control = _fact(spec.control, facts, CONTROLS, "assay.control")
    dose = _fact(spec.dose, facts, DOSES, "assay.dose")
    plates = wells.groupby("plate", sort=True, dropna=False)
    return tuple(
        _judged(name if isinstance(name, str) else str(opened.manifest["name"]), rows, spec, (control, dose))
        for name, rows in plates
    )


_OWN = ("plate", "row", "column", "well", "fields", "nuclei")


def spec_of(results: Results) -> AssaySpec:
    """What the config of a run says about its assay."""
    return AssaySpec.model_validate((results.manifest.get("config") or {}).get("assay") or {})


def _judged(plate: str, wells: pd.DataFrame, spec: AssaySpec, facts: tuple[str | None, str | None]) -> PlateAssay:
    column = str(spec.column)
    full = wells[wells[column].notna()]
    values = full[column].to_numpy(np.float64)
    control, dose = facts
    return PlateAssay(
        plate=plate,
        column=column,
        statistic=spec.statistic,
        wells=len(full),
        empty=len(wells) - len(full),
        controls=None if control is None else _controls(control, full[control].tolist(), values, spec),
        doses=None if dose is None else _doses(dose, full[dose].tolist(), values, spec),
    )


def _fact(given: str | None, facts: Sequence[str], words: Sequence[str], key: str) -> str | None:
    """The fact that is named, or the only one whose name has one of some words; None where none has."""
    shown = ", ".join(facts) or "none"
    if given is not None:
        if given not in facts:
            raise ConfigError(f"{key} names {given!r}, but the facts of the wells are {shown}; name one of those")
        return given
    found = [name for name in facts if any(word in name.lower() for word in words)]
    if len(found) > 1:
        raise ConfigError(f"several facts could be meant ({', '.join(found)}); set {key} to one of them")
    return found[0] if found else None


def _controls(fact: str, kinds: Sequence[Any], values: npt.NDArray[np.float64], spec: AssaySpec) -> Controls:
    told = np.array([_text(kind) for kind in kinds])
    negative, positive = (
        values[np.isin(told, [given.lower()] if given else list(usual))]
        for given, usual in ((spec.negative, NEGATIVE), (spec.positive, POSITIVE))
    )
    for name, found in (("negative", negative), ("positive", positive)):
        if len(found) < 2:
            there = ", ".join(sorted(set(told.tolist()) - {""}))
            raise ConfigError(
                f"{len(found)} wells with nuclei are {name} controls by {fact} (it says {there}), expected two at "
                f"least; set assay.{name} to its value"
            )
    zp, robust, strict = (
        Figure(of(negative, positive), bootstrap(of, negative, positive, spec.resamples, spec.seed))
        for of in (zprime, robust_zprime, ssmd)
    )
    return Controls(fact, len(negative), len(positive), zp, robust, strict)


def _text(value: Any) -> str:
    """A fact as text, in lower case: numbers without needless digits, nothing for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, int | float) else str(value).strip().lower()


def _doses(fact: str, told: Sequence[Any], values: npt.NDArray[np.float64], spec: AssaySpec) -> Doses:
    try:
        dose = np.array([np.nan if _text(one) == "" else float(one) for one in told])
    except ValueError as error:
        raise ConfigError(
            f"the fact {fact} holds doses that are no numbers ({error}); set assay.dose to another"
        ) from error
    known = np.isfinite(dose)
    dose, response = dose[known], values[known]
    doses, medians = dose_medians(dose, response)
    fit, ec50 = None, (math.nan, math.nan)
    if len(doses) >= 4:
        fit = four_parameter_fit(dose, response)
        ec50 = ec50_interval(dose, response, min(spec.resamples, MOST_FITS), spec.seed)
    return Doses(fact, tuple(doses.tolist()), tuple(medians.tolist()), spearman(doses, medians), fit, ec50)


def _plain(value: Any) -> Any:
    """JSON has no numbers for NaN and infinity."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe(assay: PlateAssay) -> str:
    """For people, a line per thing."""
    empty = f", {assay.empty} without" if assay.empty else ""
    lines = [f"{assay.plate}: {assay.statistic} {assay.column} of each well; {assay.wells} wells with nuclei{empty}"]
    lines += _controls_text(assay.controls)
    lines += _doses_text(assay.doses)
    return "\n".join(lines)


def _controls_text(controls: Controls | None) -> list[str]:
    if controls is None:
        return ["no fact tells controls: no Z'"]
    figures = {"Z'": controls.zprime, "robust Z'": controls.robust_zprime, "SSMD": controls.ssmd}
    told = [
        f"{name} {_number(f.value)} ({_number(f.interval[0])} to {_number(f.interval[1])})"
        for name, f in figures.items()
    ]
    return [f"controls by {controls.fact}: {controls.negative} negative, {controls.positive} positive", *told]


def _doses_text(doses: Doses | None) -> list[str]:
    if doses is None:
        return ["no fact tells doses: no dose response"]
    medians = [f"  {dose:g}: {_number(median)}" for dose, median in zip(doses.doses, doses.medians, strict=True)]
    lines = [f"doses by {doses.fact}: Spearman of dose medians {_number(doses.spearman)}", *medians]
    if doses.fit is None:
        return [*lines, "no curve: it takes four different doses"]
    fit = doses.fit
    ends = f"slope {_number(fit.hill)}, from {_number(fit.bottom)} to {_number(fit.top)}, R2 {_number(fit.r_squared)}"
    lines.append(f"curve: EC50 {_number(fit.ec50)} ({_number(doses.ec50[0])} to {_number(doses.ec50[1])}), {ends}")
    return lines if fit.inside else [*lines, "the EC50 lies outside the doses: it is a guess"]


def _number(value: float) -> str:
    return f"{value:.3g}"
