"""Regions of a slide, as people draw them: polygons in GeoJSON as QuPath writes it.

Frame: level-0 pixels where pixel i covers [i, i + 1), so a pixel's centre lies at i + 0.5 (as in QuPath).
GeoJSON writes places as (x, y); everything that leaves this module is (y, x). Format: RFC 7946, with pixels
for degrees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import shape as to_geometry
from shapely.geometry.base import BaseGeometry

from slidebatch.errors import ConfigError

AREAS = ("Polygon", "MultiPolygon")
WRAPPERS = {"FeatureCollection": "features", "GeometryCollection": "geometries"}


@dataclass(frozen=True)
class Regions:
    """The union of all polygons of a file, in level-0 pixels; `count` is how many the file held."""

    path: str
    area: BaseGeometry
    count: int


def read_regions(path: str | Path) -> Regions:
    """Read polygons with their holes from a FeatureCollection, a list of features, or a single geometry.

    Overlapping polygons count once. ConfigError where the file is missing or broken, holds something that has
    no area (a point, a line), or holds no polygon at all.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as fault:
        raise ConfigError(f"regions file {path}: {fault.strerror}; expected GeoJSON; check input.regions") from fault
    except ValueError as fault:
        raise ConfigError(f"regions file {path} is not JSON ({fault}); export it again as GeoJSON") from fault
    polygons = [_polygon(geometry, path) for geometry in _geometries(content, path)]
    if not polygons:
        raise ConfigError(f"regions file {path} holds no polygon, expected at least one; draw one or leave it out")
    area = shapely.union_all(polygons)
    shapely.prepare(area)
    return Regions(str(path), area, len(polygons))


def _geometries(content: Any, path: str | Path) -> Iterator[dict[str, Any]]:
    """All geometries inside whatever GeoJSON allows at the top."""
    if isinstance(content, list):
        for item in content:
            yield from _geometries(item, path)
        return
    kind = content.get("type") if isinstance(content, dict) else None
    if kind in WRAPPERS:
        yield from _geometries(_member(content, WRAPPERS[kind], list, path), path)
    elif kind == "Feature":
        yield from _geometries(_member(content, "geometry", dict, path), path)
    elif kind in AREAS:
        yield content
    else:
        what = kind or type(content).__name__
        raise ConfigError(f"regions file {path} holds a {what}, expected {' or '.join(AREAS)}; export areas only")


def _member(content: dict[str, Any], key: str, kind: type, path: str | Path) -> Any:
    found = content.get(key)
    if not isinstance(found, kind):
        raise ConfigError(f"regions file {path}: a {content['type']} without {key}; export it again as GeoJSON")
    return found


def _polygon(geometry: dict[str, Any], path: str | Path) -> BaseGeometry:
    try:
        polygon = to_geometry(geometry)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        shapely.errors.ShapelyError,
    ) as fault:
        raise ConfigError(
            f"regions file {path}: a {geometry['type']} cannot be read ({fault}); "
            "expected rings of at least four (x, y) places; export it again"
        ) from fault
    # Outlines drawn by hand cross themselves; what they enclose is meant.
    polygon = polygon if polygon.is_valid else shapely.make_valid(polygon)
    if polygon.is_empty or polygon.area == 0:
        raise ConfigError(f"regions file {path} holds a polygon without area; draw it again or remove it")
    return polygon


def inside(regions: Regions, y: npt.ArrayLike, x: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which places (y, x) in level-0 pixels (N,) lie in the regions, their outlines included: bool (N,)."""
    found = shapely.intersects_xy(regions.area, np.asarray(x, np.float64), np.asarray(y, np.float64))
    return np.asarray(found, bool)


def region_mask(regions: Regions, shape: tuple[int, int], step_px: float) -> npt.NDArray[np.bool_]:
    """The regions on a grid of `step_px` level-0 pixels, by the centres of its pixels: bool (y, x)."""
    mask = np.zeros(shape, bool)
    x0, y0, x1, y1 = regions.area.bounds
    rows, columns = _span(y0, y1, step_px, shape[0]), _span(x0, x1, step_px, shape[1])
    y, x = np.meshgrid(
        (np.arange(shape[0])[rows] + 0.5) * step_px,
        (np.arange(shape[1])[columns] + 0.5) * step_px,
        indexing="ij",
    )
    mask[rows, columns] = inside(regions, y, x)
    return mask


def _span(low: float, high: float, step_px: float, size: int) -> slice:
    """Grid pixels that a stretch may touch: only those are asked for one by one."""
    first = min(max(0, int(low // step_px)), size)
    return slice(first, min(size, max(first, int(high // step_px) + 1)))
