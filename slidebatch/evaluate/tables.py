"""Small text files beside images: tables with a column `id`, and lists of ids."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slidebatch.errors import ConfigError

Shape = tuple[int, int]


@dataclass(frozen=True)
class Column:
    """One column of a tab-separated table whose column `id` names images; no name: see `read_column`."""

    path: Path
    name: str | None = None


def read_column(column: Column, default: str) -> dict[str, str]:
    """The column's values by id.

    A column without a name is `default` where the table has that, else the only one besides `id`.
    :raises ConfigError: no such file, no column `id`, no such column, or several to choose from.
    """
    names, rows = _read(column.path)
    others = [n for n in names if n != "id"]
    fallback = default if default in others else (others[0] if len(others) == 1 else default)
    name = column.name or fallback
    if name not in others:
        raise ConfigError(
            f"{column.path} has no column {name}; it has {', '.join(others) or 'none besides id'}: name one of these."
        )
    if short := [row["id"] for row in rows if row[name] is None]:
        raise ConfigError(
            f"{column.path} has no {name} for {few(short)}; every row needs all columns, with tabs between."
        )
    return {row["id"]: row[name] for row in rows}


def read_shapes(path: Path) -> dict[str, Shape]:
    """Shapes (Y, X) by id, from the columns `height` and `width`. ConfigError where these are missing or no numbers."""
    names, rows = _read(path)
    if not {"height", "width"} <= set(names):
        raise ConfigError(f"{path} has columns {', '.join(names)}; shapes need height and width.")
    try:
        return {row["id"]: (int(row["height"]), int(row["width"])) for row in rows}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: height and width must be whole numbers ({error}).") from error


def read_ids(path: Path) -> list[str]:
    """The distinct ids of a text file, one a line, sorted. ConfigError: no such file, or an empty one."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; a subset is a text file of ids, one a line.")
    try:
        ids = sorted({line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()} - {""})
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text ({error}); a subset is a text file of ids, one a line.") from error
    if not ids:
        raise ConfigError(f"{path} names no ids; a subset is a text file of ids, one a line.")
    return ids


def of_all(values: dict[str, str], ids: Iterable[str], path: Path) -> dict[str, str]:
    """The values of the given ids. ConfigError that names ids which the table lacks."""
    lacking = [i for i in ids if i not in values]
    if lacking:
        raise ConfigError(f"{path} lacks {few(lacking)}; it must name every image.")
    return {i: values[i] for i in ids}


def few(names: Iterable[str]) -> str:
    """A list of names for a sentence: the first few, and how many there are.

    >>> few(["a", "b"]), few("abcde")
    ('2 images (a, b)', '5 images (a, b, c, ...)')
    """
    every = list(names)
    shown = ", ".join(every[:3]) + (", ..." if len(every) > 3 else "")
    return f"{len(every)} image{'s' if len(every) != 1 else ''} ({shown})"


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; name a tab-separated table with the column id.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{path} is no text table ({error}); name a tab-separated table with the column id."
        ) from error
    names = list(reader.fieldnames or [])
    if "id" not in names:
        raise ConfigError(f"{path} has columns {', '.join(names)}; it must have a column id, separated by tabs.")
    ids = Counter(row["id"] for row in rows)
    if twice := [i for i, count in ids.items() if count > 1]:
        raise ConfigError(f"{path} names {few(twice)} more than once; give each id one row.")
    return names, rows
