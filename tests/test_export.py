"""Exports come back from the tools that they are for, to the pixel."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import ome_types
import pandas as pd
import pytest
import shapely
import tifffile
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v04 import HCS, Image, ImageLabel
from pycocotools.coco import COCO

import slidebatch
from slidebatch.cli import status_of
from slidebatch.errors import ConfigError, InputError, ResultsError
from slidebatch.evaluate.dsb_csv import read_csv
from slidebatch.export import FORMATS, Wish, export
from slidebatch.results import Results
from tests.conftest import ROOT
from tests.support.fields import touching_field
from tests.support.measuring import blobs, nuclei_of
from tests.support.results_folder import MPP, Made, read_manifest, write_manifest, write_results
from tests.support.runs import config, run, write_slides

Labels = npt.NDArray[np.uint32]


def in_order(labels: npt.NDArray[Any]) -> Labels:
    """Labels numbered 1..n by their first pixel in raster order, as runs number them."""
    names, first = np.unique(labels, return_index=True)
    names = names[np.argsort(first)]
    names = names[names > 0]
    table = np.zeros(int(labels.max(initial=0)) + 1, np.uint32)
    table[names] = np.arange(1, len(names) + 1)
    return table[labels]


def odd(shape: tuple[int, int], seed: int) -> Labels:
    """Nuclei of every shape: holes, pieces in holes, pieces that touch at corners, bays that corners close."""
    return in_order(blobs(shape, np.random.default_rng(seed), 15))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Slides of odd nuclei, of nuclei that touch, and without any; larger than a chunk, of two levels."""
    field = in_order(touching_field((170, 90), 16, np.random.default_rng(1), gap=0.2))
    slides = [Made("odd", odd((70, 110), 3)), Made("field", field), Made("blank", np.zeros((40, 50), np.uint32))]
    return slidebatch.open_results(write_results(tmp_path_factory.mktemp("made") / "r", slides, image=False))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A real run, with everything that is measured."""
    folder = tmp_path_factory.mktemp("run")
    truth = touching_field((200, 260), 22, np.random.default_rng(7), gap=0.3)
    write_slides(folder, {"a": truth, "blank": np.zeros((90, 80), np.int32)})
    assert run(config(folder, "out", input={"mpp": 0.5, "scale": 1.0})).exit_status == 0
    return slidebatch.open_results(folder / "out")


@pytest.fixture(params=[2048, 32], ids=["one window", "many windows"])
def region_px(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Windows that hold a whole slide, and small ones."""
    monkeypatch.setattr("slidebatch.results.outlined.REGION_PX", request.param)
    return int(request.param)


def truth_of(results: Results, slide: str) -> Labels:
    return np.asarray(results.labels(slide))


