"""The table of nuclei as CSV (RFC 4180): a row per nucleus, of all slides in one file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import csv

from slidebatch.export.nuclei import BATCH_ROWS
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
            one = whole.filter(ds.field("slide") == slide)
            for batch in one.to_batches(columns=names, batch_size=BATCH_ROWS, batch_readahead=1):
                writer.write(_blanked(pa.Table.from_batches([batch]).cast(schema)))


def _blanked(table: pa.Table) -> pa.Table:
    """With nothing in the place of what is no number: the word nan is text to many readers."""
    columns = [pc.if_else(pc.is_nan(c), None, c) if pa.types.is_floating(c.type) else c for c in table.columns]
    return pa.table(columns, schema=table.schema)
