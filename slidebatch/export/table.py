"""The table of nuclei as CSV (RFC 4180): a row per nucleus, of all slides in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from slidebatch.export.nuclei import batches
from slidebatch.export.wish import Wish
from slidebatch.results import Results


def write(results: Results, slides: tuple[str, ...], wish: Wish, path: Path) -> None:
    """Write some slides' tables, in their order. ResultsError for a column that is not there."""
    whole = results.dataset()
    results.instances(columns=wish.columns, where=("label", "==", 0))  # says what is wrong with the columns
    names = list(wish.columns) if wish.columns is not None else whole.schema.names
    schema = pa.schema([whole.schema.field(name) for name in names])
    with csv.CSVWriter(str(path), schema, write_options=csv.WriteOptions(quoting_style="needed")) as writer:
        for slide in slides:
            told = results.entry(slide)
            for table in batches(results, slide, names):
                writer.write(_blanked(_whole(table, schema, told)))


def _whole(table: pa.Table, schema: pa.Schema, told: dict[str, Any]) -> pa.Table:
    """With the columns of other slides, and what is known of this one from the manifest."""
    rows = table.num_rows
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.repeat(pa.scalar(told.get(field.name), field.type), rows)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _blanked(table: pa.Table) -> pa.Table:
    """With nothing in the place of what is no number: the word nan is text to many readers."""
    columns = [pc.if_else(pc.is_nan(c), None, c) if pa.types.is_floating(c.type) else c for c in table.columns]
    return pa.table(columns, schema=table.schema)
