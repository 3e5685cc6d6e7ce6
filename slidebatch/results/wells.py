"""Wells: one row each, with the facts of the plate and a statistic of every measurement over the well's nuclei."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from slidebatch.results.manifest import Entry

if TYPE_CHECKING:
    import pandas as pd

Statistic = Literal["median", "mean", "std", "min", "max"]

NOT_MEASURED = ("label", "y", "x", "y0", "x0", "y1", "x1", "member", "votes")
"""Numbers of the table that say where and which, not what."""


def grouped(entries: Sequence[Entry]) -> dict[tuple[Any, str], list[Entry]]:
    """The fields of each well by (plate, well), in the run's order; what is on no plate is left out."""
    wells: dict[tuple[Any, str], list[Entry]] = {}
    for entry in entries:
        if entry.get("well") is not None:
            wells.setdefault((entry.get("plate"), entry["well"]), []).append(entry)
    return wells


def table_of(
    entries: Sequence[Entry],
    nuclei_of: Callable[[Sequence[Entry]], pd.DataFrame],
    statistic: Statistic,
) -> pd.DataFrame:
    """One row per well of `entries`: place, fields, nuclei, facts, then the statistic of every number of `nuclei_of`.

    A well is read at a time. Facts are those on which all its fields agree, numbers where all wells' are. A well
    without nuclei has NaN for every measurement.
    """
    import pandas as pd

    rows = []
    for fields in grouped(entries).values():
        nuclei = nuclei_of(fields)
        numbers = nuclei.select_dtypes("number")
        values = numbers.drop(columns=[n for n in NOT_MEASURED if n in numbers])
        first = fields[0]
        place = {name: first.get(name) for name in ("plate", "row", "column", "well")}
        measured: dict[Any, Any] = values.agg(statistic).to_dict() if len(values.columns) else {}
        rows.append({**place, "fields": len(fields), "nuclei": len(nuclei), **_facts(fields), **measured})
    return _with_numbers(pd.DataFrame(rows), {name for entry in entries for name in entry.get("facts") or {}})


def _facts(fields: Sequence[Entry]) -> dict[str, Any]:
    """The facts on which all fields of a well agree; None where they do not."""
    names = dict.fromkeys(name for entry in fields for name in entry.get("facts") or {})
    told = {name: {(entry.get("facts") or {}).get(name) for entry in fields} for name in names}
    return {name: values.pop() if len(values) == 1 else None for name, values in told.items()}


def _with_numbers(table: pd.DataFrame, names: set[str]) -> pd.DataFrame:
    """Facts are text in files; columns of which every value that is there is a number become numbers."""
    import pandas as pd

    for name in names & set(table.columns):
        numbers = pd.to_numeric(table[name].replace("", None), errors="coerce")
        if (numbers.notna() == (table[name].notna() & (table[name] != ""))).all():
            table[name] = numbers
    return table
