"""Laws of OME-Zarr images: axes, z, channels, pixel sizes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from slidebatch.errors import InputError
from slidebatch.geometry import whole
from slidebatch.slides import open_slide
from tests.support.position import one_file, position_grey, position_rgb, write_ome_zarr

VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])


def made(folder: Path, version: str, pixels: np.ndarray, axes: str, **told: Any) -> Path:
    write_ome_zarr(folder / "image.zarr", version, [pixels], {"axes": axes, **told})
    return folder / "image.zarr"


@VERSIONS
def test_any_subset_of_axes_is_read(tmp_path: Path, version: str) -> None:
    """yx, zyx, czyx and tczyx with one time step all read; z by index or maximum."""
    plane = position_grey((70, 90))[1]
    stack = np.stack([plane, plane + 7, plane // 2])
    for axes, pixels in (("yx", plane), ("zyx", stack), ("czyx", stack[None]), ("tczyx", stack[None, None])):
        path = made(tmp_path, version, pixels, axes)
        slide = open_slide(one_file(path))
        expected = plane if axes == "yx" else stack.max(0)
        np.testing.assert_array_equal(slide.read(whole(slide.shape))[0], expected)
        if axes != "yx":
            np.testing.assert_array_equal(open_slide(one_file(path), z=2).read(whole(slide.shape))[0], stack[2])


@VERSIONS
def test_names_colours_and_pixel_size_come_from_the_metadata(tmp_path: Path, version: str) -> None:
    """Channel names are omero's, mpp is scale times unit, and channels named R, G, B are a colour picture."""
    grey = position_grey((20, 30))
    said = {"labels": ["DNA", "GFP"], "unit": "nanometer", "scale": 250}
    told = open_slide(one_file(made(tmp_path, version, grey, "cyx", **said)))
    assert told.channels == ("DNA", "GFP")
    assert told.mpp == pytest.approx(0.25)
    assert not told.rgb
    assert open_slide(one_file(made(tmp_path, version, grey, "cyx"))).mpp is None
    assert open_slide(one_file(made(tmp_path, version, grey, "cyx"))).channels == ("C0", "C1")
    assert open_slide(one_file(made(tmp_path, version, position_rgb((20, 30)), "cyx", labels=["r", "g", "b"]))).rgb


def test_time_series_are_refused_by_name(tmp_path: Path) -> None:
    """More than one time step is refused, naming the axis."""
    with pytest.raises(InputError, match=r"2 steps along the time axis \(t\)"):
        open_slide(one_file(made(tmp_path, "0.5", np.zeros((2, 20, 30), np.uint8), "tyx")))


def test_groups_that_are_no_image_are_refused(tmp_path: Path) -> None:
    """A plate, a bare group, a missing inner image and unknown axes each say what was found."""
    root = zarr.open_group(tmp_path / "plate.zarr", mode="w")
    root.attrs["ome"] = {"version": "0.5", "plate": {}}
    zarr.open_group(tmp_path / "bare.zarr", mode="w")
    odd = made(tmp_path, "0.5", np.zeros((20, 30), np.uint8), "xy")
    for path, inner, words in (
        (tmp_path / "plate.zarr", "", "is an OME-Zarr plate, expected one image"),
        (tmp_path / "plate.zarr", "A/01/0", "A/01/0: is a folder and no OME-Zarr"),
        (tmp_path / "bare.zarr", "", "has no multiscales"),
        (odd, "", "has the axes"),
    ):
        with pytest.raises(InputError, match=words):
            open_slide(one_file(path, inner))


def test_a_damaged_chunk_is_an_input_error(tmp_path: Path) -> None:
    """A chunk that cannot be decoded is an InputError that names the image."""
    path = made(tmp_path, "0.5", position_grey((70, 90))[0], "yx")
    (path / "0" / "c" / "0" / "0").write_bytes(b"not zstd")
    with pytest.raises(InputError, match=r"image\.zarr: a chunk of"):
        open_slide(one_file(path)).read(whole((70, 90)))