def painted(features: list[dict[str, Any]], shape: tuple[int, int], scale: float = 1.0) -> Labels:
    """Label image (Y, X) of GeoJSON features: pixels whose middle lies in them."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.uint32)
    for feature in features:
        geometry = shapely.geometry.shape(feature["geometry"])
        assert geometry.is_valid, shapely.is_valid_reason(geometry)
        labels[shapely.contains_xy(geometry, (x + 0.5) / scale, (y + 0.5) / scale)] = number(feature)
    return labels


def number(feature: dict[str, Any]) -> int:
    return int(feature["properties"]["measurements"]["label"])


# GeoJSON


@pytest.mark.usefixtures("region_px")
def test_geojson_holds_exactly_the_pixels(made: Results, tmp_path: Path) -> None:
    """Every polygon is valid and holds the pixels of its nucleus: holes, pieces, and what touches at corners."""
    done = export(made, Wish("geojson", tmp_path / "g"))
    assert done.slides == made.names
    for slide in made.names:
        path = tmp_path / "g" / f"{slide}.geojson"
        told = json.loads(path.read_text())
        assert told["type"] == "FeatureCollection"
        truth = truth_of(made, slide)
        np.testing.assert_array_equal(painted(told["features"], truth.shape), truth)
        assert sorted(map(number, told["features"])) == list(range(1, int(truth.max()) + 1))


def test_geojson_is_read_by_a_geographer(made: Results, tmp_path: Path) -> None:
    """GDAL, by geopandas, reads as many valid shapes of the same areas."""
    export(made, Wish("geojson", tmp_path / "odd.geojson", slides=("odd",)))
    frame = geopandas.read_file(tmp_path / "odd.geojson").set_crs(None, allow_override=True)  # pixels, not degrees
    assert frame.geometry.is_valid.all()
    assert set(frame.geometry.geom_type) == {"Polygon", "MultiPolygon"}
    area = np.bincount(truth_of(made, "odd").ravel())[1:]
    assert sorted(frame.geometry.area) == sorted(area.tolist())


def test_geojson_is_in_level_0_pixels(tmp_path: Path) -> None:
    """Of labels at another scale than the slide's, coordinates are the slide's own pixels."""
    truth = odd((40, 60), 5)
    folder = write_results(tmp_path / "r", [Made("s", truth)], image=False, scale=0.5)
    export(folder, Wish("geojson", tmp_path / "s.geojson"))
    features = json.loads((tmp_path / "s.geojson").read_text())["features"]
    np.testing.assert_array_equal(painted(features, truth.shape, 0.5), truth)
    assert max(np.max(np.array(ring)) for f in features for ring in _rings(f["geometry"])) > 60
    third = write_results(tmp_path / "t", [Made("s", truth)], image=False, scale=0.3)
    export(third, Wish("geojson", tmp_path / "t.geojson"))
    features = json.loads((tmp_path / "t.geojson").read_text())["features"]
    np.testing.assert_array_equal(painted(features, truth.shape, 0.3), truth)


def _rings(geometry: dict[str, Any]) -> list[Any]:
    parts = geometry["coordinates"]
    return list(parts) if geometry["type"] == "Polygon" else [ring for part in parts for ring in part]


@pytest.mark.usefixtures("region_px")
def test_geojson_tells_what_was_measured(measured: Results, tmp_path: Path) -> None:
    """Features have QuPath's properties, and every number of the nucleus's own row that is one."""
    export(measured, Wish("geojson", tmp_path / "a.geojson", slides=("a",), object_type="annotation"))
    table = measured.instances("a").set_index("label")
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert len(features) == len(table) > 20
    for feature in features:
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["classification"] == {"name": "nucleus"}
        row = table.loc[number(feature)]
        told = {name: value for name, value in properties["measurements"].items() if name != "label"}
        assert {n for n in table.columns if n not in told} <= {"slide", "y", "x", "y0", "x0", "y1", "x1"} | {
            n for n in table.columns if n != "slide" and np.isnan(row[n])
        }
        for name, value in told.items():
            assert np.float32(value) == np.float32(row[name]), name


def test_geojson_takes_the_columns_asked_for(measured: Results, tmp_path: Path) -> None:
    """Only the measurements asked for are written; what is no number is refused, and leaves nothing."""
    export(measured, Wish("geojson", tmp_path / "a.geojson", ("a",), columns=("area", "solidity")))
    first = json.loads((tmp_path / "a.geojson").read_text())["features"][0]
    assert list(first["properties"]["measurements"]) == ["label", "area", "solidity"]
    for columns, words in ((("slide",), "holds no numbers"), (("aera",), "did you mean area")):
        with pytest.raises(ResultsError, match=words):
            export(measured, Wish("geojson", tmp_path / "b", columns=columns))
    assert [p.name for p in tmp_path.iterdir()] == ["a.geojson"]


# Tables


def test_csv_is_the_table(measured: Results, tmp_path: Path) -> None:
    """pandas reads the same table back, of all slides, or the columns and slides asked for."""
    export(measured, Wish("csv", tmp_path / "all.csv"))
    table = measured.instances()
    back = pd.read_csv(tmp_path / "all.csv").astype(table.dtypes.to_dict())
    pd.testing.assert_frame_equal(back, table)
    assert "nan" not in (tmp_path / "all.csv").read_text()
    export(measured, Wish("csv", tmp_path / "some.csv", ("a",), columns=("slide", "area")))
    assert list(pd.read_csv(tmp_path / "some.csv").columns) == ["slide", "area"]
    export(measured, Wish("csv", tmp_path / "none.csv", ("blank",)))
    assert len(pd.read_csv(tmp_path / "none.csv")) == 0


# Masks


@pytest.mark.usefixtures("region_px")
def test_coco_is_read_by_cocos_own_tools(made: Results, tmp_path: Path) -> None:
    """pycocotools decodes every mask to the nucleus's pixels; area and box are those of the mask."""
    export(made, Wish("coco", tmp_path / "c.json"))
    coco = COCO(tmp_path / "c.json")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["nucleus"]
    for image in coco.loadImgs(coco.getImgIds()):
        truth = truth_of(made, image["file_name"])
        assert (image["height"], image["width"]) == truth.shape
        found = np.zeros_like(truth)
        boxes = {int(n): b for n, b in zip(*_label_and_box(truth), strict=True)}
        for one in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(one).astype(bool)
            assert not found[mask].any()
            found[mask] = one["label"]
            y0, x0, y1, x1 = boxes[one["label"]].tolist()
            assert one["area"] == mask.sum()
            assert one["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        np.testing.assert_array_equal(found, truth)


def _label_and_box(truth: Labels) -> tuple[Any, Any]:
    nuclei = nuclei_of(truth)
    return nuclei.label, nuclei.box


def test_coco_has_scores(measured: Results, tmp_path: Path) -> None:
    """Annotations have the table's score, so that they serve as COCO's results too."""
    export(measured, Wish("coco", tmp_path / "c.json"))
    coco = COCO(tmp_path / "c.json")
    rows = coco.loadAnns(coco.getAnnIds())
    score = measured.instances("a", ["label", "score"]).set_index("label")["score"]
    assert [r["score"] for r in rows] == pytest.approx([score[r["label"]] for r in rows], abs=1e-6)
    keys = ("image_id", "category_id", "segmentation", "score")
    results = coco.loadRes([{key: row[key] for key in keys} for row in rows])
    assert len(results.getAnnIds()) == len(rows)


@pytest.mark.usefixtures("region_px")
def test_dsb_is_read_back(made: Results, tmp_path: Path, region_px: int) -> None:
    """The reader of `evaluate` gives the same labels back; an image without nuclei has its row."""
    export(made, Wish("dsb", tmp_path / "d.csv"))
    runs = read_csv(tmp_path / "d.csv")
    assert list(runs.nuclei) == list(made.names)
    for slide in made.names:
        truth = truth_of(made, slide)
        back = runs.labels(slide, (truth.shape[0], truth.shape[1]))
        expected = truth if region_px > 1000 else in_order(truth)
        np.testing.assert_array_equal(back if region_px > 1000 else in_order(back), expected)


# Rasters


def test_ome_tiff_is_the_label_image(made: Results, tmp_path: Path) -> None:
    """tifffile reads every level; tiles, SubIFDs, and OME-XML that its schema finds valid, with pixel sizes."""
    export(made, Wish("ome-tiff", tmp_path / "t"))
    for slide in made.names:
        with tifffile.TiffFile(tmp_path / "t" / f"{slide}.ome.tif") as file:
            assert file.is_ome
            assert file.pages.first.is_tiled
            levels = file.series[0].levels
            assert len(levels) == 2
            for number, level in enumerate(levels):
                assert level.dtype == np.uint32
                np.testing.assert_array_equal(level.asarray(), np.asarray(made.labels(slide, number)))
            ome_types.validate_xml(file.ome_metadata)
            told = ome_types.from_xml(file.ome_metadata).images[0]
            assert told.name == slide
            assert (told.pixels.physical_size_x, told.pixels.physical_size_y_unit.value) == (MPP, "µm")


def test_ome_tiff_of_many_tiles(tmp_path: Path) -> None:
    """An image wider than what is read at once, of no whole tiles, comes back."""
    labels = np.zeros((1030, 5000), np.uint32)
    labels[500:520, 4090:4110] = 1
    labels[1020:1030, 4990:5000] = 2
    folder = write_results(tmp_path / "r", [Made("wide", labels)], image=False)
    export(folder, Wish("ome-tiff", tmp_path / "wide.ome.tif"))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "wide.ome.tif"), labels)


