"""The judge of results folders finds every fault that is put in, and none where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slidebatch import validate as judge
from slidebatch.validate import Raster, regions, survey, validate
from tests.support.results_folder import Made, read_manifest, squares, table_of, write_manifest, write_results


@pytest.fixture(params=["plate", "slides", "slides without images"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A valid folder with A01 (or s1) first, and a blank slide."""
    blank = np.zeros((40, 50), np.uint32)
    if request.param == "plate":
        return write_results(tmp_path, [Made("s1", squares((70, 90)), ("A", "01")), Made("b", blank, ("B", "02"))])
    return write_results(tmp_path, [Made("s1", squares((70, 90))), Made("b", blank)], request.param == "slides")


def test_a_valid_folder_has_no_fault(folder: Path) -> None:
    """Plates, slides with images and slides without are valid as they are written."""
    assert validate(folder) == []


@pytest.mark.parametrize("scale", [0.5, 0.37])
def test_scaled_slides_are_valid(tmp_path: Path, scale: float) -> None:
    """Boxes in level-0 pixels agree with labels on a coarser grid."""
    assert validate(write_results(tmp_path, [Made("s1", squares((70, 90)))], scale=scale)) == []


def _labels(folder: Path) -> zarr.Array:
    entry = read_manifest(folder)["slides"][0]
    return zarr.open_array(str(folder / "labels.zarr" / entry["labels"] / "0"), mode="r+")


def _lose_a_nucleus(folder: Path) -> None:
    array = _labels(folder)
    array[...] = np.where(array[...] == 5, 0, array[...])


def _paint_a_stranger(folder: Path) -> None:
    _labels(folder)[69, 89] = 1000


def _lose_a_pixel(folder: Path) -> None:
    _labels(folder)[2, 2] = 0


def _edit_table(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "instances" / "s1.parquet"
        edit(pd.read_parquet(path)).to_parquet(path)

    return change


def _miscount(folder: Path) -> None:
    path = folder / "summary.parquet"
    pd.read_parquet(path).assign(nuclei=3).to_parquet(path)


def _miscount_in_manifest(folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest["slides"][0]["nuclei"] += 1
    write_manifest(folder, manifest)


def _stop_early(folder: Path) -> None:
    write_manifest(folder, {**read_manifest(folder), "state": "running"})


def _break_metadata(folder: Path) -> None:
    entry = read_manifest(folder)["slides"][0]
    group = zarr.open_group(str(folder / "labels.zarr" / entry["labels"]), mode="r+")
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0]["axes"][0]["type"] = "nonsense"
    ome["multiscales"][0]["axes"].pop()
    group.attrs["ome"] = ome


FAULTS = {
    "rows of the table have no pixel": _lose_a_nucleus,
    "labels in the raster have no row": _paint_a_stranger,
    "another area": _lose_a_pixel,
    "no row in the table: 7": _edit_table(lambda t: t[t["label"] != 7]),
    "more than one row": _edit_table(lambda t: pd.concat([t, t[t["label"] == 7]])),
    "another y1": _edit_table(lambda t: t.assign(y1=t["y1"] + (t["label"] == 3))),
    "another x0": _edit_table(lambda t: t.assign(x0=t["x0"] - (t["label"] == 3))),
    "the summary counts 3": _miscount,
    "the manifest counts": _miscount_in_manifest,
    "is not done": _stop_early,
    "not valid OME-Zarr": _break_metadata,
}


@pytest.mark.parametrize("words", FAULTS)
def test_every_fault_is_found(folder: Path, words: str) -> None:
    """A fault put into a valid folder is named, and the blank slide stays above suspicion."""
    FAULTS[words](folder)
    found = validate(folder)
    assert any(words in fault for fault in found), found
    assert not any(fault.startswith("b: ") for fault in found if "summary" not in fault)


def test_gaps_in_the_numbering_are_found(tmp_path: Path) -> None:
    """Labels must be 1..n, also where raster and table agree."""
    labels = squares((70, 90))
    labels[labels == labels.max()] = labels.max() + 4
    folder = write_results(tmp_path, [Made("s1", squares((70, 90)))])
    _labels(folder)[...] = labels
    table = table_of(squares((70, 90)))
    table.loc[len(table) - 1, "label"] += 4
    table.to_parquet(folder / "instances" / "s1.parquet")
    assert any("missing from 1..n" in fault for fault in validate(folder))


@given(
    labels=arrays(np.uint32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 9)),
    cut=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
@settings(max_examples=80, deadline=None)
def test_regions_add_up(labels: np.ndarray, cut: tuple[int, int]) -> None:
    """Counting region by region gives what the slow count of the whole gives, however it is cut."""
    raster = Raster.empty(0)
    for y in range(0, labels.shape[0], cut[0]):
        for x in range(0, labels.shape[1], cut[1]):
            raster = raster.add(labels[y : y + cut[0], x : x + cut[1]], y, x)
    for label in range(1, int(labels.max()) + 1):
        y, x = np.nonzero(labels == label)
        assert raster.area[label - 1] == len(y)
        if len(y):
            assert raster.box[label - 1].tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]


@given(shape=st.tuples(st.integers(1, 300), st.integers(1, 300)), step=st.tuples(*[st.sampled_from([7, 32, 64])] * 2))
@settings(max_examples=50, deadline=None)
def test_regions_cover_the_image_once(shape: tuple[int, int], step: tuple[int, int]) -> None:
    """Every pixel is in exactly one region."""
    seen = np.zeros(shape, int)
    limit, judge.REGION_PX = judge.REGION_PX, 64
    try:
        for window in regions(shape, step):
            seen[window] += 1
    finally:
        judge.REGION_PX = limit
    assert (seen == 1).all()


def test_an_image_without_labels_has_no_rows(tmp_path: Path) -> None:
    """Empty in, empty out."""
    array = zarr.create_array(str(tmp_path / "a"), shape=(30, 30), dtype="uint32", chunks=(8, 8))
    assert len(survey(array).area) == 0
