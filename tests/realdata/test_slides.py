"""Real slides of several kinds through whole runs: where nuclei lie, what is refused, and how it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slidebatch
from slidebatch import batch
from slidebatch.config import RunConfig
from slidebatch.errors import PlanError
from slidebatch.validate import validate
from tests.realdata.conftest import CMU, TCGA

pytestmark = pytest.mark.realdata


def settings(path: Path, results: Path, **sections: Any) -> RunConfig:
    """The shipped network over one input, serial."""
    values: dict[str, Any] = {
        "name": "one",
        "input": {"path": str(path)},
        "output": {"path": str(results), "chunk_px": 256, "shard_px": 1024},
        "cluster": {"kind": "serial"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return RunConfig.model_validate(values)


def test_bad_slides_are_quarantined_among_good_ones(slides_run: tuple[Path, batch.Outcome]) -> None:
    """A broken slide and one of unknown pixel size are named in one sentence each; the others are done."""
    folder, outcome = slides_run
    assert (outcome.exit_status, outcome.done, outcome.failed) == (3, 2, 2)
    failures = [json.loads(line) for line in (folder / "results" / "failures.jsonl").read_text().splitlines()]
    why = {f["slide"]: f["why"] for f in failures}
    assert set(why) == {"broken", TCGA}
    assert "broken.svs" in why["broken"]
    assert "set input.mpp" in why[TCGA]
    assert not any("\n" in sentence for sentence in why.values())
    results = slidebatch.open_results(folder / "results")
    states = dict(zip(results.slides["slide"], results.slides["state"], strict=True))
    assert states == {CMU: "done", "crop": "done", "broken": "failed", TCGA: "failed"}
    assert validate(folder / "results") == []
    assert not list((folder / "results" / "labels.zarr").glob("*broken*"))


def test_the_real_slide_has_nuclei_where_it_is_dark(slides_run: tuple[Path, batch.Outcome], cmu_pixels: Any) -> None:
    """Nuclei of the H&E slide are many, of no more than a nucleus's size, and darker than what surrounds them."""
    results = slidebatch.open_results(slides_run[0] / "results")
    table = results.instances(CMU)
    labels = np.asarray(results.labels(CMU))
    assert labels.shape == cmu_pixels.shape[:2]
    assert 300 < len(table) < 10_000
    assert 3 < table["area_um2"].median() < 80
    red = cmu_pixels[..., 0]
    assert red[labels > 0].mean() < red[labels == 0].mean() - 20
    assert table["mean_R"].mean() < red.mean()
    lost = labels[table["y"].round().astype(int), table["x"].round().astype(int)] != table["label"]
    assert lost.mean() < 0.05  # a centroid lies outside its nucleus only where that is bent


def test_a_slide_of_two_levels_with_its_pixel_size_stated(realdata: Path, tmp_path: Path) -> None:
    """At 0.25 um per pixel stated, the second level is segmented and positions are in pixels of the first."""
    config = settings(realdata / "slides" / f"{TCGA}.svs", tmp_path / "results", input={"mpp": 0.25})
    [planned] = batch.plan(config).planned.plan.slides
    assert (planned.grid.level, planned.grid.scale, planned.shape) == (1, 0.5, (1783, 2221))
    assert batch.run(config).exit_status == 0
    assert validate(tmp_path / "results") == []
    results = slidebatch.open_results(tmp_path / "results")
    table, labels = results.instances(TCGA), results.labels(TCGA)
    assert labels.shape == planned.shape
    assert len(table) > 50
    assert table["x1"].max() > 3000, "boxes are not in pixels of the finest level"
    at = labels.sel(y=(table["y"] * 0.25).to_xarray(), x=(table["x"] * 0.25).to_xarray(), method="nearest")
    assert (np.asarray(at) == table["label"]).mean() > 0.95
    np.testing.assert_allclose(table["area_um2"], table["area"] * 0.25)


def test_a_slide_of_unknown_pixel_size_alone_is_refused(realdata: Path, tmp_path: Path) -> None:
    """Without input.mpp nothing starts, and one sentence says what was found and what to set."""
    with pytest.raises(PlanError, match=r"nobody says how large its pixels are.*set input\.mpp") as told:
        batch.run(settings(realdata / "slides" / f"{TCGA}.svs", tmp_path / "results"))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "results" / "manifest.json").exists()


def test_a_slide_much_too_coarse_is_refused_until_confirmed(realdata: Path, tmp_path: Path) -> None:
    """A stated pixel size that is over 25 % off upwards is refused; input.scale confirms it."""
    path = realdata / "slides" / f"{CMU}.svs"
    with pytest.raises(PlanError, match=r"over 25 % coarser.*input\.scale"):
        batch.plan(settings(path, tmp_path, input={"mpp": 1.0}))
    [planned] = batch.plan(settings(path, tmp_path, input={"mpp": 1.0, "scale": 1.0})).planned.plan.slides
    assert planned.grid.scale == 1.0


def test_an_ome_zarr_plate(realdata: Path, tmp_path: Path) -> None:
    """The OME-Zarr 0.4 plate becomes an OME-Zarr 0.5 plate with its image, nuclei by DAPI, all channels measured."""
    config = settings(realdata / "cardio_plate_v04.zarr", tmp_path / "results", input={"channels": ["DAPI"]})
    assert batch.run(config).exit_status == 0
    assert validate(tmp_path / "results") == []
    results = slidebatch.open_results(tmp_path / "results")
    [slide] = results.slides["slide"]
    table = results.instances(slide)
    assert set(table["well"]) == {"B03"}
    assert {"mean_DAPI", "mean_nanog", "mean_Lamin B1"} <= set(table.columns)
    assert len(table) > 100
    labels = np.asarray(results.labels(slide))
    image = np.asarray(results.image(slide))
    assert image[0][labels > 0].mean() > 1.3 * image[0][labels == 0].mean()
    first = table.iloc[len(table) // 2]
    assert first["mean_nanog"] == pytest.approx(image[1][labels == first["label"]].mean())


def test_an_ome_tiff_of_channels_and_planes(realdata: Path, tmp_path: Path) -> None:
    """An OME-TIFF with channels and z runs by channel and maximum; without a channel it is asked for by name."""
    path = realdata / "slides" / "multi-channel-z-series.ome.tif"
    with pytest.raises(PlanError, match=r"channels C0, C1, C2.*input\.channels"):
        batch.plan(settings(path, tmp_path / "results"))
    config = settings(path, tmp_path / "results", input={"channels": ["C1"], "scale": 1.0}, output={"image": "copy"})
    assert batch.run(config).exit_status == 0
    assert validate(tmp_path / "results") == []
    results = slidebatch.open_results(tmp_path / "results")
    assert results.image(results.slides["slide"][0]).shape == (3, 167, 439)
