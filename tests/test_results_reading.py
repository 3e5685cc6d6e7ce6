"""Reading real results: tables, wells, outlines, crops, pictures and seams; while a run goes on; from the source."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc
import pytest
import tifffile
from matplotlib import pyplot

import slidebatch
from slidebatch.errors import ResultsError
from slidebatch.results import Results
from slidebatch.results.straight import lines, middles, straight
from slidebatch.store import read_json
from tests.conftest import ROOT
from tests.support.fields import touching_field
from tests.support.runs import config, labels_of, run, write_slides
from tests.test_outlines import filled, signed_area

FAULTY = "tests.support.faulty_oracle"
PATIENCE_S = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides: one of touching nuclei, with holes, that many regions share, and one without any."""
    folder = tmp_path_factory.mktemp("slides")
    truth = touching_field((300, 410), 20, np.random.default_rng(7), gap=0.3)
    truth[100:200, 100:240] = truth.max() + 1
    truth[140:150, 140:150] = 0
    write_slides(folder, {"a": truth, "blank": np.zeros((90, 80), np.int32)})
    run(config(folder, "out", input={"mpp": 0.5, "scale": 1.0}, cluster={"kind": "serial"}))
    return folder


@pytest.fixture(scope="module")
def slides(folder: Path) -> Results:
    return slidebatch.open_results(folder / "out")


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three wells, one with two fields, one blank; doses in a table of facts."""
    folder = tmp_path_factory.mktemp("plate")
    for name in ("images", "truth"):
        (folder / name).mkdir()
    fields = {"A01_f1": 1, "A01_f2": 2, "A02_f1": 3, "B01_f1": None}
    for name, seed in fields.items():
        well, number = name.split("_f")
        truth = np.zeros((120, 130), np.int32)
        if seed is not None:
            truth = touching_field((120, 130), 22, np.random.default_rng(seed), gap=0.5)
        tifffile.imwrite(folder / "truth" / f"{name}.tif", truth)
        image = (truth > 0) * 60 * (seed or 0) + 7
        tifffile.imwrite(folder / "images" / f"p_{well[0]}-{well[1:]}_{number}.tif", image.astype(np.uint8))
    (folder / "facts.csv").write_text("well,dose,drug\nA01,0.5,x\nA02,2,y\nB01,,x\n")
    said = {"pattern": "p_{row}-{column}_{field}.tif", "facts": str(folder / "facts.csv")}
    assert run(config(folder, "out", input=said)).exit_status == 0
    return folder / "out"


# Tables


def test_only_the_columns_and_rows_asked_for(slides: Results) -> None:
    """Columns come in the order asked for, rows are those for which the conditions hold, in any of their forms."""
    everything = slides.instances()
    large = everything[(everything["area"] > 200) & everything["touches_border"]]
    assert 0 < len(large) < len(everything)
    conditions = [("area", ">", 200), ("touches_border", "==", True)]
    for where in (conditions, [conditions], (pc.field("area") > 200) & pc.field("touches_border")):
        got = slides.instances(columns=["area", "slide", "x"], where=where)
        pd.testing.assert_frame_equal(got, large[["area", "slide", "x"]].reset_index(drop=True))
    assert len(slides.instances(where=("slide", "in", ["blank"]))) == 0
    assert len(slides.instances("a", where=("label", "==", 3))) == 1
    either = [[("label", "==", 3)], [("label", "==", 5)]]
    assert list(slides.instances("a", ["label"], either)["label"]) == [3, 5]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"columns": ["aera"]}, "no column 'aera'; did you mean area"),
        ({"where": ("mean_C9", ">", 1)}, "no column 'mean_C9'; did you mean mean_C0"),
        ({"where": "area > 5"}, "is no condition"),
        ({"where": ("area", "over", 5)}, "is no condition"),
    ],
)
def test_wrong_questions_are_refused(slides: Results, asked: dict[str, Any], words: str) -> None:
    """A column that is not there, or a condition that is none, is refused in one sentence."""
    with pytest.raises(ResultsError, match=words) as error:
        slides.instances(**asked)
    assert "\n" not in str(error.value)


def test_conditions_on_the_place_read_no_other_file(plate: Path) -> None:
    """Conditions on slide or well are answered from the manifest: a file that they leave out may even be broken."""
    broken = plate / "instances" / "A02_f1.parquet"
    content = broken.read_bytes()
    try:
        broken.write_bytes(b"nothing")
        results = slidebatch.open_results(plate)
        found = results.instances(columns=["slide", "area"], where=("well", "==", "A01"))
        assert set(found["slide"]) == {"A01_f1", "A01_f2"}
    finally:
        broken.write_bytes(content)


def test_the_dataset_streams(slides: Results) -> None:
    """The dataset behind the table holds the same rows, for batches of one's own."""
    rows = sum(batch.num_rows for batch in slides.dataset().to_batches(columns=["area"]))
    assert rows == len(slides.instances()) == slides.slides["nuclei"].sum()


