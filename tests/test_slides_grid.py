"""Laws of the plan's grid: the level that is picked, what is refused, and pixels that no window changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.slides import Slide, Source, open_slide, overview, pick_grid, read_grid
from tests.support.position import half, one_file, position_grey


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """Two channels of noise, 230 x 310, that any wrong tap would change."""
    path = tmp_path_factory.mktemp("grid") / "noise.tif"
    pixels = np.random.default_rng(3).integers(0, 65536, (2, 230, 310), dtype=np.uint16)
    tifffile.imwrite(path, pixels, photometric="minisblack", tile=(64, 64))
    return open_slide(one_file(path))


def pyramid(folder: Path, mpp: float | None, levels: int = 3) -> Slide:
    """A slide of 400 x 600 with levels that halve."""
    shape, path = (400, 600), folder / "slide.ome.tif"
    told: dict[str, Any] = {"axes": "CYX"}
    with tifffile.TiffWriter(path, ome=True) as writer:
        for level in range(levels):
            how: dict[str, Any] = {"tile": (64, 64), "photometric": "minisblack"}
            if level:
                how["subfiletype"] = 1
            else:
                how["subifds"] = levels - 1
                how["metadata"] = told
            writer.write(position_grey(shape, level), **how)
            shape = half(shape)
    return open_slide(Source("s", one_file(path).files, mpp=mpp))


@settings(max_examples=40, deadline=None)
@given(draw=st.data(), scale=st.sampled_from([0.07, 0.25, 0.5, 0.61, 0.9, 1.3, 2.0]))
def test_any_window_of_the_grid_gives_the_same_bits(noise: Slide, draw: st.DataObject, scale: float) -> None:
    """A resampled window is bit for bit the same part of the resampled whole."""
    grid = pick_grid(noise, None, scale, "noise")
    y = sorted(draw.draw(st.tuples(*[st.integers(0, grid.shape[0])] * 2)))
    x = sorted(draw.draw(st.tuples(*[st.integers(0, grid.shape[1])] * 2)))
    box = Box(y[0], x[0], y[1], x[1])
    all_of_it = read_grid(noise, grid, whole(grid.shape), [1, 0])
    assert all_of_it.dtype == noise.dtype
    np.testing.assert_array_equal(read_grid(noise, grid, box, [1, 0]), all_of_it[(slice(None), *box.slices())])


def test_bands_of_memory_do_not_change_a_pixel(noise: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling in many small bands gives what one band gives."""
    grid = pick_grid(noise, None, 0.4, "noise")
    at_once = read_grid(noise, grid, whole(grid.shape), None)
    monkeypatch.setattr("slidebatch.slides.grid.BAND_PX", 5000)
    np.testing.assert_array_equal(read_grid(noise, grid, whole(grid.shape), None), at_once)


@pytest.mark.parametrize("scale", [0.21, 0.5, 0.8, 1.7])
def test_resampled_pixels_keep_their_place(tmp_path: Path, scale: float) -> None:
    """Inside the slide a resampled position image reads the centre of the plan pixel, within 0.07 level pixels."""
    tifffile.imwrite(tmp_path / "s.tif", position_grey((400, 600)) * 50, photometric="minisblack")
    slide = open_slide(one_file(tmp_path / "s.tif"))
    grid = pick_grid(slide, None, scale, "s")
    assert grid.shape == (int(400 * scale + 1e-9), int(600 * scale + 1e-9))
    found = read_grid(slide, grid, whole(grid.shape)) / 50
    inside = max(2, int(2 * scale) + 1)
    expected = (np.arange(grid.shape[0]) + 0.5) * grid.level0_per_px - 0.5
    off_px = (found[0].mean(1) - expected)[inside:-inside]
    assert np.abs(off_px).max() < 0.07  # a triangle on whole pixels is off by its phase
    assert abs(off_px.mean()) < 0.005


@pytest.mark.parametrize("scale", [0.13, 0.7, 3.0])
def test_a_flat_slide_stays_flat(tmp_path: Path, scale: float) -> None:
    """Resampling a constant gives the constant, edges and the dtype's largest value included."""
    tifffile.imwrite(tmp_path / "s.tif", np.full((61, 83), 65535, np.uint16))
    slide = open_slide(one_file(tmp_path / "s.tif"))
    grid = pick_grid(slide, None, scale, "s")
    assert (read_grid(slide, grid, whole(grid.shape)) == 65535).all()


def test_a_close_level_is_taken_as_it_is(tmp_path: Path) -> None:
    """A level within 25 % of the model's mpp is read unresampled, the closest one."""
    slide = pyramid(tmp_path, mpp=0.25)
    for model_mpp, level in ((0.25, 0), (0.3, 0), (0.21, 0), (0.45, 1), (0.6, 1), (1.0, 2), (1.2, 2)):
        grid = pick_grid(slide, model_mpp, None, "s")
        assert (grid.level, grid.step) == (level, 1.0)
        assert grid.shape == slide.levels[level].shape
        assert grid.level0_per_px == 2.0**level
    box = Box(7, 9, 50, 70)
    grid = pick_grid(slide, 0.5, None, "s")
    np.testing.assert_array_equal(read_grid(slide, grid, box), slide.read(box, 1))


