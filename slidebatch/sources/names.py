"""Names that sort and travel: natural order, rows and columns of plates, path-safe unique ids."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

DOUBLE = (".ome.tiff", ".ome.tif", ".ome.btf", ".ome.tf8", ".ome.zarr")
RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that counts: "f2" before "f10"; the text itself settles ties."""
    parts = re.split(r"(\d+)", text)
    return (*((0, int(p), "") if p.isdigit() else (1, 0, p.lower()) for p in parts if p), (2, 0, text))


def row_letters(text: str) -> str:
    """The row as letters: "a" -> "A", "1" -> "A", "27" -> "AA"."""
    if not text.isdigit():
        return text.upper()
    number, letters = int(text), ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters or text


def column_digits(text: str) -> str:
    """The column as at least two digits: "1" -> "01"."""
    return f"{int(text):02d}" if text.isdigit() else text


def split_well(text: str) -> tuple[str, str] | None:
    """Row and column of a well's name ("a1" -> "A", "01"); None where it is none."""
    found = re.fullmatch(r"\s*([A-Za-z]{1,2})[\s_-]*(\d{1,3})\s*", text)
    return None if found is None else (found.group(1).upper(), column_digits(found.group(2)))


def row_number(row: str) -> int:
    """A sort key of rows: A..Z before AA."""
    number = 0
    for letter in row:
        number = number * 26 + ord(letter) - 64
    return number


def stem(path: str) -> str:
    """A file's name without its ending, `.ome.tif` and the like taken as one."""
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    for ending in DOUBLE:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name.rsplit(".", 1)[0] if "." in name.lstrip(".") else name


def safe(text: str) -> str:
    """Text as a file name that every system takes: letters, digits, dot, dash, underscore."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:120] or "slide"
    return f"{cleaned}_" if cleaned.split(".")[0].lower() in RESERVED else cleaned


def unique(ids: Sequence[str], origins: Sequence[str]) -> list[str]:
    """Ids made unique, whatever the case of their letters: all that collide get a digest of their origin.

    The digest depends on the origin alone (a path relative to the input's root), never on the order.
    """
    count = Counter(one.lower() for one in ids)
    short = [
        _marked(one, origin, 8) if count[one.lower()] > 1 else one for one, origin in zip(ids, origins, strict=True)
    ]
    if len({one.lower() for one in short}) == len(short):
        return short
    return [_marked(one, origin, 32) for one, origin in zip(ids, origins, strict=True)]


def apart(ids: Sequence[str], origins: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Ids that are neither each other's nor among the `taken` ones: those that are get a digest of their origin."""
    count = Counter([*(one.lower() for one in ids), *(one.lower() for one in taken)])
    return [
        _marked(one, origin, 8) if count[one.lower()] > 1 else one for one, origin in zip(ids, origins, strict=True)
    ]


def _marked(one: str, origin: str, digits: int) -> str:
    return f"{one}-{hashlib.sha256(origin.encode()).hexdigest()[:digits]}"
