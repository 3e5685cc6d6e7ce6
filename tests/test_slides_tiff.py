"""Laws of TIFF: axes, z, colours, pixel types, pixel sizes, and how little of a file a window touches."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.slides import caches, open_slide, tiff
from tests.support.position import SHAPE, one_file, position_grey, position_rgb

HOW: dict[str, Any] = {"photometric": "minisblack"}


def write(folder: Path, pixels: np.ndarray, name: str = "slide.tif", **how: Any) -> Path:
    tifffile.imwrite(folder / name, pixels, **how)
    return folder / name


def read(path: Path, **how: Any) -> np.ndarray:
    slide = open_slide(one_file(path), **how)
    return slide.read(whole(slide.shape))


def planes(order: str) -> np.ndarray:
    """A stack of 2 channels and 3 planes; plane z of channel c holds its position plus 2000 c + 500 * (z % 2)."""
    stack = position_grey((40, 50))[:1, None] + 2000 * np.arange(2)[:, None, None, None]
    stack = (stack + 500 * (np.arange(3) % 2)[:, None, None]).astype(np.uint16)  # (C, Z, Y, X)
    return stack if order == "CZ" else stack.swapaxes(0, 1).copy()


@pytest.mark.parametrize("order", ["CZ", "ZC"])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_z_is_chosen_by_index_or_by_maximum(tmp_path: Path, order: str, kind: str) -> None:
    """`z` picks one plane or the maximum of all, whichever way the pages run."""
    if kind == "imagej":
        order = "ZC"
    path = write(tmp_path, planes(order), "z.ome.tif" if kind == "ome" else "z.tif",
                 **HOW, **{kind: True}, metadata={"axes": f"{order}YX"})  # fmt: skip
    truth = planes("CZ")
    for z in range(3):
        np.testing.assert_array_equal(read(path, z=z), truth[:, z])
    np.testing.assert_array_equal(read(path, z="max"), truth.max(1))
    for wrong in (None, 3, -1):
        with pytest.raises(InputError, match="has 3 z planes"):
            open_slide(one_file(path), z=wrong)


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_time_series_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    """More than one time step is refused, naming the axis; a single step is an ordinary image."""
    name = "t.ome.tif" if kind == "ome" else "t.tif"
    how = {**HOW, kind: True, "metadata": {"axes": "TYX"}}
    with pytest.raises(InputError, match=r"4 steps along the time axis \(T\)"):
        open_slide(one_file(write(tmp_path, np.zeros((4, 20, 30), np.uint16), name, **how)))
    assert read(write(tmp_path, np.ones((1, 20, 30), np.uint16), name, **how)).shape == (1, 20, 30)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [("bool", "uint8"), ("int8", "float32"), ("int16", "float32"), ("float16", "float32"), ("float64", "float32")],
)
def test_other_pixel_types_are_converted_without_loss(tmp_path: Path, stored: str, expected: str) -> None:
    """bool becomes 0 and 255; int8, int16 and float become float32 with the same values."""
    pixels = (np.arange(600).reshape(20, 30) % 100 - 50).astype(stored)
    found = read(write(tmp_path, pixels, **HOW))[0]
    assert found.dtype == expected
    np.testing.assert_array_equal(found, pixels * 255 if stored == "bool" else pixels)


@pytest.mark.parametrize("stored", ["uint32", "int32", "uint64", "complex64"])
def test_pixel_types_that_would_lose_are_refused_by_name(tmp_path: Path, stored: str) -> None:
    """What uint8, uint16 and float32 cannot hold exactly is refused, naming the type."""
    with pytest.raises(InputError, match=f"pixels are {stored}"):
        open_slide(one_file(write(tmp_path, np.zeros((20, 30), stored), **HOW)))


def test_palettes_mean_their_colours(tmp_path: Path) -> None:
    """Indices of colours read as RGB, a palette of greys as one channel, ImageJ's display palette as values."""
    indices = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8)
    ramp = np.arange(256, dtype=np.uint16) * 257
    colours = np.stack([ramp, ramp[::-1], np.zeros_like(ramp)])
    how: dict[str, Any] = {"photometric": "palette", "metadata": None}
    found = read(write(tmp_path, indices, colormap=colours, **how))
    np.testing.assert_array_equal(found, np.stack([indices, 255 - indices, 0 * indices]))
    found = read(write(tmp_path, indices, colormap=np.stack([ramp[::-1]] * 3), **how))
    np.testing.assert_array_equal(found, 255 - indices[None])
    found = read(write(tmp_path, indices, imagej=True, colormap=colours))
    np.testing.assert_array_equal(found, indices[None])


