"""One table of all results of a sweep, a row for each point that is over: done, or failed for good.

Columns: number, id, name, state; each parameter by its key (of points that do not set it, the base config's value);
`score.<metric>`; `cost.<what>`; `fact.<what>`; failures, deaths, error. Values that are no numbers, words or truth
values, or that differ in type from row to row, are written as JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from slidebatch.errors import ResultsError
from slidebatch.store import write_atomically
from slidebatch.sweep.folder import Sweep, open_sweep
from slidebatch.sweep.ledger import Result, result_of
from slidebatch.sweep.points import kind_of

PREFERRED = ("dsb", "excluded", "held_out")
"""Metrics that a sweep is ranked by where its config names none."""

SCORE, COST, FACT = "score.", "cost.", "fact."


@dataclass(frozen=True)
class Collected:
    """The table of a sweep.

    table       a row a result, in the order of the points
    parameters  columns that tell points apart
    measure     column that points are ranked by; None: no result has metrics
    points      how many the sweep has in all
    """

    sweep: Sweep
    table: pd.DataFrame
    parameters: tuple[str, ...]
    measure: str | None
    points: int

    @property
    def done(self) -> pd.DataFrame:
        """The rows of points that are done and have the measure."""
        good = self.table[self.table["state"] == "done"]
        return good if self.measure is None else good[good[self.measure].notna()]

    @property
    def ranked(self) -> pd.DataFrame:
        """Those, best first; equal ones in the order of the points."""
        if self.measure is None:
            return self.done
        up = not self.sweep.spec.score.largest
        return self.done.sort_values([self.measure, "number"], ascending=[up, True])


def collect(folder: str | Path) -> Collected:
    """Read all results of a sweep. ResultsError: no sweep, or no result yet, or a measure that no result has."""
    sweep = open_sweep(folder)
    results = [found for p in sweep.points if (found := result_of(sweep, p)) is not None]
    if not results:
        raise ResultsError(f"{folder} has no results yet; run its points first.")
    keys = list(dict.fromkeys(key for p in sweep.points for key in p.parameters))
    defaults = _defaults(sweep, keys)
    rows = [_row(found, keys, defaults) for found in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pd.DataFrame({name: _column([row.get(name) for row in rows]) for name in columns})
    return Collected(sweep, table, tuple(keys), _measure(sweep, table), len(sweep.points))


def write_table(found: Collected) -> tuple[Path, Path]:
    """`table.parquet` and `table.csv` in the sweep's folder, each whole or the one before; their paths."""
    packed = io.BytesIO()
    found.table.to_parquet(packed, index=False)
    folder = found.sweep.folder
    write_atomically(folder / "table.parquet", packed.getvalue())
    write_atomically(folder / "table.csv", found.table.to_csv(index=False).encode())
    return folder / "table.parquet", folder / "table.csv"


def _row(found: Result, keys: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: found[name] for name in ("number", "id", "name", "state")}
    row |= {key: found["parameters"].get(key, defaults[key]) for key in keys}
    row |= {SCORE + name: value for name, value in found["metrics"].items()}
    row |= {COST + name: value for name, value in found["cost"].items()}
    row |= {FACT + name: value for name, value in found["facts"].items()}
    return row | {"failures": len(found["failures"]), "deaths": found["deaths"], "error": found.get("error", "")}


def _defaults(sweep: Sweep, keys: Sequence[str]) -> dict[str, Any]:
    """The base config's value of each parameter, defaults filled in; None where it has none."""
    values: Any = sweep.base
    if sweep.spec.kind != "call":
        output = "" if sweep.spec.kind == "train" else {**sweep.base.get("output", {}), "path": ""}
        told = json.dumps({**sweep.base, "output": output})
        values = kind_of(sweep.spec.kind).model_validate_json(told).model_dump(mode="json")
    return {key: _at(values, key.split(".")) for key in keys}


def _at(values: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _column(values: Sequence[Any]) -> pd.Series[Any]:
    """Values of one column in one type."""
    kinds = {"text" if isinstance(v, str) else type(v).__name__ for v in values if v is not None}
    if kinds <= {"int", "float"}:
        whole = "float" not in kinds and None not in values and kinds
        return pd.Series(values, dtype="int64" if whole else "float64")
    if len(kinds) == 1 and kinds <= {"text", "bool"} and None not in values:
        return pd.Series(values)
    if kinds == {"text"}:
        return pd.Series(values, dtype="str")
    return pd.Series([json.dumps(v) for v in values])


def _measure(sweep: Sweep, table: pd.DataFrame) -> str | None:
    there = [name for name in table.columns if name.startswith(SCORE) and table[name].notna().any()]
    asked = sweep.spec.score.measure
    if asked is not None and there and SCORE + asked not in there:
        names = ", ".join(name.removeprefix(SCORE) for name in there)
        raise ResultsError(f"score.measure: no result has {asked}; there are {names}.")
    wanted = [SCORE + name for name in ((asked,) if asked else PREFERRED)]
    return next((name for name in (*wanted, *there) if name in there), None)
