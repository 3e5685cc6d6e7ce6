"""The stages measure and table: real runs, whose tables equal measuring the stored labels and the image as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import slidebatch
from slidebatch import batch
from slidebatch.errors import ConfigError, PlanError
from slidebatch.geometry import Box, whole
from slidebatch.job import open_job
from slidebatch.measure import band_rows, bands, nearest
from slidebatch.measurements import column_names
from slidebatch.slides import read_grid
from slidebatch.stages import perform
from slidebatch.store import read_json
from slidebatch.validate import validate
from tests.conftest import ROOT
from tests.support.fields import touching_field
from tests.support.measuring import measured
from tests.support.runs import config, labels_of, run, write_slides

BASE = ["label", "y", "x", "y0", "x0", "y1", "x1", "area", "area_um2", "score", "member", "votes", "touches_border"]


def colour_slides(folder: Path, truths: dict[str, npt.NDArray[Any]]) -> Path:
    """RGB images and their truth, as `write_slides` makes them."""
    write_slides(folder, truths)
    for slide, truth in truths.items():
        noise = np.random.default_rng(1).integers(0, 30, (*truth.shape, 3))
        image = np.where(truth[..., None] > 0, [120, 60, 140], [225, 220, 215]) + noise
        tifffile.imwrite(folder / "images" / f"{slide}.tif", image.astype(np.uint8), photometric="rgb", tile=(64, 64))
    return folder


def table(folder: Path, output: str, slide: str = "a") -> pd.DataFrame:
    return pd.read_parquet(folder / output / "instances" / f"{slide}.parquet")


@pytest.fixture
def truth() -> npt.NDArray[np.int32]:
    """A field with a nucleus larger than a region, a sliver, and many small ones."""
    labels = touching_field((330, 420), 21, np.random.default_rng(8), gap=0.4)
    labels[100:260, 40:300] = labels.max() + 1
    labels[300:303, 10:400] = labels.max() + 1
    return labels


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("colour", [False, True])
def test_tables_equal_measuring_the_whole_slide(
    tmp_path: Path, truth: npt.NDArray[np.int32], colour: bool, scale: float
) -> None:
    """Region by region, a slide's table is what measuring its labels and image in one piece gives, to the bit."""
    (colour_slides if colour else write_slides)(tmp_path, {"a": truth})
    said = {"mpp": 0.5, "scale": scale, **({"channels": ["R"]} if colour else {})}
    if scale == 0.5:
        tifffile.imwrite(tmp_path / "truth" / "a.tif", truth[::2, ::2])
    assert run(config(tmp_path, "out", input=said, output={"keep_maps": True})).exit_status == 0
    job = open_job(str(tmp_path / "out" / "work"))
    slide = job.at(0)
    assert len(job.tasks("measure")[0].items) > 1
    labels = labels_of(tmp_path / "out", "a")
    image = read_grid(job.open(0), slide.grid, whole(slide.shape), None)
    _, want = measured(labels, image, slide.recipe, slide.mpp_plan)
    got = table(tmp_path, "out")
    assert list(got.columns) == [*BASE, *column_names(slide.recipe), "nearest_px", "nearest_um"]
    assert ("od_eosin" in got) == colour
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)
    np.testing.assert_allclose(got["area_um2"], got["area"] * (0.5 / scale) ** 2)
    np.testing.assert_allclose(got["nearest_um"], got["nearest_px"] * 0.5, rtol=1e-6)
    assert validate(tmp_path / "out") == []


@pytest.mark.parametrize(
    "output", [{"chunk_px": 64, "shard_px": 64}, {"chunk_px": 32, "shard_px": 256}, {"chunk_px": 512}]
)
def test_tables_do_not_depend_on_regions(tmp_path: Path, truth: npt.NDArray[np.int32], output: dict[str, int]) -> None:
    """Other chunks, shards and tiles give the same table, value for value."""
    write_slides(tmp_path, {"a": truth})
    run(config(tmp_path, "one", output={"shard_px": 1024}))
    run(config(tmp_path, "two", output={"shard_px": 512, **output}, tiling={"core_px": 70}))
    pd.testing.assert_frame_equal(table(tmp_path, "one"), table(tmp_path, "two"), check_exact=True)


