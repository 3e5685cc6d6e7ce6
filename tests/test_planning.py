"""Plans: what is refused before anything starts, which pixels networks see, and what restricts a slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from slidebatch import batch
from slidebatch.config import RunConfig
from slidebatch.errors import ConfigError, PlanError
from slidebatch.plan import SlidePlan
from tests.support.fields import touching_field
from tests.support.runs import config, contents, labels_of, run, write_slides

MODEL_MPP = 0.523
"""Micrometres per pixel that the shipped network was trained at."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One slide with its truth."""
    return write_slides(tmp_path, {"a": touching_field((200, 260), 24, np.random.default_rng(5))})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tiling": {"patch_px": 200_000}}, r"one worker would take .*most in infer.*tiling\.patch_px"),
        ({"cluster": {"kind": "local", "workers": 10_000}}, r"10000 workers would take .*cluster\.workers"),
    ],
)
def test_what_cannot_fit_is_refused(folder: Path, changed: dict[str, Any], words: str) -> None:
    """Patches or workers beyond this machine's memory: one sentence with a way out, and nothing is written."""
    settings = config(folder, "out", **changed)
    for start in (batch.plan, run):
        with pytest.raises(PlanError, match=words) as told:
            start(settings)
        assert "\n" not in str(told.value)
    assert not (folder / "out").exists()


def large_slide(folder: Path, side_px: int) -> Path:
    """A slide of side_px squared, blank, of which almost nothing is stored: an OME-Zarr image without chunks."""
    image = folder / "large.zarr"
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
    scale = [{"type": "scale", "scale": [1.0, MODEL_MPP, MODEL_MPP]}]
    for axis in axes[1:]:
        axis["unit"] = "micrometer"
    told = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "version": "0.4"}]
    chunks = {"chunks": [1, 1024, 1024], "compressor": None, "dimension_separator": "/", "fill_value": 0}
    array = {"zarr_format": 2, "shape": [1, side_px, side_px], "dtype": "|u1", "order": "C", "filters": None, **chunks}
    (image / "0").mkdir(parents=True)
    (image / ".zgroup").write_text('{"zarr_format": 2}')
    (image / ".zattrs").write_text(json.dumps({"multiscales": told}))
    (image / "0" / ".zarray").write_text(json.dumps(array))
    return image


def test_regions_beyond_memory_are_refused(tmp_path: Path) -> None:
    """A shard of a whole huge slide would be painted in memory at once: refused, and allowed in smaller shards."""
    path = large_slide(tmp_path, 131_072)
    values = {"input": {"path": str(path)}, "cluster": {"kind": "serial"}, "tiling": {"patch_px": 1024}}
    output = {"path": str(tmp_path / "out")}
    huge = RunConfig.model_validate({**values, "output": {**output, "shard_px": 131_072}})
    with pytest.raises(PlanError, match=r"most in (paint|measure).*smaller output\.shard_px"):
        batch.plan(huge)
    fits = batch.plan(RunConfig.model_validate({**values, "output": output}))
    assert fits.planned.plan.slides[0].shape == (131_072, 131_072)


def test_a_plan_tells_its_costs(folder: Path) -> None:
    """The preview names slides, patches, tiles, tasks, memory and disk; its numbers are those of the plan."""
    preview = batch.plan(config(folder, "out"))
    plan, costs = preview.planned.plan, preview.costs
    assert costs.kept_px == 200 * 260
    assert costs.fed_px == len(plan.tasks("infer")[0].items) * 64 * 64
    text = preview.describe()
    for words in (
        "a: 200 x 260 px",
        "patches: 64 x 64 px",
        "cores of 96 px",
        "workers: 1, each at most",
        "disk: about",
    ):
        assert words in text


# Pixel size: which level, at what step


def pyramid(path: Path, mpp: float | None) -> None:
    """An OME-TIFF of 512 x 640 px with levels of half and a quarter, stating its pixel size or not."""
    pixels = np.random.default_rng(0).integers(0, 255, (512, 640), np.uint8)
    size = {} if mpp is None else {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}  # micrometres, OME's default
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(pixels, subifds=2, tile=(128, 128), metadata={"axes": "YX"} | size)
        for step in (2, 4):
            tiff.write(pixels[::step, ::step], subfiletype=1, tile=(128, 128))


