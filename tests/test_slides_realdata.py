"""The readers on real files, against tifffile and zarr reading them whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.slides import open_slide, overview, pick_grid
from tests.support.position import one_file

pytestmark = pytest.mark.realdata

CORNERS = 150


def places(shape: tuple[int, int]) -> list[Box]:
    """The corners of an image, its middle, and a strip along its last columns."""
    y, x = shape
    middle = Box(y // 2 - 77, x // 2 - 91, y // 2 + 80, x // 2 + 100)
    corners = [Box(0, 0, CORNERS, CORNERS), Box(y - CORNERS, x - CORNERS, y, x), Box(0, x - 1, y, x)]
    return [*corners, middle, Box(y - 1, 0, y, x)]


@pytest.mark.parametrize(
    ("name", "steps", "mpp"),
    [("CMU-1-Small-Region.svs", [1.0], 0.499), ("tcga-cr-7395-01a-01-ts1.svs", [1.0, 2.0], None)],
)
def test_slides_read_as_tifffile_reads_them_whole(
    realdata: Path, name: str, steps: list[float], mpp: float | None
) -> None:
    """Windows of every level of an SVS slide equal the whole level; thumbnail, label and macro are left out."""
    path = realdata / "slides" / name
    slide = open_slide(one_file(path))
    assert slide.vendor
    assert slide.rgb
    assert slide.mpp == mpp
    assert [level.step_px for level in slide.levels] == steps
    with tifffile.TiffFile(path) as tiff:
        for i, level in enumerate(slide.levels):
            truth = np.moveaxis(tiff.series[0].levels[i].asarray(maxworkers=1), -1, 0)
            for box in places(level.shape):
                np.testing.assert_array_equal(slide.read(box, i), truth[(slice(None), *box.slices())])


def test_a_slide_without_mpp_asks_for_it(realdata: Path) -> None:
    """The TCGA slide says no pixel size: refused until the user states it."""
    source = one_file(realdata / "slides" / "tcga-cr-7395-01a-01-ts1.svs")
    with pytest.raises(InputError, match=r"input\.mpp"):
        pick_grid(open_slide(source), 0.5, None, "tcga")
    stated = open_slide(one_file(source.files[0].path, mpp=0.25))
    assert pick_grid(stated, 0.5, None, "tcga").level == 1


def test_an_overview_of_a_slide_is_its_mean(realdata: Path) -> None:
    """The overview of a real slide is small and as bright as the slide."""
    slide = open_slide(one_file(realdata / "slides" / "CMU-1-Small-Region.svs"))
    found, step_px = overview(slide, None, 100_000)
    assert found[0].size <= 100_000
    assert found.shape[1] == -(-slide.shape[0] // int(step_px))
    assert found.mean() == pytest.approx(slide.read(whole(slide.shape)).mean(), rel=0.01)


def test_an_ome_tiff_of_channels_and_planes(realdata: Path) -> None:
    """A real OME-TIFF in int8 gives its values as float32, by plane and by maximum."""
    path = realdata / "slides" / "multi-channel-z-series.ome.tif"
    truth = tifffile.imread(path)  # (C, Z, Y, X)
    box = whole(truth.shape[2:])
    np.testing.assert_array_equal(open_slide(one_file(path)).read(box), truth.max(1))
    slide = open_slide(one_file(path), z=3)
    np.testing.assert_array_equal(slide.read(box, 0, [2, 0]), truth[[2, 0], 3])
    assert slide.dtype == np.float32


def test_an_image_inside_a_plate(realdata: Path) -> None:
    """A field of an OME-Zarr 0.4 plate has its levels, names and pixel size."""
    plate = realdata / "cardio_plate_v04.zarr"
    slide = open_slide(one_file(plate, "B/03/0"))
    assert slide.channels == ("DAPI", "nanog", "Lamin B1")
    assert slide.mpp == pytest.approx(0.65)
    assert [level.step_px for level in slide.levels] == [1.0, 2.0, 4.0]
    for i, level in enumerate(slide.levels):
        truth = zarr.open_array(plate / "B/03/0" / str(i), mode="r")[:, 0]
        for box in places(level.shape):
            np.testing.assert_array_equal(slide.read(box, i), np.asarray(truth)[(slice(None), *box.slices())])


def test_a_field_with_a_palette_of_greys_is_one_channel(realdata: Path) -> None:
    """The plate's files carry a grey palette: they are one channel of the stored values, not a colour picture."""
    path = sorted((realdata / "plate_sbs").glob("Channel2-*.tif"))[0]
    slide = open_slide(one_file(path))
    assert slide.dtype == np.uint8
    np.testing.assert_array_equal(slide.read(whole(slide.shape))[0], tifffile.imread(path))


def test_a_broken_slide_is_named(realdata: Path) -> None:
    """The broken slide is an InputError that names it."""
    with pytest.raises(InputError, match=r"broken\.svs: no reader knows this file"):
        open_slide(one_file(realdata / "slides" / "broken.svs"))
