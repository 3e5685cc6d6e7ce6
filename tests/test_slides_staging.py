"""Laws of staged copies: made once, whole or absent, never older than their source."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from slidebatch.errors import EnvironmentFault, InputError
from slidebatch.geometry import whole
from slidebatch.slides import caches, open_slide, staging
from tests.support.position import SHAPE, png


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "WHOLE_CACHE_BYTES", 1000)


def test_without_a_folder_large_pictures_are_refused(tmp_path: Path) -> None:
    """A picture too large to be kept decoded is refused where nothing may be staged, saying what to do."""
    with pytest.raises(InputError, match="give a folder to stage it in"):
        open_slide(png()(tmp_path).source)


def test_processes_that_race_leave_one_whole_copy(tmp_path: Path) -> None:
    """Several stagings of one image at once all read true pixels and leave one copy and no leftovers."""
    made, folder = png()(tmp_path), tmp_path / "staged"
    with ThreadPoolExecutor(4) as pool:
        slides = list(pool.map(lambda _: open_slide(made.source, staged=str(folder)), range(8)))
    for slide in slides:
        np.testing.assert_array_equal(slide.read(whole(SHAPE)), made.levels[0])
    assert len(list(folder.iterdir())) == 1


def test_a_copy_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second opening takes the copy that is there."""
    made, folder = png()(tmp_path), str(tmp_path / "staged")
    open_slide(made.source, staged=folder).read(whole(SHAPE))
    monkeypatch.setattr(staging, "_copy_level", None)
    np.testing.assert_array_equal(open_slide(made.source, staged=folder).read(whole(SHAPE)), made.levels[0])


def test_a_changed_source_is_staged_anew(tmp_path: Path) -> None:
    """After the source was replaced, its old copy is not read."""
    folder = str(tmp_path / "staged")
    open_slide(png()(tmp_path).source, staged=folder).read(whole(SHAPE))
    made = png(dtype=np.uint16)(tmp_path)
    np.testing.assert_array_equal(open_slide(made.source, staged=folder).read(whole(SHAPE)), made.levels[0])


def test_a_full_disk_is_the_environments_fault_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the copy cannot be written the run is told so, and nothing that looks whole stays behind."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(staging, "_copy_level", full)
    slide = open_slide(png()(tmp_path).source, staged=str(tmp_path / "staged"))
    with pytest.raises(EnvironmentFault, match="No space left"):
        slide.read(whole(SHAPE))
    assert not list((tmp_path / "staged").iterdir())


def test_opening_copies_nothing(tmp_path: Path) -> None:
    """A slide that will be staged is opened without writing anything: only reading makes the copy."""
    slide = open_slide(png()(tmp_path).source, staged=str(tmp_path / "staged"))
    assert slide.shape == SHAPE
    assert not (tmp_path / "staged").exists()