def test_other_measurements_spare_everything_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another setting of `measure` makes tables anew and nothing else, and they equal a fresh run's."""
    write_slides(tmp_path, {"a": touching_field((150, 160), 20, np.random.default_rng(3))})

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, "finish", interrupted)
        for said in ({}, {"measure": {"ring_px": (1, 4)}}):
            with pytest.raises(KeyboardInterrupt):
                run(config(tmp_path, "out", **said))
    work = tmp_path / "out" / "work"
    job = open_job(str(work))
    times = {stage: (work / "receipts" / stage / "0.json").stat().st_mtime_ns for stage in job.plan.stages}
    run_again = config(tmp_path, "out", measure={"ring_px": (2, 5)})
    with monkeypatch.context() as patch:
        patch.setattr(batch, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(run_again)
    changed = {s for s, t in times.items() if (work / "receipts" / s / "0.json").stat().st_mtime_ns != t}
    assert changed == {"measure", "table"}
    assert not any(perform(str(work), stage, 0, "test")["fresh"] for stage in open_job(str(work)).plan.stages)
    assert run(run_again).exit_status == 0
    run(config(tmp_path, "fresh", measure={"ring_px": (2, 5)}))
    pd.testing.assert_frame_equal(table(tmp_path, "out"), table(tmp_path, "fresh"), check_exact=True)


def test_a_finished_run_with_other_measurements_is_done_again(tmp_path: Path) -> None:
    """A finished run is not taken for one with other measurements."""
    write_slides(tmp_path, {"a": touching_field((100, 90), 20, np.random.default_rng(3))})
    run(config(tmp_path, "out"))
    assert "p90_C0" not in table(tmp_path, "out")
    run(config(tmp_path, "out", measure={"percentiles": (90,)}))
    assert "p90_C0" in table(tmp_path, "out")


def test_no_sets_no_image(tmp_path: Path) -> None:
    """Without sets the table holds place, size and score alone, and measuring reads no image."""
    write_slides(tmp_path, {"a": touching_field((100, 90), 20, np.random.default_rng(3))})
    run(config(tmp_path, "out", measure={"sets": ()}))
    assert list(table(tmp_path, "out").columns) == BASE


def test_channels_are_named_and_chosen(tmp_path: Path) -> None:
    """The network sees one channel, the table has those that are measured, the image's copy all, by their new names."""
    truth = touching_field((120, 130), 20, np.random.default_rng(3), gap=0.5)
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / "truth" / "A01.tif", truth)
    for channel in (1, 2, 3):
        pixels = ((truth > 0) * 50 * channel + channel).astype(np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"C{channel}-A-01.tif", pixels)
    said = {
        "pattern": "C{channel}-{row}-{column}.tif",
        "channels": ["DNA"],
        "channel_names": {"1": "GFP", "2": "DNA"},
    }
    run(config(tmp_path, "out", input=said, measure={"channels": ["GFP", 3]}))
    found = table(tmp_path, "out", "A01")
    assert {n for n in found.columns if n.startswith("mean_")} == {"mean_GFP", "mean_3"}
    assert (found["mean_GFP"] == 51).all()
    assert (found["mean_3"] == 153).all()
    assert (found["ring_GFP"].dropna() == 1).all()
    np.testing.assert_allclose(found["nucleus_to_ring_GFP"].dropna(), 51)
    omero = json.loads((tmp_path / "out" / "labels.zarr" / "A" / "01" / "0" / "zarr.json").read_text())
    labels = [c["label"] for c in omero["attributes"]["ome"]["omero"]["channels"]]
    assert labels == ["GFP", "DNA", "3"]
    assert read_json(tmp_path / "out" / "manifest.json")["slides"][0]["channels"] == labels
    for wrong, words in (
        ({"measure": {"channels": ["RFP"]}}, "measure.channels names 'RFP', but there are 'GFP'"),
        (
            {"input": {**said, "channel_names": {"1": "std_DNA", "2": "DNA"}}},
            "two measurements would be the column ring_std_DNA",
        ),
    ):
        with pytest.raises((ConfigError, PlanError), match=words):
            run(config(tmp_path, "wrong", **{"input": said, **wrong}))


def test_a_ring_in_micrometres_needs_the_size_of_pixels(tmp_path: Path) -> None:
    """Images that state no pixel size are left out of a run that asks for rings in micrometres, with what to do."""
    write_slides(tmp_path, {"a": touching_field((100, 90), 20, np.random.default_rng(3))})
    with pytest.raises(PlanError, match=r"measure\.ring_um needs the size of its pixels.*set input\.mpp"):
        run(config(tmp_path, "out", measure={"ring_um": (1.5, 4)}))
    run(config(tmp_path, "um", measure={"ring_um": (1.5, 4)}, input={"mpp": 0.5, "scale": 1.0}))
    run(config(tmp_path, "px", measure={"ring_px": (3, 8)}, input={"mpp": 0.5, "scale": 1.0}))
    pd.testing.assert_frame_equal(table(tmp_path, "um"), table(tmp_path, "px"), check_exact=True)


def test_one_channel_of_a_colour_image(tmp_path: Path) -> None:
    """Stains are measured of a colour image also where network and table look at one channel of it."""
    colour_slides(tmp_path, {"a": touching_field((100, 90), 20, np.random.default_rng(3))})
    run(config(tmp_path, "all", input={"channels": ["R"]}))
    run(config(tmp_path, "one", input={"channels": ["R"]}, measure={"channels": ["G"]}))
    one, full = table(tmp_path, "one"), table(tmp_path, "all")
    assert {n for n in one.columns if n.startswith("mean_")} == {"mean_G"}
    shared = ["mean_G", "ring_p50_G", "od_hematoxylin", "od_eosin"]
    pd.testing.assert_frame_equal(one[shared], full[shared], check_exact=True)
    assert full["od_hematoxylin"].min() > 0.1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30))
