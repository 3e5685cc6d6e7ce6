"""Tables beside images: manifests (a file a row) and facts (a well or an image a row)."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from slidebatch.errors import ConfigError
from slidebatch.slides.source import Source
from slidebatch.sources.names import safe, split_well, stem
from slidebatch.sources.records import OWN, Record, canonical
from slidebatch.sources.spec import Fault

ALIASES = {
    "imagenumber": "image", "col": "column", "site": "field", "fov": "field", "wellname": "well",
    "wellid": "well", "platename": "plate", "plateid": "plate", "file": "path", "filename": "path",
    "slideid": "slide", "plane": "z",
}  # fmt: skip
"""Other names of columns, in lower case without signs."""

KEYS = ("plate", "row", "column", "well", "field", "image", "slide")
"""Columns on which facts are joined."""


@dataclass(frozen=True)
class Table:
    """A CSV or TSV: its path, its columns as written, and its rows with their line numbers."""

    path: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: str, key: str) -> Table:
    """Read a table with one header line; `key` is the config's key. Blank lines are left out."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as fault:
        raise ConfigError(f"{key}: {path} cannot be read ({fault.strerror}); check the path") from fault
    except UnicodeDecodeError as fault:
        raise ConfigError(f"{key}: {path} is not UTF-8 text; save it as CSV in UTF-8") from fault
    head = text.split("\n", 1)[0]
    reader = csv.reader(text.splitlines(), delimiter=max("\t;,", key=head.count))
    header = [name.strip() for name in next(reader, [])]
    if not any(header) or len(set(header)) < len(header):
        raise ConfigError(f"{key}: {path} has no header, or two columns of one name; name each column once")
    rows = []
    for row in reader:
        if any(cell.strip() for cell in row):
            if len(row) != len(header):
                raise ConfigError(
                    f"{key}: {path}, line {reader.line_num}: {len(row)} cells, not {len(header)}; correct it"
                )
            rows.append((reader.line_num, dict(zip(header, (cell.strip() for cell in row), strict=True))))
    return Table(path, tuple(header), tuple(rows))


def meaning(column: str) -> str:
    """What a column is: one of the known names whatever its case, "Metadata_" and signs, or its own name."""
    plain = re.sub(r"[^a-z0-9]", "", column.lower().removeprefix("metadata_"))
    known = ALIASES.get(plain, plain)
    return known if known in (*OWN, "path") else column


def manifest_records(path: str) -> tuple[list[Record], list[Fault]]:
    """A record for every row of a manifest whose file is there, and a fault for every other row.

    Paths are relative to the manifest. A row that names neither slide nor well is a slide called as its file.
    """
    table = read_table(path, "input.manifest")
    names = {column: meaning(column) for column in table.columns}
    if "path" not in names.values():
        raise ConfigError(f"input.manifest: {path} has no column path, found {', '.join(names)}; add it")
    records, faults = [], []
    for line, row in table.rows:
        fields = canonical({names[column]: text for column, text in row.items()})
        given = next(text for column, text in row.items() if names[column] == "path")
        file = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(given)))
        wrong = fields if isinstance(fields, str) else _no_file(given, file)
        if wrong or isinstance(fields, str):
            faults.append(Fault(safe(stem(given) or f"line_{line}"), (file,), f"{path}, line {line}: {wrong}"))
            continue
        if not any(name in fields for name in ("slide", "row", "column", "field", "image")):
            fields["slide"] = stem(given)
        records.append(Record(file, given, {k: v for k, v in fields.items() if k != "path"}))
    return records, faults


def _no_file(given: str, file: str) -> str | None:
    if not given:
        return "the path is empty; give a file"
    return None if os.path.exists(file) else f"{given} does not exist; restore the file or remove the line"


def join_facts(sources: Sequence[Source], path: str) -> tuple[Source, ...]:
    """Sources with the further columns of a table, joined on its columns that name a place.

    A source without a row keeps the facts it has. ConfigError where no column fits, where two rows for one
    place disagree, or where no row fits any source.
    """
    table = read_table(path, "input.facts")
    places = [_places(source) for source in sources]
    keys = {c: meaning(c) for c in table.columns if meaning(c) in KEYS and any(meaning(c) in p for p in places)}
    if not keys:
        raise ConfigError(
            f"input.facts: no column of {path} ({', '.join(table.columns)}) names a place of the images; "
            f"expected some of {', '.join(KEYS)}"
        )
    facts = _facts_by_place(table, keys)
    joined = [facts.get(tuple(place.get(name) for name in keys.values())) for place in places]
    if sources and not any(joined):
        raise ConfigError(f"input.facts: no row of {path} fits any image by {', '.join(keys)}; compare their values")
    return tuple(
        replace(source, facts=tuple({**dict(source.facts), **found}.items())) if found else source
        for source, found in zip(sources, joined, strict=True)
    )


def _facts_by_place(table: Table, keys: dict[str, str]) -> dict[tuple[str | None, ...], dict[str, str]]:
    facts: dict[tuple[str | None, ...], dict[str, str]] = {}
    for line, row in table.rows:
        place = tuple(_plain(name, row[column]) for column, name in keys.items())
        rest = {column: text for column, text in row.items() if column not in keys}
        if facts.setdefault(place, rest) != rest:
            raise ConfigError(
                f"input.facts: {table.path}, line {line}: a second, different row for "
                f"{', '.join(str(p) for p in place)}; keep one"
            )
    return facts


def _places(source: Source) -> dict[str, str]:
    """What a source knows of its place, by name, in plain form."""
    known = {
        "plate": source.plate, "row": source.row, "column": source.column, "well": source.well,
        "field": None if source.field is None else str(source.field),
        "image": dict(source.facts).get("image"), "slide": source.slide,
    }  # fmt: skip
    return {name: _plain(name, text) for name, text in known.items() if text is not None}


def _plain(name: str, text: str) -> str:
    """A value as both sides of a join write it."""
    if name == "well":
        place = split_well(text)
        return text if place is None else "".join(place)
    fields = canonical({name: text})
    return text if isinstance(fields, str) else fields.get(name, "")
