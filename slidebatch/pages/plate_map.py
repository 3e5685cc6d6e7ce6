"""A plate as a heat map: one square a well, coloured by viridis, its numbers where the mouse rests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slidebatch.pages.blocks import Drawing, number
from slidebatch.pages.charts import shades
from slidebatch.pages.page import filled

FORMATS = ((2, 3), (4, 6), (8, 12), (16, 24), (32, 48))
"""Rows and columns of the plates of 6, 24, 96, 384 and 1536 wells."""

LEFT, TOP = 36, 44
SHADES = 64
EMPTY, FAILED = "#f4f4f4", "#ffffff"


@dataclass(frozen=True)
class Well:
    """A well of a plate.

    row, column  as "A", "AB" and "1", "01"
    value        NaN: nothing was measured
    more         further words for the mouse
    """

    row: str
    column: str
    value: float
    more: str = ""
    failed: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """(y, x), counted from 0."""
        return row_number(self.row), int(self.column) - 1

    @property
    def name(self) -> str:
        return f"{self.row}{self.column}"


def row_number(name: str) -> int:
    """The place of a row, from 0.

    >>> row_number("A"), row_number("h"), row_number("AA")
    (0, 7, 26)
    """
    found = 0
    for letter in name.upper():
        found = found * 26 + ord(letter) - 64
    return found - 1


def row_name(place: int) -> str:
    """The name of a row by its place from 0: the other way round."""
    return (row_name(place // 26 - 1) if place >= 26 else "") + chr(65 + place % 26)


def plate_format(wells: Sequence[Well]) -> tuple[int, int]:
    """Rows and columns of the smallest usual plate that has all these wells; (0, 0) for none."""
    if not wells:
        return 0, 0
    y, x = (max(ends) + 1 for ends in zip(*(well.place for well in wells), strict=True))
    return next(((r, c) for r, c in FORMATS if r >= y and c >= x), (y, x))


def span(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and largest of the numbers there are; NaN without any."""
    known = [v for v in values if math.isfinite(v)]
    return (min(known), max(known)) if known else (math.nan, math.nan)


@dataclass(frozen=True)
class Scale:
    """What a heat map shows: its title, the unit of its numbers, and the values of its first and last colour."""

    title: str
    unit: str
    low: float
    high: float


def plate_map(wells: Sequence[Well], scale: Scale) -> Drawing:
    """The heat map of a plate. Places without a well are pale, failed wells are crossed out."""
    rows, columns = plate_format(wells)
    cell = 26 if columns <= 12 else 15 if columns <= 24 else 9
    colours = shades(SHADES)
    there = {well.place: well for well in wells}
    cells = [_cell((y, x), there.get((y, x)), scale, colours) for y in range(rows) for x in range(columns)]
    shown: dict[str, Any] = {
        "title": scale.title,
        "unit": scale.unit,
        "left": LEFT,
        "top": TOP,
        "cell": cell,
        "rows": [row_name(y) for y in range(rows)],
        "columns": [str(x + 1) for x in range(columns)],
        "every": 1 if cell > 20 else 2 if cell > 10 else 4,
        "cells": cells,
        "legend": colours[::2] if columns < 8 else colours,
        "low": number(scale.low),
        "high": number(scale.high),
        "bottom": TOP + rows * cell + 8,
        "width": LEFT + max(columns * cell, 64 * 4 + 90) + 4,
        "height": TOP + rows * cell + 34,
    }
    return Drawing(filled("plate.svg", map=shown))


def _cell(place: tuple[int, int], well: Well | None, scale: Scale, colours: Sequence[str]) -> Mapping[str, Any]:
    y, x = place
    shown = {"y": y, "x": x, "name": "" if well is None else well.name, "failed": False, "hollow": True, "fill": EMPTY}
    if well is None:
        return {**shown, "told": f"{row_name(y)}{x + 1}: not in this run"}
    if well.failed:
        return {**shown, "told": f"{well.name}: failed", "failed": True, "fill": FAILED}
    if not math.isfinite(well.value):
        return {**shown, "told": f"{well.name}: no nuclei{well.more}"}
    wide = scale.high - scale.low
    share = (well.value - scale.low) / wide if wide > 0 else 0.5
    fill = colours[min(len(colours) - 1, max(0, int(share * len(colours))))]
    told = f"{well.name}: {number(well.value)} {scale.unit}{well.more}"
    return {**shown, "told": told, "fill": fill, "hollow": False}