def test_between_levels_the_coarsest_finer_one_is_shrunk(tmp_path: Path) -> None:
    """Without a close level the grid shrinks the coarsest level that is still finer."""
    slide = pyramid(tmp_path, mpp=0.25)
    grid = pick_grid(slide, 0.7, None, "s")
    assert (grid.level, grid.step, grid.scale) == (1, pytest.approx(1.4), pytest.approx(0.25 / 0.7))
    grid = pick_grid(slide, 4.0, None, "s")
    assert (grid.level, grid.step) == (2, pytest.approx(4.0))
    assert grid.shape == (25, 37)


def test_a_slide_too_coarse_is_refused_until_confirmed(tmp_path: Path) -> None:
    """Pixels over 25 % coarser than the model's are refused, naming both sizes; input.scale confirms."""
    slide = pyramid(tmp_path, mpp=0.5)
    with pytest.raises(InputError, match=r"0\.5 um.* 0\.25 um.*input\.scale"):
        pick_grid(slide, 0.25, None, "s")
    grid = pick_grid(slide, 0.25, 2.0, "s")
    assert (grid.level, grid.step, grid.scale, grid.shape) == (0, 0.5, 2.0, (800, 1200))
    assert pick_grid(slide, 0.4, None, "s").step == 1.0


def test_a_stated_scale_takes_the_level_it_names(tmp_path: Path) -> None:
    """input.scale of a level's own step reads that level's pixels; scales that make no sense are refused."""
    slide = pyramid(tmp_path, mpp=None)
    assert pick_grid(slide, 0.5, 0.25, "s").level == 2
    assert pick_grid(slide, 0.5, 0.25, "s").step == 1.0
    for scale in (0.0, -1.0, float("nan"), 1e-4):
        with pytest.raises(InputError, match="scale"):
            pick_grid(slide, 0.5, scale, "s")


def test_an_unknown_pixel_size_is_assumed_only_off_slides(tmp_path: Path) -> None:
    """Without mpp a plain image is taken as it is and marked so; a pyramid asks for input.mpp or input.scale."""
    assert pick_grid(pyramid(tmp_path, None, levels=1), 0.5, None, "s").assumed
    slide = pyramid(tmp_path, None)
    with pytest.raises(InputError, match=r"input\.mpp .*input\.scale"):
        pick_grid(slide, 0.5, None, "s")
    grid = pick_grid(slide, None, None, "s")
    assert (grid.level, grid.step, grid.assumed) == (0, 1.0, False)


def test_boxes_outside_the_grid_are_refused(noise: Slide) -> None:
    """A box that leaves the grid is a ValueError, resampled or not; an empty box gives nothing."""
    for scale in (1.0, 0.5):
        grid = pick_grid(noise, None, scale, "noise")
        with pytest.raises(ValueError, match=r"leaves|reaches"):
            read_grid(noise, grid, Box(0, 0, grid.shape[0] + 1, 5))
        assert read_grid(noise, grid, Box(5, 5, 5, 9)).shape == (2, 0, 4)


@pytest.mark.parametrize("most_px", [1, 50, 999, 20_000, 10**7])
def test_an_overview_is_the_mean_of_blocks(noise: Slide, most_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overview has at most `most_px` pixels, each the mean of its block, however it was cut into parts."""
    monkeypatch.setattr("slidebatch.slides.reduced.BLOCK_PX", 100)
    found, step_px = overview(noise, [1], most_px)
    factor = int(step_px)
    pixels = noise.read(whole(noise.shape), 0, [1])[0].astype(np.float64)
    rows, columns = (range(0, size, factor) for size in pixels.shape)
    expected = [[pixels[y : y + factor, x : x + factor].mean() for x in columns] for y in rows]
    assert found.dtype == np.float32
    assert found[0].size <= most_px
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_an_overview_reads_the_smallest_level_that_is_enough(tmp_path: Path) -> None:
    """The level read has at least a quarter of the pixels asked for, and the step tells level-0 pixels."""
    slide = pyramid(tmp_path, mpp=None)
    found, step_px = overview(slide, None, 16_000)
    assert found.shape == (2, 100, 150)
    assert step_px == 4.0
    assert found[0].min() == 2000.0  # level 2 adds 1000 to y for each level
    assert overview(slide, None, 240_000)[1] == 2.0


def test_pixels_that_are_not_finite_count_for_nothing_in_an_overview(tmp_path: Path) -> None:
    """A block with NaN or infinite pixels is the mean of its others; one of nothing else is NaN."""
    pixels = np.arange(48, dtype=np.float32).reshape(6, 8)
    pixels[0, 0], pixels[3, 5] = np.nan, np.inf
    pixels[4:, 6:] = np.nan
    tifffile.imwrite(tmp_path / "float.tif", pixels, photometric="minisblack")
    found, step_px = overview(open_slide(one_file(tmp_path / "float.tif")), None, 12)
    blocks = np.where(np.isfinite(pixels), pixels, np.nan).reshape(3, 2, 4, 2).swapaxes(1, 2).reshape(3, 4, 4)
    expected = [[np.nanmean(b) if np.isfinite(b).any() else np.nan for b in row] for row in blocks]
    assert step_px == 2.0
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert np.isnan(found[0]).sum() == 1