def test_ngff_04_of_slides(made: Results, tmp_path: Path) -> None:
    """Label images come back by ome-zarr and are valid OME-Zarr 0.4, in zarr format 2."""
    export(made, Wish("ngff04", tmp_path / "n.zarr"))
    for slide in made.names:
        group = zarr.open_group(tmp_path / "n.zarr" / slide, mode="r")
        assert group.metadata.zarr_format == 2
        ImageLabel.from_zarr(group)
        (node,) = Reader(parse_url(tmp_path / "n.zarr" / slide, mode="r"))()
        assert len(node.data) == 2
        for number, level in enumerate(node.data):
            np.testing.assert_array_equal(np.asarray(level), np.asarray(made.labels(slide, number)))


def test_ngff_04_of_a_plate(tmp_path: Path) -> None:
    """A plate with images and labels is valid OME-Zarr 0.4, whole or of the fields asked for alone."""
    fields = [Made("A1", odd((50, 60), 1), ("A", "1")), Made("B2", odd((50, 60), 2), ("B", "2"))]
    results = slidebatch.open_results(write_results(tmp_path / "r", fields))
    for slides in (("A1", "B2"), ("B2",)):
        path = tmp_path / f"{len(slides)}.zarr"
        export(results, Wish("ngff04", path, slides=slides if len(slides) == 1 else ()))
        plate = HCS.from_zarr(zarr.open_group(path, mode="r"))
        assert len(plate.attributes.plate.wells) == len(slides)
        for slide in slides:
            entry = results.entry(slide)
            Image.from_zarr(zarr.open_group(path / entry["image"], mode="r"))
            ImageLabel.from_zarr(zarr.open_group(path / entry["labels"], mode="r"))
            for what, name in (("image", entry["image"]), ("labels", entry["labels"])):
                back = zarr.open_array(path / name / "0", mode="r")
                assert back.metadata.zarr_format == 2
                np.testing.assert_array_equal(back[...], np.asarray(getattr(results, what)(slide)))
    assert not (tmp_path / "1.zarr" / "A").exists()