def test_slides_of_other_channels_share_one_table(tmp_path: Path) -> None:
    """Slides of other channels have the columns of all in one table, and nothing where they have none."""
    truth = touching_field((90, 80), 20, np.random.default_rng(1))
    write_slides(tmp_path, {"grey": truth, "two": truth})
    image = np.stack([(truth > 0) * 90, (truth > 0) * 40]).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "images" / "two.tif", image, photometric="minisblack", metadata={"axes": "CYX"}, ome=True
    )
    assert run(config(tmp_path, "out", input={"channels": [0]})).exit_status == 0
    table = slidebatch.open_results(tmp_path / "out").instances()
    own = {n for n in table.columns if n.startswith("mean_")}
    assert len(own) == 3 or own == {"mean_C0", "mean_C1"}
    assert table.loc[table["slide"] == "grey", "mean_C1" if "mean_C1" in own else max(own)].isna().all()
    assert table.loc[table["slide"] == "two", "mean_C1" if "mean_C1" in own else max(own)].notna().all()


# Wells


def test_wells(plate: Path) -> None:
    """One row per well: medians over the nuclei of all its fields, counts, and facts, as numbers where they are."""
    results = slidebatch.open_results(plate)
    wells = results.wells().set_index("well")
    nuclei = results.instances()
    assert list(wells.index) == ["A01", "A02", "B01"]
    assert list(wells["fields"]) == [2, 1, 1]
    assert list(wells["nuclei"]) == [*(int((nuclei["well"] == w).sum()) for w in ("A01", "A02")), 0]
    assert list(wells["drug"]) == ["x", "y", "x"]
    assert wells["dose"].tolist()[:2] == [0.5, 2.0]
    assert np.isnan(wells.at["B01", "dose"])
    assert not {"label", "y", "x0"} & set(wells.columns)
    for name in ("area", "nucleus_to_ring_C0", "eccentricity"):
        assert wells.at["A01", name] == pytest.approx(nuclei.loc[nuclei["well"] == "A01", name].median())
        assert np.isnan(wells.at["B01", name])
    means = results.wells(["area"], statistic="mean").set_index("well")
    assert means.at["A02", "area"] == pytest.approx(nuclei.loc[nuclei["well"] == "A02", "area"].mean())
    assert "solidity" not in means


def test_slides_have_no_wells(slides: Results) -> None:
    """Asking slides for wells is refused."""
    with pytest.raises(ResultsError, match="holds slides, not wells"):
        slides.wells()


# Arrays, outlines, crops


def test_outlines_are_the_labels(slides: Results, folder: Path) -> None:
    """Each nucleus has one outline, whose rings hold exactly its pixels, holes left out (law 8)."""
    labels = labels_of(folder / "out", "a")
    found = {outline.label: outline.rings for outline in slides.outlines("a")}
    assert sorted(found) == list(range(1, labels.max() + 1))
    for label, rings in found.items():
        corners = [np.rint(ring + 0.5).astype(np.int64) for ring in rings]
        np.testing.assert_array_equal(filled(corners, labels.shape), labels == label)
    assert any(signed_area(ring) < 0 for rings in found.values() for ring in rings), "no hole was outlined"
    assert list(slides.outlines("blank")) == []


