"""Reading a results folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import slidebatch
from slidebatch.errors import ResultsError
from tests.support.results_folder import MPP, Made, read_manifest, squares, write_manifest, write_results


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two slides, one without nuclei."""
    return write_results(tmp_path, [Made("s1", squares((70, 90))), Made("blank", np.zeros((40, 50), np.uint32))])


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Two wells with nuclei."""
    wells = [Made("A01", squares((64, 64)), ("A", "01")), Made("B02", squares((50, 60)), ("B", "02"))]
    return write_results(tmp_path, wells)


def test_labels_are_the_written_pixels(slides: Path) -> None:
    """The label image read back equals the one written, at every level, and is lazy."""
    results = slidebatch.open_results(slides)
    labels = results.labels("s1")
    assert labels.chunks is not None
    assert labels.dims == ("y", "x")
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels, squares((70, 90)))
    np.testing.assert_array_equal(results.labels("s1", level=1), squares((70, 90))[::2, ::2])
    assert results.image("s1").dims == ("c", "y", "x")


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("image", [True, False])
def test_coordinates_and_table_agree(tmp_path: Path, scale: float, image: bool) -> None:
    """Looking up a nucleus's centroid (times mpp) in the coordinates finds its own label."""
    made = [Made("s1", squares((70, 90), side_px=5, gap_px=4))]
    results = slidebatch.open_results(write_results(tmp_path, made, image=image, scale=scale))
    labels = results.labels("s1")
    assert labels.attrs["unit"] == "micrometer"
    for row in results.instances("s1").itertuples():
        found = labels.sel(y=row.y * MPP, x=row.x * MPP, method="nearest")
        assert int(found) == row.label


def test_no_pixel_size_means_pixels(slides: Path) -> None:
    """Without a pixel size the coordinates are level-0 pixels, and say so."""
    manifest = read_manifest(slides)
    for entry in manifest["slides"]:
        entry["mpp"] = None
    write_manifest(slides, manifest)
    labels = slidebatch.open_results(slides).labels("s1")
    assert labels.attrs["unit"] == "pixel"
    np.testing.assert_array_equal(labels.x, np.arange(90))


def test_tables_of_all_slides_follow_the_runs_order(plate: Path) -> None:
    """instances() holds every nucleus of every field once, with slide, label and well."""
    results = slidebatch.open_results(plate)
    table = results.instances()
    assert list(table.columns[:2]) == ["slide", "label"]
    assert list(table.groupby("well", sort=False).size().items()) == [("A01", 49), ("B02", 30)]
    assert list(results.instances("B02")["label"]) == list(range(1, 31))
    assert set(results.instances("B02")["slide"]) == {"B02"}


def test_blank_slide_is_an_ordinary_result(slides: Path) -> None:
    """A slide without nuclei has an empty table with the same columns, and empty labels."""
    results = slidebatch.open_results(slides)
    blank = results.instances("blank")
    assert len(blank) == 0
    assert list(blank.columns) == list(results.instances("s1").columns)
    assert not results.labels("blank").any()
    assert len(results.instances()) == len(results.instances("s1"))


def test_slides_has_one_row_per_slide(plate: Path) -> None:
    """.slides joins what the summary counts with what the manifest says, one row per field."""
    table = slidebatch.open_results(plate).slides
    assert list(table["slide"]) == ["A01", "B02"]
    assert list(table["nuclei"]) == [49, 30]
    assert list(table["well"]) == ["A01", "B02"]
    assert list(table["state"]) == ["done", "done"]


def test_a_running_run_can_be_read_where_it_is_done(slides: Path) -> None:
    """While a run goes on, finished slides can be read, and an unfinished one is refused by name."""
    manifest = read_manifest(slides)
    manifest["state"], manifest["slides"][1]["state"] = "running", "waiting"
    write_manifest(slides, manifest)
    (slides / "summary.parquet").unlink()
    results = slidebatch.open_results(slides)
    assert list(results.slides["state"]) == ["done", "waiting"]
    assert len(results.instances()) == len(results.instances("s1"))
    with pytest.raises(ResultsError, match="blank is not finished"):
        results.labels("blank")


def test_unknown_slide_names_the_nearest(plate: Path) -> None:
    """A misspelt slide is refused with the name that comes nearest."""
    with pytest.raises(ResultsError, match="did you mean A01"):
        slidebatch.open_results(plate).labels("A1")


def test_level_that_is_not_there(slides: Path) -> None:
    """A level beyond the pyramid is refused with those there are."""
    with pytest.raises(ResultsError, match="expected 0 to 1"):
        slidebatch.open_results(slides).labels("s1", level=2)


def test_no_copy_of_the_image(tmp_path: Path) -> None:
    """Where the run copied no image, asking for it says where the slide is."""
    folder = write_results(tmp_path, [Made("s1", squares((40, 40)))], image=False)
    with pytest.raises(ResultsError, match=r"s1\.tif"):
        slidebatch.open_results(folder).image("s1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no manifest.json"),
        ("{", "is not JSON"),
        ("[]", "format version None"),
        ('{"format_version": 99}', "format version 99"),
        ('{"format_version": 1}', "lists no slides"),
    ],
)
def test_foreign_folders_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    """A folder that is no results folder of this format is refused in one sentence that names it."""
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ResultsError, match=words) as error:
        slidebatch.open_results(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_folder(tmp_path: Path) -> None:
    """A path that is not there is refused."""
    with pytest.raises(ResultsError, match="is no folder"):
        slidebatch.open_results(tmp_path / "nothing")


@pytest.mark.parametrize("what", ["instances/s1.parquet", "labels.zarr/s1/labels/nuclei/zarr.json", "summary.parquet"])
def test_lost_parts_are_named(slides: Path, what: str) -> None:
    """A part that was lost after the run is named, never read as empty."""
    (slides / what).unlink()
    results = slidebatch.open_results(slides)
    with pytest.raises(ResultsError, match=what.split("/")[-1].replace("zarr.json", "nuclei")):
        _ = (results.slides, results.labels("s1"), results.instances("s1"))