# Where exports go


def output_of(name: str, folder: Path) -> Path:
    return folder / ("out" if FORMATS[name].per_slide else f"out{FORMATS[name].suffix}")


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_replaces_nothing_unasked(made: Results, tmp_path: Path, name: str) -> None:
    """What is there stays as it was; --force replaces it by the same bytes, and nothing is left beside it."""
    output = output_of(name, tmp_path)
    export(made, Wish(name, output))
    before = _files(tmp_path)
    with pytest.raises(ConfigError, match="there already"):
        export(made, Wish(name, output))
    assert _files(tmp_path) == before
    export(made, Wish(name, output, force=True))
    again = _files(tmp_path)
    assert again.keys() == before.keys()
    if name != "ome-tiff":  # each has an identity of its own
        assert again == before


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["geojson", "ome-tiff", "ngff04"])
def test_force_replaces_no_other_folder(made: Results, tmp_path: Path, name: str) -> None:
    """A folder that holds anything but an earlier export stays, even with --force."""
    output = output_of(name, tmp_path)
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds more than an earlier export"):
        export(made, Wish(name, output, force=True))
    assert _files(tmp_path) == {f"{output.name}/thesis.txt": b"years of work"}


WRONG: dict[str, tuple[Callable[[Path], Wish], str]] = {
    "suffix": (lambda p: Wish("csv", p / "nuclei.txt"), "does not end in .csv"),
    "format": (lambda p: Wish("svg", p / "n.svg"), "no export to 'svg'; expected one of geojson, csv"),
    "one file of many": (lambda p: Wish("geojson", p / "n.geojson"), "name a folder, or one slide"),
    "slide": (lambda p: Wish("csv", p / "n.csv", ("feild",)), "did you mean field"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_wishes_are_refused(made: Results, tmp_path: Path, what: str) -> None:
    """What cannot be done is refused in one sentence, and nothing is written."""
    wish, words = WRONG[what]
    with pytest.raises((ConfigError, ResultsError), match=words):
        export(made, wish(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_among_results(made: Results) -> None:
    """The results folder is the run's alone: no export goes there, forced or not."""
    before = _files(made.path)
    for name in ("summary.csv", "instances/x.csv"):
        with pytest.raises(ConfigError, match="lies in the results folder"):
            export(made, Wish("csv", made.path / name, force=True))
    assert _files(made.path) == before


def test_a_half_finished_run_is_refused(tmp_path: Path) -> None:
    """A run that is not done is not exported, but for slides by name that are; failed slides are left out and named."""
    folder = write_results(tmp_path / "r", [Made(n, odd((30, 30), 1)) for n in ("a", "b")], image=False)
    told = read_manifest(folder)
    told["slides"][1]["state"] = "running"
    write_manifest(folder, told | {"state": "running"})
    with pytest.raises(ResultsError, match="the run is not done"):
        export(folder, Wish("csv", tmp_path / "n.csv"))
    with pytest.raises(ResultsError, match="b is not finished"):
        export(folder, Wish("csv", tmp_path / "n.csv", ("a", "b")))
    assert export(folder, Wish("csv", tmp_path / "a.csv", ("a",))).slides == ("a",)
    told["slides"][1]["state"] = "failed"
    write_manifest(folder, told | {"state": "done"})
    done = export(folder, Wish("csv", tmp_path / "n.csv"))
    assert (done.slides, done.left_out) == (("a",), ("b",))


@pytest.mark.parametrize("name", ["geojson", "coco", "dsb"])
def test_an_export_that_fails_leaves_nothing(tmp_path: Path, name: str) -> None:
    """Where a slide's labels are broken, no file appears, whole or half, and an earlier one stays."""
    folder = write_results(tmp_path / "r", [Made(n, odd((70, 70), 1)) for n in ("a", "b")], image=False)
    output = output_of(name, tmp_path / "out")
    export(folder, Wish(name, output))
    before = _files(tmp_path / "out")
    for chunk in (folder / "labels.zarr" / "b" / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"broken")
    with pytest.raises(Exception):  # noqa: B017, PT011  (what the reader says of broken bytes)
        export(folder, Wish(name, output, force=True))
    assert _files(tmp_path / "out") == before


def test_the_commands_of_the_page_run(
    measured: Results, sample_plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of docs/exports.md does what it says, in a folder with such results; again it is refused."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "plate").symlink_to(sample_plate)
    (tmp_path / "results" / "slide").symlink_to(measured.path)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "exports.md").read_text()
    commands = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("slidebatch export")]
    assert {words[words.index("--to") + 1] for words in commands} == set(FORMATS)
    for words in commands:
        here = ["a" if word == "tissue" else word for word in words]
        assert status_of(here) == 0, words
        output = Path(words[words.index("--output") + 1])
        assert output.exists()
        assert status_of(here) == 2


def test_failed_slides_are_named_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a run left slides out, the command says which, with status 3."""
    folder = write_results(tmp_path / "r", [Made(n, odd((30, 30), 1)) for n in ("a", "b")], image=False)
    told = read_manifest(folder)
    told["slides"][1]["state"] = "failed"
    write_manifest(folder, told)
    assert status_of(["export", str(folder), "--to", "dsb", "--output", str(tmp_path / "d.csv")]) == 3
    assert "left out, for they failed: b" in capsys.readouterr().out


def test_images_that_coco_cannot_number_are_refused(tmp_path: Path) -> None:
    """A slide of more pixels than COCO's tools can count is refused by name, and nothing is written."""
    folder = write_results(tmp_path / "r", [Made("s", odd((30, 30), 1))], image=False)
    level = folder / "labels.zarr" / "s" / "0" / "zarr.json"
    told = json.loads(level.read_text())
    level.write_text(json.dumps(told | {"shape": [70_000, 70_000]}))
    with pytest.raises(InputError, match="s has 4900000000 pixels; COCO's run lengths count to 4294967295"):
        export(folder, Wish("coco", tmp_path / "c.json"))
    assert not (tmp_path / "c.json").exists()
    export(folder, Wish("geojson", tmp_path / "s.geojson"))
