"""Plates as assays: controls told apart, response to doses, by the figures of `slidebatch.plate_assay`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from slidebatch.assay import AssaySpec
from slidebatch.errors import ConfigError
from slidebatch.pages import Drawing, Gallery, Section, Table, Text, number
from slidebatch.pages.charts import Axis, Response, dose_response
from slidebatch.plate_assay import Figure, Interval, PlateAssay, judge
from slidebatch.report.told import Told, words

MOST_READOUTS = 6
NAMED = (
    "95 % intervals in brackets, over draws of wells. Z' = 1 - 3 (s- + s+) / |m- - m+|; robust Z' takes medians and "
    "scaled median absolute deviations; SSMD = (m+ - m-) / sqrt(s-² + s+²)."
)
UNNAMED = (
    "No readout was named (assay.column), so the usual ones are shown, without intervals. Whoever picks the best of "
    "them afterwards flatters the assay."
)
HEADS = ("plate", "readout", "Z'", "robust Z'", "SSMD", "Spearman of dose medians", "EC50", "slope", "R²")


def assays(told: Told) -> Section | None:
    """Z', robust Z', SSMD where facts tell controls; dose response with the fit where they tell doses; else None."""
    if not any(e.get("well") and e.get("facts") for e in told.done):
        return None
    try:
        judged = [one for readout in _readouts(told) for one in judge(told.results, _spec(told, readout))]
    except ConfigError as error:
        return Section("Assay", [Text(f"The plate could not be judged as an assay: {error}.", warning=True)])
    judged = [one for one in judged if one.controls is not None or one.doses is not None]
    if not judged:
        return None
    blocks: list[Text | Table | Gallery] = [
        Text(NAMED if told.assay.column else UNNAMED),
        *(Text(text) for text in dict.fromkeys(_wells(one) for one in judged)),
        Table(HEADS, [_row(one) for one in judged]),
    ]
    drawings = [drawing for one in judged for drawing in _curves(told, one)]
    return Section("Assay", [*blocks, Gallery(drawings)] if drawings else blocks)


def _readouts(told: Told) -> list[str]:
    if told.assay.column is not None:
        return [told.assay.column]
    usual = [*told.measured("nucleus_to_ring_"), *told.measured("mean_"), told.area]
    return usual[:MOST_READOUTS]


def _spec(told: Told, readout: str) -> AssaySpec:
    named = told.assay.column is not None
    return told.assay.model_copy(update={"column": readout, **({} if named else {"resamples": 0})})


def _wells(one: PlateAssay) -> str:
    parts = [f"{one.plate}: {one.statistic} of each well's nuclei, {one.wells} wells with nuclei, {one.empty} without"]
    if one.controls is not None:
        controls = one.controls
        parts.append(f"{controls.negative} negative and {controls.positive} positive controls by {controls.fact}")
    if one.doses is not None:
        parts.append(f"{len(one.doses.doses)} doses by {one.doses.fact}")
    return "; ".join(parts) + "."


def _row(one: PlateAssay) -> list[str]:
    controls, doses = one.controls, one.doses
    of = [] if controls is None else [controls.zprime, controls.robust_zprime, controls.ssmd]
    figures = [_figure(f) for f in of] or [""] * 3
    if doses is None:
        return [one.plate, one.column, *figures, "", "", "", ""]
    response = [number(doses.spearman, 3), "", "", ""]
    if doses.fit is not None:
        guess = "" if doses.fit.inside else " (a guess: outside the doses)"
        ec50 = _figure(Figure(doses.fit.ec50, doses.ec50)) + guess
        response[1:] = [ec50, number(doses.fit.hill, 3), number(doses.fit.r_squared, 3)]
    return [one.plate, one.column, *figures, *response]


def _figure(figure: Figure) -> str:
    return number(figure.value, 3) + _interval(figure.interval)


def _interval(interval: Interval) -> str:
    low, high = interval
    return "" if math.isnan(low) else f" ({number(low, 3)} to {number(high, 3)})"


def _curves(told: Told, one: PlateAssay) -> Iterator[Drawing]:
    """The dose response of a plate, if it has doses."""
    if one.doses is None:
        return
    wells = told.results.wells([one.column], one.statistic)  # type: ignore[arg-type]
    if wells["plate"].notna().any():
        wells = wells[wells["plate"] == one.plate]
    dose = np.array([float(d) if _is_number(d) else math.nan for d in wells[one.doses.fact]])
    response = wells[one.column].to_numpy(np.float64)
    fit = one.doses.fit
    shown = Response(
        dose,
        response,
        np.array(one.doses.doses),
        np.array(one.doses.medians),
        None if fit is None else fit.at,
        math.nan if fit is None else fit.ec50,
    )
    axis = Axis(f"{one.plate}: dose response", f"{one.doses.fact} (unit as given)", words(one.column))
    yield dose_response(shown, axis)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
