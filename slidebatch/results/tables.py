"""Tables of nuclei as one dataset, of which only the columns and rows asked for are read.

A slide's id and its place on a plate are no columns of its file but are known from the manifest: conditions on them
pass over whole files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slidebatch.errors import ResultsError
from slidebatch.results.manifest import MISSING, Entry, meant

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as ds

PLACE_COLUMNS = ("plate", "row", "column", "well", "field")

Where = Any
"""Which rows: (column, operator, value), a list of them that all hold, a list of such lists of which one holds, or a
pyarrow.compute expression."""


def dataset(folder: Path, entries: Sequence[Entry]) -> ds.Dataset:
    """The nuclei of some finished slides as a pyarrow dataset: a file a slide, in the order of `entries`.

    Columns slide, label, those that were measured, and plate, row, column, well and field where any slide has them;
    null where a slide lacks one. ResultsError where a table is missing.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    paths = [_path(folder, entry) for entry in entries]
    # Not read ahead: of many small files one column each is wanted, and looking ahead costs more than it saves.
    scan = ds.ParquetFragmentScanOptions(pre_buffer=False)
    form, disk = ds.ParquetFileFormat(default_fragment_scan_options=scan), LocalFileSystem()
    schema = _schema(paths, entries) if entries else pa.schema([("slide", pa.string()), ("label", pa.uint32())])
    known = [{name: value for name, value in _place(entry).items() if name in schema.names} for entry in entries]
    parts = [form.make_fragment(str(p), disk, _all_equal(k)) for p, k in zip(paths, known, strict=True)]
    return ds.FileSystemDataset(parts, schema, form, disk)


def read(table: ds.Dataset, columns: Sequence[str] | None, where: Where | None) -> pd.DataFrame:
    """Some columns (None: all) and rows (None: all) as pandas. ResultsError for a column that is not there."""
    for name in columns or ():
        _known(table, name)
    names = list(columns) if columns is not None else table.schema.names
    found = table.to_table(columns=names, filter=None if where is None else expression(table, where))
    return _to_pandas(found)


def expression(table: ds.Dataset, where: Where) -> Any:
    """A condition as pyarrow has it. ResultsError for a column that is not there, or a condition that is none."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if isinstance(where, pc.Expression):
        return where
    conditions = [where] if isinstance(where, tuple) else list(where)
    try:
        flat = [c for one in conditions for c in (one if isinstance(one, list) else [one])]
        for name, _, _ in flat:
            _known(table, name)
        return pq.filters_to_expression(conditions)
    except (ValueError, TypeError) as error:
        raise ResultsError(
            f"where={where!r} is no condition ({error}); expected such as where=('area', '>', 50), or a list of them."
        ) from error


def _known(table: ds.Dataset, name: str) -> None:
    if name not in table.schema.names:
        raise ResultsError(f"the tables have no column {name!r}; {meant(str(name), table.schema.names)}?")


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(split_blocks=True, self_destruct=True)


def _path(folder: Path, entry: Entry) -> Path:
    path = folder / "instances" / f"{entry['slide']}.parquet"
    if not path.is_file():
        raise ResultsError(f"{path} is missing; expected the table of the nuclei of {entry['slide']}: {MISSING}.")
    return path


def _schema(paths: Sequence[Path], entries: Sequence[Entry]) -> pa.Schema:
    """The columns of all tables: files of the same channels have the same, so that one of each kind is looked at."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {tuple(entry.get("channels") or ()): path for path, entry in zip(paths, entries, strict=True)}
    try:
        own = pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in kinds.values()])
    except (pa.ArrowInvalid, OSError) as error:
        raise ResultsError(f"{paths[0].parent}: a table cannot be read ({error}); {MISSING}.") from error
    places = {"slide": pa.string(), **{n: pa.int64() if n == "field" else pa.string() for n in PLACE_COLUMNS}}
    there = [n for n in places if any(entry.get(n) is not None for entry in entries)]
    front = [pa.field(n, places[n]) for n in there if n == "slide"]
    back = [pa.field(n, places[n]) for n in there if n != "slide"]
    measured = [f for f in own if f.name not in there and f.name != "label"]
    return pa.schema([*front, own.field("label"), *measured, *back])


def _place(entry: Entry) -> dict[str, Any]:
    return {n: entry[n] for n in ("slide", *PLACE_COLUMNS) if entry.get(n) is not None}


def _all_equal(values: dict[str, Any]) -> Any:
    """The condition that columns have these values."""
    import pyarrow.dataset as ds

    whole: Any = None
    for name, value in values.items():
        one = ds.field(name) == value
        whole = one if whole is None else whole & one
    return whole
