"""Plates as heat maps, and whether wells at a plate's edge differ from those inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slidebatch.pages import Drawing, Gallery, Section, Table, Text, number
from slidebatch.pages.charts import Axis, points
from slidebatch.pages.plate_map import Scale, Well, plate_format, plate_map, span
from slidebatch.report.told import Told, words

if TYPE_CHECKING:
    import pandas as pd

MOST_PLATES = 6
MOST_CHANNELS = 4
RINGS = ("edge", "second", "third", "further in")
COUNT, PER_FIELD = "nuclei", "nuclei per field"


def plates(told: Told) -> list[Section]:
    """For each plate its heat maps, and a comparison of its edge with its inside; nothing for slides."""
    failed = _failed_wells(told)
    if not failed and not any(_on_plate(e) for e in told.done):
        return []
    wells = _wells(told)
    measures = _measures(told, wells)
    names = list(dict.fromkeys([*wells["plate"], *(e.get("plate") for e in failed)])) if len(wells) else []
    scales = {name: span(wells[name].tolist()) for name in measures}
    made = []
    for plate in names[:MOST_PLATES]:
        here = [e for e in failed if e.get("plate") == plate]
        rows = wells[wells["plate"] == plate] if plate is not None else wells[wells["plate"].isna()]
        maps = [_map(rows, here, name, scales[name]) for name in measures]
        of = f" {plate}" if plate else ""
        made.append(Section(f"Plate{of}", [Text(_explained(measures)), Gallery(maps)]))
        made.append(_edge(of, rows, measures))
    if len(names) > MOST_PLATES:
        made[-1] = Section(made[-1].title, [*made[-1].blocks, Text(f"{len(names) - MOST_PLATES} plates more follow.")])
    return made


def _explained(measures: Sequence[str]) -> str:
    return (
        "A square is a well; its numbers appear where the mouse rests. All but counts are medians over the well's "
        "nuclei. Colours mean the same on all plates of this run."
    )


def _on_plate(entry: dict[str, Any]) -> bool:
    return str(entry.get("row") or "").isalpha() and str(entry.get("column") or "").isdigit()


def _failed_wells(told: Told) -> list[dict[str, Any]]:
    return [e for e in told.results.manifest["slides"] if e["state"] == "failed" and _on_plate(e)]


def _measures(told: Told, wells: pd.DataFrame) -> list[str]:
    """What is shown of a plate: count, area, means of channels, and the assay's readout."""
    count = PER_FIELD if PER_FIELD in wells else COUNT
    readout = [told.assay.column] if told.assay.column in told.columns else []
    return list(dict.fromkeys([count, *_columns(told), *readout]))


def _columns(told: Told) -> list[str]:
    return [told.area, *told.measured("mean_")[:MOST_CHANNELS]]


def _wells(told: Told) -> pd.DataFrame:
    """The wells of `Results.wells`; with nuclei per field where wells have different numbers of fields."""
    readout = [told.assay.column] if told.assay.column in told.columns else []
    wells = told.results.wells(list(dict.fromkeys([*_columns(told), *readout])) if told.done else [])
    if len(wells) and wells["fields"].nunique() > 1:
        wells[PER_FIELD] = wells[COUNT] / wells["fields"]
    return wells


def _map(rows: pd.DataFrame, failed: Sequence[dict[str, Any]], name: str, scale: tuple[float, float]) -> Drawing:
    wells = _placed(rows, name)
    there = {well.name for well in wells}
    wells += [Well(e["row"], e["column"], float("nan"), failed=True) for e in failed if _name(e) not in there]
    title, unit = _said(name)
    return plate_map(wells, Scale(title, unit, *scale))


def _name(entry: dict[str, Any]) -> str:
    return f"{entry['row']}{entry['column']}"


def _said(name: str) -> tuple[str, str]:
    """Title and unit of a measure."""
    if name in (COUNT, PER_FIELD):
        return PER_FIELD if name == PER_FIELD else "nuclei per well", "nuclei"
    text, _, unit = words(name).partition(" (")
    return f"median of {text}" if name.startswith("mean_") else f"median {text}", unit.removesuffix(")")


def _placed(rows: pd.DataFrame, name: str) -> list[Well]:
    """The wells of a plate with their values of a measure; their facts are for the mouse."""
    shown = [c for c in rows.columns if c not in ("plate", "row", "column", "well", "fields", COUNT, PER_FIELD)]
    facts = [c for c in shown if not c.startswith(("mean_", "area", "nucleus_to_ring_")) and c != name]
    return [
        Well(row["row"], row["column"], float(row[name]), _facts({fact: row[fact] for fact in facts}))
        for row in rows.to_dict("records")
        if _on_plate({str(k): v for k, v in row.items()})
    ]


def _facts(facts: dict[str, Any]) -> str:
    told = {k: number(v) if isinstance(v, int | float) else str(v) for k, v in facts.items() if v is not None}
    return "".join(f"; {k} {v}" for k, v in told.items() if v != "")


def _edge(of: str, rows: pd.DataFrame, measures: Sequence[str]) -> Section:
    """Wells by their distance from the edge of the plate, and medians at the edge over those inside."""
    title = f"Edge effect{of}"
    wells = {name: _placed(rows, name) for name in measures}
    any_of = next(iter(wells.values()))
    rings = np.array([_ring(well, plate_format(any_of)) for well in any_of])
    if len(set((rings > 0).tolist())) < 2:
        return Section(title, [Text("All wells lie on one side: at the edge of the plate, or inside.")])
    table, drawings = [], []
    for name in measures:
        values = np.array([well.value for well in wells[name]])
        groups = {RINGS[ring]: values[rings == ring] for ring in sorted(set(rings.tolist()))}
        said, unit = _said(name)
        drawings.append(points(groups, Axis(said, "wells from the plate's edge", unit)))
        outer, inner = (_median(values[side]) for side in (rings == 0, rings > 0))
        table.append([f"{said} ({unit})", number(outer), number(inner), number(outer / inner if inner else None, 3)])
    text = (
        "Each dot is a well, each bar a median. Wells that were treated differently differ for that reason too: "
        "compare only where treatments are spread over the plate."
    )
    heads = ("measure", "median at the edge", "median inside", "edge / inside")
    return Section(title, [Text(text), Table(heads, table), Gallery(drawings)])


def _ring(well: Well, shape: tuple[int, int]) -> int:
    """How far a well lies from the edge: 0 at it, 3 for all further in."""
    y, x = well.place
    return min(y, x, shape[0] - 1 - y, shape[1] - 1 - x, len(RINGS) - 1)


def _median(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