def test_outlines_of_some(slides: Results) -> None:
    """Outlines of nuclei for which a condition holds are those of these nuclei alone."""
    some = slides.instances("a", ["label"], ("area", ">", 300))["label"]
    assert sorted(o.label for o in slides.outlines("a", ("area", ">", 300))) == sorted(some)


def test_outlines_are_in_the_tables_frame(tmp_path: Path) -> None:
    """On a grid coarser than the slide, outlines lie in level-0 pixels: their centroids are the table's."""
    truth = touching_field((200, 220), 30, np.random.default_rng(2), gap=0.5)
    write_slides(tmp_path, {"a": truth})
    tifffile.imwrite(tmp_path / "truth" / "a.tif", truth[::2, ::2])
    run(config(tmp_path, "out", input={"scale": 0.5}))
    results = slidebatch.open_results(tmp_path / "out")
    table = results.instances("a").set_index("label")
    for outline in results.outlines("a"):
        ring = outline.rings[0]
        row = table.loc[outline.label]
        assert row["y0"] - 0.5 == ring[:, 0].min()
        assert row["x1"] - 0.5 == ring[:, 1].max()
        if len(outline.rings) == 1:
            assert signed_area(ring) == pytest.approx(row["area"] * 4)


@pytest.mark.parametrize("level", [0, 1])
def test_the_image_comes_from_the_source_where_there_is_no_copy(tmp_path: Path, level: int) -> None:
    """Without a copy the image is read from its own file, lazily, on the labels' grid and with their coordinates."""
    truth = touching_field((700, 610), 40, np.random.default_rng(5))
    write_slides(tmp_path, {"a": truth})
    for output, copied in (("copy", "copy"), ("none", "none")):
        run(config(tmp_path, output, output={"image": copied}, input={"mpp": 0.5, "scale": 1.0}))
    ours, copied = (slidebatch.open_results(tmp_path / name).image("a", level) for name in ("none", "copy"))
    assert ours.chunks is not None
    assert list(ours.c.values) == list(copied.c.values) == ["C0"]
    assert ours.dims == ("c", "y", "x")
    if level == 0:
        np.testing.assert_array_equal(ours, copied)
    np.testing.assert_allclose(ours.y, copied.y)
    np.testing.assert_allclose(ours.x, copied.x)
    assert abs(ours.astype(float).mean() - copied.astype(float).mean()) < 1
    (tmp_path / "images" / "a.tif").unlink()
    with pytest.raises(ResultsError, match=r"no copy of the image of a, and its source cannot be read.*a\.tif"):
        slidebatch.open_results(tmp_path / "none").image("a")


def test_a_crop_is_what_lies_around_a_nucleus(slides: Results) -> None:
    """A crop holds the nucleus whole, with its margin, its image, and coordinates in which its centroid lies."""
    table = slides.instances("a")
    row = table[(table["y0"] > 150) & (table["x0"] > 150) & (table["x1"] < 350)].iloc[0]
    crop = slides.crop("a", row["label"], 5)
    assert crop["labels"].shape == (row["y1"] - row["y0"] + 10, row["x1"] - row["x0"] + 10)
    assert int((crop["labels"] == row["label"]).sum()) == row["area"]
    assert int(crop["labels"].sel(y=row["y0"] * 0.5, x=row["x0"] * 0.5, method="nearest").y * 2) == row["y0"]
    inside = np.asarray(crop["image"][0])[np.asarray(crop["labels"]) == row["label"]]
    assert inside.mean() == pytest.approx(row["mean_C0"], rel=1e-6)
    with pytest.raises(ResultsError, match="a has no nucleus 99999"):
        slides.crop("a", 99999)


# Pictures


@pytest.fixture
def _no_screen() -> Iterator[None]:
    with mpl.rc_context(), pytest.MonkeyPatch.context():
        pyplot.switch_backend("agg")
        yield
        pyplot.close("all")


