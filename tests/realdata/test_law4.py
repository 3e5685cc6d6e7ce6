"""Laws 3 and 4 with the shipped network on a real slide: tiles, executors and patch grids leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr

from slidebatch import batch
from slidebatch.config import RunConfig
from slidebatch.geometry import Box, whole
from slidebatch.infer import read_patch
from slidebatch.job import open_job
from slidebatch.metrics import f1
from slidebatch.models.protocol import Place
from slidebatch.tiling import ceil_to
from tests.realdata.conftest import CMU, slides_config
from tests.support.runs import contents, labels_of

pytestmark = pytest.mark.realdata

CELL_PX = 192
SHIFT_PX = CELL_PX // 2
MPP = 0.499


def cropped(folder: Path, **parts: npt.NDArray[Any]) -> Path:
    """Write parts of a slide as TIFFs."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, pixels in parts.items():
        tifffile.imwrite(folder / "images" / f"{name}.tif", pixels, photometric="rgb", tile=(256, 256))
    return folder


def settings(folder: Path, results: str, cluster: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    """The shipped network on cells of `CELL_PX`, maps kept, all of the image processed."""
    values: dict[str, Any] = {
        "name": "law4",
        "input": {"path": str(folder / "images"), "mpp": MPP},
        "tissue": {"enabled": "off"},
        "tiling": {"patch_px": CELL_PX + 112, "core_px": 1024},
        "output": {"path": str(folder / results), "keep_maps": True, "chunk_px": 128, "shard_px": 512},
        "cluster": cluster or {"kind": "serial"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return RunConfig.model_validate(values)


def maps_of(results: Path, slide: str) -> npt.NDArray[np.uint8]:
    """The kept class maps of a slide: (K, Y, X)."""
    return np.asarray(zarr.open_array(str(results / "work" / "maps" / f"{slide}.zarr"), mode="r")[:])


def when_stored(results: Path) -> dict[str, int]:
    """When each file of the kept maps was written."""
    maps = results / "work" / "maps"
    return {str(p.relative_to(maps)): p.stat().st_mtime_ns for p in maps.rglob("*") if p.is_file()}


def test_core_sizes_leave_no_trace(realdata: Path, slides_run: tuple[Path, batch.Outcome]) -> None:
    """The slide decoded in cores of 512, 1024, 2048 px and in one: the same files to the byte, from the same maps."""
    folder, _ = slides_run
    results = folder / "results"
    stored = when_stored(results)
    found: dict[int, dict[str, bytes]] = {}
    for core_px in (4096, 512, 2048, 1024):
        assert batch.run(slides_config(realdata, folder, tiling={"core_px": core_px})).exit_status == 3
        tiles = open_job(str(results / "work")).plan.tiles
        assert tiles.core_px == core_px
        found[core_px] = {**contents(results), "labels": labels_of(results, CMU).tobytes()}
        assert when_stored(results) == stored, "the network was run again"
    for core_px in (512, 2048, 1024):
        assert found[core_px] == found[4096], f"cores of {core_px} px"


@pytest.mark.slow
def test_executors_leave_no_trace(tmp_path: Path, cmu_pixels: Any) -> None:
    """Serial, one and two workers, on other tiles each, which cut nuclei: the same files to the byte, and maps."""
    folder = cropped(tmp_path, part=cmu_pixels[900:2100, 600:1900])
    ways = {
        "serial": settings(folder, "serial"),
        "one": settings(folder, "one", {"kind": "local", "workers": 1}, tiling={"core_px": 512}),
        "two": settings(folder, "two", {"kind": "local", "workers": 2}, tiling={"core_px": 300, "largest_px": 8}),
    }
    for name, config in ways.items():
        assert batch.run(config).exit_status == 0
        assert contents(folder / name) == contents(folder / "serial"), name
        np.testing.assert_array_equal(maps_of(folder / name, "part"), maps_of(folder / "serial", "part"))
    assert labels_of(folder / "two", "part").max() > 100


def test_gridded_maps_equal_one_whole_pass(tmp_path: Path, cmu_pixels: Any) -> None:
    """Class maps put together from cells equal one pass of the network over the whole image, bit for bit."""
    folder = cropped(tmp_path, part=cmu_pixels[1000:1610, 600:1330])
    batch.run(settings(folder, "results"))
    job = open_job(str(folder / "results" / "work"))
    shape, margin, stride = job.at(0).shape, job.plan.patches.margin_px, job.plan.card.stride_px
    assert (job.plan.patches.cell, len(job.plan.tasks("infer"))) == ((CELL_PX, CELL_PX), 1)
    box = Box(0, 0, ceil_to(shape[0], stride), ceil_to(shape[1], stride)).grow(margin)
    [answer] = job.model.maps(read_patch(job, 0, box)[None], [Place("part", box)])  # type: ignore[union-attr]
    once = answer[(slice(None), *whole(shape).slices(box))]
    np.testing.assert_array_equal(maps_of(folder / "results", "part"), once)


def test_shifting_the_patch_grid_changes_nothing(tmp_path: Path, cmu_pixels: Any) -> None:
    """The image cut off half a cell later at two sides, so that all patches lie elsewhere: F1 at IoU 0.9 >= 0.995."""
    pixels = cmu_pixels[800:1600, 700:1600]
    folder = cropped(tmp_path, plain=pixels, shifted=pixels[SHIFT_PX:, SHIFT_PX:])
    # One window of intensities for both: the shift alone is on trial.
    batch.run(settings(folder, "results", normalise={"per": "plate"}))
    job = open_job(str(folder / "results" / "work"))
    assert job.plan.patches.cell == (CELL_PX, CELL_PX)
    edge = job.plan.patches.margin_px
    inner = (slice(None), slice(edge, None), slice(edge, None))
    plain = maps_of(folder / "results", "plain")[:, SHIFT_PX:, SHIFT_PX:]
    np.testing.assert_array_equal(maps_of(folder / "results", "shifted")[inner], plain[inner])
    common = labels_of(folder / "results", "plain")[SHIFT_PX:, SHIFT_PX:]
    one, other = beyond(common, edge), beyond(labels_of(folder / "results", "shifted"), edge)
    assert len(np.unique(one)) > 100
    assert f1(other, one, 0.9) >= 0.995


def beyond(labels: npt.NDArray[Any], edge_px: int) -> npt.NDArray[Any]:
    """Labels without the nuclei that have a pixel within `edge_px` of the upper or the left side."""
    near = np.union1d(labels[:edge_px], labels[:, :edge_px])
    return np.where(np.isin(labels, near), 0, labels)