def planned(folder: Path, **told: Any) -> SlidePlan:
    """The plan of the one slide of a folder for the shipped network."""
    values = {
        "input": {"path": str(folder / "slide.ome.tif"), **told},
        "output": {"path": str(folder / "out")},
        "cluster": {"kind": "serial"},
    }
    [slide] = batch.plan(RunConfig.model_validate(values)).planned.plan.slides
    return slide


@pytest.mark.parametrize(
    ("in_file", "told", "level", "step", "scale"),
    [
        (0.5, {}, 0, 1.0, 1.0),
        (0.25, {}, 1, 1.0, 0.5),
        (0.13, {}, 2, 1.0, 0.25),
        (0.42, {}, 0, 1.0, 1.0),
        (0.35, {}, 0, MODEL_MPP / 0.35, 0.35 / MODEL_MPP),
        (0.17, {}, 1, MODEL_MPP / 0.34, 0.17 / MODEL_MPP),
        (None, {"mpp": 0.25}, 1, 1.0, 0.5),
        (0.5, {"mpp": 0.25}, 1, 1.0, 0.5),
        (0.5, {"scale": 0.5}, 1, 1.0, 0.5),
        (None, {"scale": 0.8}, 0, 1.25, 0.8),
        (1.0, {"scale": 1.0}, 0, 1.0, 1.0),
    ],
)
def test_the_plan_picks_or_resamples_a_level(
    tmp_path: Path, in_file: float | None, told: dict[str, float], level: int, step: float, scale: float
) -> None:
    """The level within 25 % of the network's pixel size is taken as it is; else a finer one is resampled to it."""
    pyramid(tmp_path / "slide.ome.tif", in_file)
    grid = planned(tmp_path, **told).grid
    assert (grid.level, grid.step, grid.scale) == (level, pytest.approx(step), pytest.approx(scale))
    assert grid.shape == (int(512 * scale + 1e-6), int(640 * scale + 1e-6))


@pytest.mark.parametrize(
    ("in_file", "told", "words"),
    [
        (None, {}, r"nobody says how large its pixels are, the model expects 0\.523 um; set input\.mpp"),
        (0.7, {}, r"0\.7 um, over 25 % coarser than the 0\.523 um.*input\.scale"),
        (0.5, {"mpp": 2.0}, r"2 um, over 25 % coarser"),
    ],
)
def test_unknown_and_too_coarse_pixels_are_refused(
    tmp_path: Path, in_file: float | None, told: dict[str, float], words: str
) -> None:
    """A pyramid of unknown pixel size, or one over 25 % too coarse, is refused by the slide's name and a way out."""
    pyramid(tmp_path / "slide.ome.tif", in_file)
    with pytest.raises(PlanError, match=words) as said:
        planned(tmp_path, **told)
    assert "slide" in str(said.value)
    assert "\n" not in str(said.value)


def test_a_plain_image_of_unknown_pixel_size_is_taken_as_it_is(folder: Path) -> None:
    """An image without pyramid and pixel size is segmented on its own pixels, and a note says so."""
    preview = batch.plan(config(folder, "out", model={"name": "small_unet", "settings": {}}))
    [slide] = preview.planned.plan.slides
    assert (slide.grid.scale, slide.grid.assumed, slide.mpp) == (1.0, True, None)
    [note] = [n for n in preview.planned.notes if "pixel size" in n]
    assert "set input.mpp" in note