def drawn(axes: Any) -> npt.NDArray[np.uint8]:
    """The pixels of a picture."""
    axes.figure.canvas.draw()
    return np.asarray(axes.figure.canvas.buffer_rgba())[..., :3].astype(np.int64)


@pytest.mark.usefixtures("_no_screen")
def test_a_picture_shows_image_and_outlines(slides: Results) -> None:
    """A region is drawn in micrometres with the outlines of the nuclei in it, which can be left out."""
    axes = slides.plot("a", (50, 100, 150, 260))
    assert axes.get_xlabel() == "x (µm)"
    assert axes.get_images()[0].get_array().shape == (100, 160)
    np.testing.assert_allclose(axes.get_images()[0].get_extent(), [49.75, 129.75, 74.75, 24.75])
    lines = axes.collections[0].get_segments()
    inside = slides.labels("a")[50:150, 100:260]
    assert len(lines) >= len(np.unique(inside)) - 1
    for line in lines:
        assert 49.7 <= line[:, 0].min() <= line[:, 0].max() <= 129.8
        assert 24.7 <= line[:, 1].min() <= line[:, 1].max() <= 74.8
    plain = slides.plot("a", (50, 100, 150, 260), outlines=False)
    assert not plain.collections
    orange = drawn(axes) - drawn(plain)
    assert (orange[..., 0] - orange[..., 2] > 100).sum() > 500


@pytest.mark.usefixtures("_no_screen")
def test_a_picture_of_a_large_slide_is_made_of_a_coarser_level(tmp_path: Path) -> None:
    """No more pixels are drawn than asked for; a channel can be chosen, and axes given."""
    write_slides(tmp_path, {"a": touching_field((700, 610), 40, np.random.default_rng(5))})
    run(config(tmp_path, "out"))
    results = slidebatch.open_results(tmp_path / "out")
    _, axes = pyplot.subplots()
    assert results.plot("a", most_px=400, axes=axes) is axes
    assert max(axes.get_images()[0].get_array().shape) <= 400
    assert axes.get_xlabel() == "x (px)"
    for wrong, words in (
        ({"channel": "DNA"}, "no channel 'DNA'; expected one of C0"),
        ({"region": (9e3, 9e3, 1e4, 1e4)}, "outside a"),
    ):
        with pytest.raises(ResultsError, match=words):
            results.plot("a", **wrong)


# Seams


def test_seams_are_counted_and_leave_no_trace(slides: Results) -> None:
    """The seam report counts what tiles cut; straight borders are no more frequent along seams than between them."""
    told = slides.seams("a")
    assert told.candidates is not None
    assert told.candidates > 0
    assert told.along_px > 1000
    summary = slides.summary.set_index("slide").loc["a"]
    assert (told.pieces, told.joined) == (summary["seam_pieces"], summary["seam_joined"])
    assert slides.seams("blank").ratio is None


def test_cut_nuclei_show_in_the_seam_report(folder: Path, tmp_path: Path, slides: Results) -> None:
    """Where nuclei are cut along the seams of tiles, the ratio rises far above that of the same slide uncut."""
    from slidebatch.results.straight import seams

    truth = touching_field((1000, 1100), 24, np.random.default_rng(3), gap=0.1)
    grid = {"core_px": 100, "cell_px": [1000, 1100]}
    labels = slides.labels("blank")
    whole = labels.__class__(truth.astype(np.uint32), dims=("y", "x"))
    rows, columns = np.indices(truth.shape) // 100
    cut = np.where(truth > 0, truth + (truth.max() + 1) * (rows * 11 + columns), 0)
    before, after = (
        seams(a, grid, {}).ratio for a in (whole, labels.__class__(cut.astype(np.uint32), dims=("y", "x")))
    )
    assert before is not None
    assert after is not None
    assert before < 1.6
    assert after > 5 * before


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ([1] * 5, [2] * 5, 1),
        ([1] * 4, [2] * 4, 0),
        ([1] * 5, [1] * 5, 0),
        ([1] * 5 + [0] + [1] * 5, [2] * 11, 2),
        ([1] * 5 + [3] * 5, [2] * 10, 2),
        ([0] * 5, [2] * 5, 0),
        ([1, 1, 3, 1, 1, 1], [2] * 6, 0),
    ],
)
def test_straight_borders(first: list[int], second: list[int], pairs: int) -> None:
    """A straight border is one pair of different nuclei that face each other for five pixels on end."""
    assert straight(np.array(first, np.uint32), np.array(second, np.uint32)) == pairs