def test_nearest_neighbours_equal_trying_all(places: list[tuple[int, int]]) -> None:
    """The distance to the nearest other centroid is the least of all, 0 in the same place, NaN for a lone one."""
    points = np.array(places, np.float64).reshape(-1, 2)
    apart = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=-1))
    np.fill_diagonal(apart, np.inf)
    want = apart.min(axis=1, initial=np.inf)
    np.testing.assert_allclose(nearest(points), np.where(np.isfinite(want), want, np.nan))


def test_nearest_neighbours_across_regions(tmp_path: Path) -> None:
    """Neighbours are found wherever regions part them, in pixels of level 0."""
    truth = np.zeros((300, 420), np.int32)
    truth[10:20, 100:110], truth[10:20, 250:260], truth[280:290, 400:410] = 1, 2, 3
    write_slides(tmp_path, {"a": truth, "lone": (truth == 1).astype(np.int32)})
    run(config(tmp_path, "out"))
    far = np.hypot(270, 150)
    np.testing.assert_allclose(table(tmp_path, "out")["nearest_px"], [150, 150, far], rtol=1e-6)
    assert table(tmp_path, "out", "lone")["nearest_px"].isna().all()
    results = slidebatch.open_results(tmp_path / "out")
    assert results.instances("a")["nearest_um"].isna().all(), "nobody stated the size of the pixels"


def test_bands_part_a_window_and_stay_low(tmp_path: Path) -> None:
    """Whatever the window, its rows go by once, in bands no higher than said, with the labels above and below them."""
    truth = touching_field((700, 130), 21, np.random.default_rng(8))
    write_slides(tmp_path, {"a": truth})
    run(config(tmp_path, "out", output={"chunk_px": 64, "shard_px": 256}))
    job = open_job(str(tmp_path / "out" / "work"))
    labels, image = labels_of(tmp_path / "out", "a"), tifffile.imread(tmp_path / "images" / "a.tif")
    halo = job.at(0).recipe.halo_px
    padded = np.pad(labels, ((halo, halo), (0, 0)))
    for window in (whole((700, 130)), Box(3, 5, 4, 9), Box(505, 0, 520, 130), Box(511, 7, 700, 30)):
        seen = np.pad(padded[window.y0 + halo : window.y1 + halo, window.x0 : window.x1], ((halo, halo), (0, 0)))
        top = window.y0
        for band in bands(job, 0, window):
            height = len(band.labels) - 2 * halo
            assert (band.top, band.left) == (top, window.x0)
            assert height <= band_rows(job.plan.output)
            first = band.top - window.y0
            np.testing.assert_array_equal(band.labels, seen[first : first + height + 2 * halo])
            np.testing.assert_array_equal(band.image[0], image[top : top + height, window.x0 : window.x1])
            top += height
        assert top == window.y1


MEASURING = """
import numpy as np
from slidebatch import memory
from slidebatch.measurements import Band, MeasureSpec, Nuclei, columns_of, recipe, tally
side, cell, rows = 2048, 16, 512
def megabytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) * 1024 / 1e6
def measure(side):
    n = side // cell
    label = np.arange(1, n * n + 1)
    corner = np.stack(np.divmod(label - 1, n), axis=1) * cell
    nuclei = Nuclei(label, np.concatenate([corner, corner + cell], axis=1).astype(np.int32))
    column = (np.arange(side) // cell)[None].astype(np.uint32)
    def bands():
        for y in range(0, side, rows):
            at = np.arange(y - halo, min(y + rows, side) + halo)
            labels = np.where(((at >= 0) & (at < side))[:, None], (at // cell)[:, None] * n + column + 1, 0)
            image = np.full((3, len(at) - 2 * halo, side), 90, np.uint8)
            yield Band(y, 0, labels.astype(np.uint32), image, image)
    columns_of(tally(bands(), nuclei, how), 0.5)
    return len(label)
how = recipe(MeasureSpec(), "a", ["R", "G", "B"], True, 0.5)
halo = how.halo_px
measure(256)  # compiled code is loaded
open("/proc/self/clear_refs", "w").write("5")
before = megabytes("VmRSS:")
nuclei = measure(side)
projected = memory.measure_bytes((rows + 2 * halo) * side, 3, nuclei, 3) + memory.kept_bytes(side * side, 3)
print(megabytes("VmHWM:") - before, projected / 1e6)
"""


def test_measuring_takes_no_more_memory_than_projected() -> None:
    """A region that is nothing but nuclei, in colour, with every set, takes less than plans reckon with (law 7)."""
    ended = subprocess.run([sys.executable, "-c", MEASURING], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    taken, projected = map(float, ended.stdout.split())
    assert 1 < taken < projected