# Channels


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        (["DAPY"], "input.channels names .*DAPY"),
        ([7], "input.channels names 7"),
        (None, r"channels DAPI, GFP; say which.*input\.channels"),
    ],
)
def test_unknown_channels_are_refused(tmp_path: Path, channels: list[str | int] | None, words: str) -> None:
    """A channel that is not there, or none named where there are several: the sentence lists those there are."""
    pixels = np.zeros((2, 64, 64), np.uint8)
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "slide.ome.tif", pixels, metadata=names)
    with pytest.raises((PlanError, ConfigError), match=words) as said:
        planned(tmp_path, channels=channels)
    assert "DAPI" in str(said.value)
    assert "GFP" in str(said.value)
    assert planned(tmp_path, channels=["GFP"]).channels == (1,)


# Regions and tissue


def truth_boxes(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Box (y0, x0, y1, x1) of every label."""
    places = {int(n): np.argwhere(labels == n) for n in np.unique(labels[labels > 0])}
    return {n: np.concatenate([p.min(0), p.max(0) + 1]) for n, p in places.items()}


def test_regions_restrict_nuclei_by_their_centres(folder: Path) -> None:
    """Exactly the nuclei whose box centre lies in the polygon stay, whole, though it cuts others."""
    corners = [(40.3, 30.2), (210.7, 60.4), (150.1, 170.6), (60.9, 140.8)]  # (x, y), as GeoJSON has it
    ring = [[x, y] for x, y in [*corners, corners[0]]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    (folder / "a.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": geometry}))
    run(config(folder, "all"))
    run(config(folder, "some", input={"regions": str(folder / "{slide}.geojson")}))
    everything, some = labels_of(folder / "all", "a"), labels_of(folder / "some", "a")
    inside = []
    for n, box in truth_boxes(everything).items():
        y, x = (box[:2] + box[2:] - 1) // 2 + 0.5
        sides = [
            (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
            for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)
        ]
        if min(sides) > 0 or max(sides) < 0:
            inside.append(n)
    assert 10 < len(inside) < everything.max() - 10
    np.testing.assert_array_equal(some > 0, np.isin(everything, inside))
    assert some.max() == len(inside)


@pytest.mark.parametrize(("enabled", "half"), [("on", True), ("auto", True), ("off", False)])
def test_tissue_keeps_networks_from_blank_glass(tmp_path: Path, enabled: str, half: bool) -> None:
    """On a slide whose left half is glass, the mask spares the network there and drops what it would find; off, not."""
    rng = np.random.default_rng(7)
    truth = touching_field((512, 1536), 24, rng)
    write_slides(tmp_path, {"a": truth})
    image = np.where(truth > 0, 90, 180)[..., None] + rng.integers(-12, 13, (*truth.shape, 3))
    image[:, :768] = 240 + rng.integers(-1, 2, (512, 768, 3))
    tifffile.imwrite(tmp_path / "images" / "a.tif", image.astype(np.uint8), photometric="rgb")
    seen = {"channels": ["R"], "mpp": 0.5}
    grids = {"patch_px": 128, "core_px": 256, "largest_px": 48}
    run(config(tmp_path, "out", input=seen, tissue={"enabled": enabled}, tiling=grids))
    found = labels_of(tmp_path / "out", "a")
    [fed] = pq.read_table(tmp_path / "out" / "summary.parquet")["fed_px"].to_pylist()
    assert found[:, 900:].any()
    assert bool(found[:, :600].any()) is not half
    assert (fed < 0.75 * truth.size) is half


def test_small_images_and_tiles_may_have_a_task_each(tmp_path: Path) -> None:
    """Without bundles every image, block, tile and region has a task of its own, and the bytes are the same."""
    rng = np.random.default_rng(6)
    write_slides(tmp_path, {name: touching_field((150, 200), 24, rng) for name in "ab"})
    alone = config(tmp_path, "alone", tiling={"bundle": False})
    plans = [batch.plan(settings).planned.plan for settings in (alone, config(tmp_path, "together"))]
    counts = [{stage: len(plan.tasks(stage)) for stage in plan.stages} for plan in plans]
    assert counts[0] == dict(prepare=2, maps=2, infer=24, decode=12, seams=2, paint=8, measure=8, table=2)
    assert set(counts[1].values()) == {1}
    run(alone)
    run(config(tmp_path, "together"))
    assert contents(tmp_path / "alone") == contents(tmp_path / "together")
