"""Laws of regions: polygons in, the same places out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from slidebatch.errors import ConfigError
from slidebatch.regions import inside, read_regions, region_mask

SQUARE = [[10, 20], [50, 20], [50, 60], [10, 60], [10, 20]]
HOLE = [[20, 30], [30, 30], [30, 40], [20, 40], [20, 30]]
FAR = [[100, 100], [120, 100], [120, 110], [100, 110], [100, 100]]


def feature(geometry: dict[str, Any]) -> dict[str, Any]:
    properties = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}
    return {"type": "Feature", "id": "9f0c", "geometry": geometry, "properties": properties}


def polygon(*rings: list[Any]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def written(folder: Path, content: Any) -> Path:
    path = folder / "regions.geojson"
    path.write_text(json.dumps(content))
    return path


FORMS = {
    "collection": {"type": "FeatureCollection", "features": [feature(polygon(SQUARE, HOLE)), feature(polygon(FAR))]},
    "list": [feature(polygon(SQUARE, HOLE)), feature(polygon(FAR))],
    "multi": {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [FAR]]},
    "geometries": {"type": "GeometryCollection", "geometries": [polygon(SQUARE, HOLE), polygon(FAR)]},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_names_the_same_places(tmp_path: Path, form: str) -> None:
    """A collection, a list of features and a single geometry with the same polygons mean the same places."""
    regions = read_regions(written(tmp_path, FORMS[form]))
    y = [25, 35, 35, 105, 105, 5]
    x = [15, 25, 45, 110, 15, 5]
    assert inside(regions, y, x).tolist() == [True, False, True, True, False, False]


def test_places_are_x_first_in_the_file_and_y_first_here(tmp_path: Path) -> None:
    """A GeoJSON place is (x, y): a flat wide box is flat and wide in the (y, x) mask."""
    wide = [[0, 0], [80, 0], [80, 10], [0, 10], [0, 0]]
    mask = region_mask(read_regions(written(tmp_path, polygon(wide))), (100, 100), 1.0)
    assert mask[:10, :80].all()
    assert mask.sum() == 800


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corners=st.lists(st.tuples(st.integers(-20, 150), st.integers(-20, 150)), min_size=3, max_size=8, unique=True),
    step=st.sampled_from([1.0, 2.5, 7.0]),
)  # fmt: skip
def test_the_mask_asks_at_pixel_centres(tmp_path: Path, corners: list[tuple[int, int]], step: float) -> None:
    """The mask of any polygon, crossing itself or not, equals `inside` at the centre of every grid pixel."""
    ring = [list(c) for c in [*corners, corners[0]]]
    assume(shapely.make_valid(shapely.Polygon(ring)).area > 0)
    regions = read_regions(written(tmp_path, polygon(ring)))
    shape = (int(110 / step), int(90 / step))
    y, x = np.mgrid[: shape[0], : shape[1]]
    assert np.array_equal(region_mask(regions, shape, step), inside(regions, (y + 0.5) * step, (x + 0.5) * step))


def test_no_places_give_no_answers(tmp_path: Path) -> None:
    """Empty in, empty out."""
    regions = read_regions(written(tmp_path, polygon(SQUARE)))
    assert inside(regions, np.zeros(0), np.zeros(0)).shape == (0,)
    assert region_mask(regions, (0, 0), 1.0).shape == (0, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"type": "FeatureCollection", "features": []}, "no polygon"),
        ({"type": "FeatureCollection"}, "without features"),
        (feature({"type": "Point", "coordinates": [1, 2]}), "holds a Point"),
        ({"type": "Feature", "geometry": None}, "without geometry"),
        (polygon([[0, 0], [1, 1]]), "cannot be read"),
        (polygon([["a", 0], [1, 1], [2, 2], ["a", 0]]), "cannot be read"),
        ({"type": "Polygon"}, "cannot be read"),
        (polygon([[0, 0], [5, 5], [9, 9], [0, 0]]), "without area"),
        ({"polygons": []}, "holds a dict"),
        (17, "holds a int"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: Any, words: str) -> None:
    """A file that names no area is refused in a sentence with its name."""
    path = written(tmp_path, content)
    with pytest.raises(ConfigError, match=words) as refused:
        read_regions(path)
    assert str(path) in str(refused.value)


def test_text_that_is_no_json_and_no_file_are_named(tmp_path: Path) -> None:
    """Neither a text file nor a missing file passes for regions."""
    (tmp_path / "a.geojson").write_text("polygon")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_regions(tmp_path / "a.geojson")
    with pytest.raises(ConfigError, match="No such file"):
        read_regions(tmp_path / "b.geojson")
