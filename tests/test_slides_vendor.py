"""The OpenSlide reader against tifffile's on slides that both know (needs the extra `wsi`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slidebatch.errors import InputError
from slidebatch.geometry import Box
from slidebatch.slides import open_slide
from slidebatch.slides.facts import Window
from slidebatch.slides.vendor import open_vendor
from tests.support.position import one_file

openslide = pytest.importorskip("openslide", reason="OpenSlide is not installed (extra wsi)")


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
def test_openslide_and_tifffile_agree(realdata: Path, name: str) -> None:
    """Both readers give the same levels and pixel size, and the same pixels across the fixed blocks' borders."""
    path = str(realdata / "slides" / name)
    ours, theirs = open_slide(one_file(path)), open_vendor(path, "asked for")
    assert theirs.facts.levels == ours.levels
    assert theirs.facts.vendor
    assert (theirs.facts.mpp or (None,))[0] == ours.mpp
    for box in (Box(500, 490, 1100, 1200), Box(1500, 2000, 1783, 2220)):
        np.testing.assert_array_equal(theirs.read(Window(0, box, (2, 0), (0,))), ours.read(box, 0, [2, 0]))


@pytest.mark.realdata
def test_any_window_of_an_uneven_level_gives_the_same_bits(realdata: Path) -> None:
    """Where OpenSlide interpolates (a step of 2.0005), a window still is the same part of any larger one."""
    path = str(realdata / "slides" / "tcga-cr-7395-01a-01-ts1.svs")
    reader = open_vendor(path, "asked for")
    large, small = Box(400, 1400, 1783, 2221), Box(1000, 1501, 1091, 2101)
    whole_window = reader.read(Window(1, large, (0, 1, 2), (0,)))
    found = reader.read(Window(1, small, (0, 1, 2), (0,)))
    np.testing.assert_array_equal(found, whole_window[(slice(None), *small.slices(large))])
    off = np.abs(found.astype(int) - open_slide(one_file(path)).read(small, 1))
    assert off.mean() < 5


def test_what_openslide_does_not_know_is_refused(tmp_path: Path) -> None:
    """With OpenSlide installed an unknown file is still an InputError that names it."""
    (tmp_path / "notes.mrxs").write_text("no slide")
    with pytest.raises(InputError, match=r"notes\.mrxs: no reader knows"):
        open_slide(one_file(tmp_path / "notes.mrxs"))