def test_lines_of_seams() -> None:
    """Seams lie at the multiples of both grids; lines between keep away from them and from the ends."""
    assert lines(300, (96, 128)) == [96, 128, 192, 256, 288]
    assert middles([96, 128, 192, 256, 288], 300) == [48, 112, 160, 224, 272]
    assert lines(90, (96, 128)) == []
    assert middles([], 90) == [45]


# The documented way


@pytest.mark.usefixtures("_no_screen")
def test_what_the_page_shows_works(sample_plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/results.md runs as it stands, on the sample plate in its default place."""
    monkeypatch.chdir(sample_plate.parent.parent)
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.DOTALL)
    told: dict[str, Any] = {}
    exec(code, told)
    assert told["results"].state == "done"
    assert len(told["outline"].rings) >= 1


# While a run goes on


def test_a_run_can_be_read_while_it_goes_on(tmp_path: Path) -> None:
    """While a second slide is still computed, what is finished is read in full and the rest is refused by name."""
    rng = np.random.default_rng(0)
    write_slides(tmp_path, {"a": touching_field((100, 90), 20, rng)})
    run(config(tmp_path, "out"))
    write_slides(tmp_path, {"b": touching_field((100, 90), 20, rng)})
    gate = tmp_path / "gate"
    settings = config(tmp_path, "out").model_dump(mode="json")
    held = {**settings["model"]["settings"], "schedule": {"b:0:0": ["hold"]}, "counts": str(tmp_path / "counts")}
    settings["model"] = {**settings["model"], "name": FAULTY, "settings": {**held, "gate": str(gate)}}
    run(config(tmp_path, "first", model=settings["model"], input={"path": str(tmp_path / "images" / "a.tif")}))
    settings["output"]["path"] = str(tmp_path / "first")
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "slidebatch", "run", str(tmp_path / "run.yaml")]
    with open(tmp_path / "log", "wb") as log:
        going = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        ends = time.monotonic() + PATIENCE_S
        while not list((tmp_path / "counts").glob("b_0_0")):
            assert going.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < ends
            time.sleep(0.05)
        results = slidebatch.open_results(tmp_path / "first")
        assert results.state == "running"
        assert dict(zip(results.slides["slide"], results.slides["state"], strict=True)) == {"a": "done", "b": "running"}
        assert len(results.instances()) == int(results.labels("a").max()) > 0
        assert results.seams("a").candidates is None
        assert len(list(results.outlines("a"))) == len(results.instances("a"))
        for asked in (results.labels, results.instances, results.image, results.seams):
            with pytest.raises(ResultsError, match="b is not finished"):
                asked("b")
        gate.touch()
        assert going.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()
    finally:
        gate.touch()
        going.kill()
        going.wait()
    assert list(slidebatch.open_results(tmp_path / "first").slides["state"]) == ["done", "done"]


def test_results_of_an_earlier_version_can_be_read(plate: Path, tmp_path: Path) -> None:
    """A manifest that does not tell files or seams serves for all that does not need them, and says so where it is."""
    manifest = read_json(plate / "manifest.json")
    del manifest["seams"]
    for entry in manifest["slides"]:
        del entry["files"], entry["z"]
    old = Results(plate, manifest)
    assert len(old.instances()) == len(slidebatch.open_results(plate).instances())
    with pytest.raises(ResultsError, match="does not say where its seams are"):
        old.seams("A01_f1")
