"""GeoJSON as QuPath reads and writes it: a FeatureCollection of detections or annotations, streamed.

Coordinates are [x, y] in level-0 pixels along pixel edges: the slide's corner is (0, 0). Rings around pixels go
counterclockwise in the sense of RFC 7946, those around holes the other way; a nucleus in several pieces is a
MultiPolygon. Measurements that are not numbers are left out, for JSON has none. Sources: RFC 7946; QuPath's
documentation, "Exporting annotations".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson

from slidebatch.errors import ResultsError
from slidebatch.export.nuclei import Part, parts
from slidebatch.export.polygons import polygons
from slidebatch.export.wish import Wish
from slidebatch.outlines import Rings, simple, trace
from slidebatch.results import Results

NOT_MEASURED = ("slide", "y", "x", "y0", "x0", "y1", "x1", "field")
"""Columns that say where, which the geometry says too."""

CLASS = {"name": "nucleus"}
DIGITS = 3
"""Of coordinates where label pixels are no whole level-0 pixels."""


def write(results: Results, slides: tuple[str, ...], wish: Wish, path: Path) -> None:
    """Write one slide. ResultsError for a column that is not there."""
    (slide,) = slides
    columns = _columns(results, slide, wish.columns)
    scale = results.entry(slide).get("scale") or 1.0
    with path.open("wb") as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        _join(
            file, (line for part in parts(results, slide, columns) for line in features(part, scale, wish.object_type))
        )
        file.write(b"\n]}\n")


def _join(file: BinaryIO, lines: Iterator[bytes]) -> None:
    between = b"\n"
    for line in lines:
        file.write(between)
        file.write(line)
        between = b",\n"


def _columns(results: Results, slide: str, asked: Sequence[str] | None) -> list[str]:
    """The measurements: those asked for, or all numbers. ResultsError for one that is not there, or is no number."""
    table = results.instances(slide, asked, ("label", "==", 0))  # no rows, but the kinds of the columns
    numbers = list(table.select_dtypes(["number", "bool"]).columns)
    if asked is None:
        return [name for name in numbers if name not in (*NOT_MEASURED, "label")]
    wrong = [name for name in asked if name not in numbers]
    if wrong:
        raise ResultsError(f"{', '.join(wrong)} holds no numbers; measurements of QuPath are numbers.")
    return [name for name in asked if name != "label"]


def features(part: Part, scale: float, object_type: str) -> Iterator[bytes]:
    """Each nucleus of a part as a GeoJSON feature."""
    window = part.window
    rings = simple(trace(window.pixels, window.label, window.box))
    drawn = _drawn(rings, window.corner, scale)
    measured = _measured(part.columns)
    for label, whole in zip(window.label.tolist(), polygons(rings, len(window.label)), strict=True):
        if not whole:
            raise ResultsError(f"nucleus {label} has a row in the table and no pixel; see slidebatch validate.")
        shapes = [[drawn[ring] for ring in polygon] for polygon in whole]
        geometry: dict[str, Any] = (
            {"type": "Polygon", "coordinates": shapes[0]}
            if len(shapes) == 1
            else {"type": "MultiPolygon", "coordinates": shapes}
        )
        properties = {"objectType": object_type, "classification": CLASS, "measurements": next(measured)}
        told = {"type": "Feature", "geometry": geometry, "properties": properties}
        yield orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)


def _drawn(rings: Rings, corner: tuple[int, int], scale: float) -> list[npt.NDArray[Any]]:
    """Each ring as closed points (K + 1, 2) of [x, y] in level-0 pixels."""
    length = np.diff(rings.start)
    last = np.cumsum(length + 1) - 1
    place = np.arange(len(rings.point) + len(rings)) - np.repeat(np.arange(len(rings)), length + 1)
    place[last] = rings.start[:-1]
    point = np.ascontiguousarray((rings.point + np.array(corner, np.int32))[place, ::-1])
    if scale != 1.0:
        whole = point / scale
        point = np.round(whole, DIGITS) if (whole % 1).any() else whole.astype(np.int32)
    return np.split(point, last[:-1] + 1) if len(rings) else []


def _measured(columns: dict[str, npt.NDArray[Any]]) -> Iterator[dict[str, Any]]:
    """The measurements of each nucleus, without those that are no numbers."""
    names = list(columns)
    values = [column.astype(np.uint8) if column.dtype == bool else column for column in columns.values()]
    known = np.all([np.isfinite(column) for column in values], axis=0)
    for complete, row in zip(known, zip(*values, strict=True), strict=True):
        told = zip(names, row, strict=True)
        yield dict(told) if complete else {name: value for name, value in told if np.isfinite(value)}
