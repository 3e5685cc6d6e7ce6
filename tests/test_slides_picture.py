"""Laws of PNG and JPEG pictures: their header tells what decoding gives; odd ones mean what they show."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from slidebatch.errors import InputError
from slidebatch.geometry import Box, whole
from slidebatch.slides import open_slide
from tests.support.position import one_file

RAMP = (np.indices((50, 70)).sum(0) * 2).astype(np.uint8)


def read(path: Path) -> np.ndarray:
    slide = open_slide(one_file(path))
    return slide.read(whole(slide.shape))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_reads_as_it_decodes(tmp_path: Path, mode: str, progressive: bool) -> None:
    """Windows of a JPEG, baseline or progressive, are cut from exactly its decoded pixels."""
    path = tmp_path / "p.jpg"
    Image.fromarray(RAMP).convert(mode).save(path, progressive=progressive)
    truth = imagecodecs.jpeg8_decode(path.read_bytes()).reshape(50, 70, -1)
    box = Box(11, 13, 50, 70)
    found = open_slide(one_file(path)).read(box)
    np.testing.assert_array_equal(found, np.moveaxis(truth, -1, 0)[(slice(None), *box.slices())])


def test_palettes_bits_and_alpha_mean_what_they_show(tmp_path: Path) -> None:
    """A palette reads as RGB, one bit as 0 and 255, and alpha is left out."""
    path = tmp_path / "p.png"
    Image.fromarray(RAMP > 90).save(path)
    np.testing.assert_array_equal(read(path), 255 * (RAMP > 90)[None])
    shown = Image.fromarray(RAMP).convert("RGB").quantize(8)
    shown.save(path)
    np.testing.assert_array_equal(read(path), np.moveaxis(np.asarray(shown.convert("RGB")), -1, 0))
    Image.fromarray(RAMP).convert("LA").save(path)
    np.testing.assert_array_equal(read(path), RAMP[None])


def test_pictures_that_are_no_grey_and_no_rgb_are_refused(tmp_path: Path) -> None:
    """CMYK is refused with what was found."""
    Image.fromarray(RAMP).convert("CMYK").save(tmp_path / "p.jpg")
    with pytest.raises(InputError, match="4 samples, expected grey or RGB"):
        open_slide(one_file(tmp_path / "p.jpg"))


@pytest.mark.parametrize("name", ["p.png", "p.jpg"])
@pytest.mark.parametrize("kept", [10, 20, 300])
def test_a_cut_picture_is_an_input_error(tmp_path: Path, name: str, kept: int) -> None:
    """A picture cut in its header or in its pixels is an InputError that names it, at the latest when read."""
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=name):
        read(path)