def test_inverted_greys_are_turned(tmp_path: Path) -> None:
    """Where a file says that white is zero, bright stays bright: values are turned round."""
    pixels = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8)
    np.testing.assert_array_equal(read(write(tmp_path, pixels, photometric="miniswhite"))[0], 255 - pixels)


@pytest.mark.parametrize(
    ("how", "mpp"),
    [
        ({"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (40000, 40000), "resolutionunit": "NONE"}, None),
        ({"resolution": (4, 4), "imagej": True, "metadata": {"unit": "um"}}, 0.25),
        ({"resolution": (4, 4), "imagej": True, "metadata": {}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3}}, 0.3),
        ({"ome": True, "metadata": {}}, None),
    ],
)
def test_pixel_size_is_taken_only_where_it_is_believable(
    tmp_path: Path, how: dict[str, Any], mpp: float | None
) -> None:
    """mpp is OME's and ImageJ's word, and resolution tags in cm or inch between 0.05 and 10 um; otherwise None."""
    path = write(tmp_path, np.zeros((20, 30), np.uint16), "p.ome.tif" if "ome" in how else "p.tif", **how)
    found = open_slide(one_file(path)).mpp
    assert found == (None if mpp is None else pytest.approx(mpp))


def test_aperio_slides_tell_their_pixel_size_and_keep_their_label(tmp_path: Path) -> None:
    """An SVS file's MPP is read, and its thumbnail, label and macro are no levels."""
    path = tmp_path / "slide.svs"
    told = "Aperio Image Library v12\r\n430x300 |AppMag = 20|MPP = 0.4990"
    pixels = np.moveaxis(position_rgb(SHAPE), 0, -1)
    with tifffile.TiffWriter(path) as writer:
        how: dict[str, Any] = {"photometric": "rgb", "metadata": None}
        writer.write(pixels, tile=(64, 64), description=told, **how)
        writer.write(pixels[::4, ::4].copy(), description=told, **how)
        writer.write(pixels[::2, ::2].copy(), tile=(64, 64), description=told, **how)
        writer.write(pixels[:50, :60].copy(), subfiletype=1, description=told + "\nlabel 60x50", **how)
        writer.write(pixels[:30, :90].copy(), subfiletype=9, description=told + "\nmacro 90x30", **how)
    slide = open_slide(one_file(path))
    assert [level.shape for level in slide.levels] == [SHAPE, (150, 215)]
    assert slide.mpp == pytest.approx(0.499)
    assert slide.vendor


def test_pixels_that_are_not_square_need_the_users_word(tmp_path: Path) -> None:
    """Pixel sizes that differ between y and x are refused unless input.mpp is stated."""
    told = {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.5}
    path = write(tmp_path, np.zeros((20, 30), np.uint16), "p.ome.tif", ome=True, metadata=told)
    with pytest.raises(InputError, match=r"0\.5 x 0\.3 um"):
        open_slide(one_file(path))
    assert open_slide(one_file(path, mpp=0.4)).mpp == 0.4


def test_a_jpeg_tile_reads_as_tifffile_reads_it(tmp_path: Path) -> None:
    """Windows of a JPEG-tiled file are cut from exactly the pixels of the whole decoded page."""
    ramp = np.indices((200, 260)).sum(0) % 256
    path = write(tmp_path, np.stack([ramp, 255 - ramp, ramp // 2], -1).astype(np.uint8),
                 tile=(64, 64), compression="jpeg", photometric="rgb")  # fmt: skip
    box = Box(50, 60, 200, 260)
    expected = np.moveaxis(tifffile.imread(path), -1, 0)[(slice(None), *box.slices())]
    np.testing.assert_array_equal(open_slide(one_file(path)).read(box), expected)


def counted_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of everything read from TIFF files from now on."""
    sizes: list[int] = []
    plain_raw = tiff.OpenTiff.raw

    def counting(self: Any, page: Any, offset: int, size_bytes: int) -> bytes:
        sizes.append(size_bytes)
        return plain_raw(self, page, offset, size_bytes)

    monkeypatch.setattr(tiff.OpenTiff, "raw", counting)
    return sizes


@pytest.mark.parametrize(
    ("how", "most_bytes"),
    [({"tile": (64, 64)}, 4 * 64 * 64 * 2), ({"rowsperstrip": 512}, 60 * 60 * 2), ({}, 60 * 60 * 2)],
)
def test_a_window_touches_only_its_tiles_or_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], most_bytes: int
) -> None:
    """A small window reads the tiles it meets, and of plain strips nothing but its own pixels."""
    slide = open_slide(one_file(write(tmp_path, position_grey((512, 512))[0], **how)))
    sizes = counted_bytes(monkeypatch)
    slide.read(Box(40, 40, 100, 100))
    assert 0 < sum(sizes) <= most_bytes


def test_neighbouring_windows_share_decoded_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile that two windows meet is read once."""
    slide = open_slide(one_file(write(tmp_path, position_grey((128, 128))[0], tile=(64, 64))))
    sizes = counted_bytes(monkeypatch)
    slide.read(Box(0, 0, 60, 60))
    slide.read(Box(4, 4, 64, 64))
    assert len(sizes) == 1


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    """Opening a path whose file was replaced gives the new pixels, never kept ones."""
    path = write(tmp_path, np.zeros((20, 30), np.uint8))
    assert read(path).max() == 0
    write(tmp_path, np.full((20, 31), 9, np.uint8))
    assert read(path).min() == 9


def test_open_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many slides are open at once, few files are, and each still reads its own pixels."""
    monkeypatch.setattr(caches.open_files, "limit", 4)
    paths = [write(tmp_path, np.full((20, 30), i, np.uint8), f"{i}.tif") for i in range(20)]
    slides = [open_slide(one_file(path)) for path in paths]
    for i, slide in enumerate(slides):
        assert (slide.read(whole(slide.shape)) == i).all()
        assert len(caches.open_files) <= 4


@pytest.mark.parametrize("how", [{}, {"tile": (128, 128)}, {"tile": (128, 128), "compression": "zlib"}])
def test_a_read_allocates_about_its_window(tmp_path: Path, how: dict[str, Any]) -> None:
    """Reading a window of a large file takes memory for the window and the tiles it meets, not for the file."""
    slide = open_slide(one_file(write(tmp_path, np.zeros((3000, 3000), np.uint16), **how)))
    slide.read(Box(0, 0, 1, 1))
    tracemalloc.start()
    slide.read(Box(1000, 1000, 1256, 1256))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * 256 * 256 * 2 < 3000 * 3000 * 2


def test_a_file_changed_under_an_open_slide_is_an_input_error(tmp_path: Path) -> None:
    """When a file is replaced or lost after opening, reading says so; pixels of two files are never mixed."""
    path = write(tmp_path, np.zeros((20, 30), np.uint8))
    slide = open_slide(one_file(path))
    slide.close()
    write(tmp_path, np.full((20, 31), 9, np.uint8))
    with pytest.raises(InputError, match="was changed while it was in use"):
        slide.read(Box(0, 0, 5, 5))
    path.unlink()
    with pytest.raises(InputError, match=r"slide\.tif: cannot be opened"):
        slide.read(Box(0, 0, 5, 5))
