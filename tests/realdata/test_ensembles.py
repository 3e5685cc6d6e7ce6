"""Ensembles of real networks on a real slide: tiles leave no trace, whatever the rule joins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slidebatch import batch
from slidebatch.config import RunConfig
from slidebatch.validate import validate
from tests.realdata.test_law4 import cropped, settings
from tests.support.runs import contents, labels_of

pytestmark = pytest.mark.realdata

MEMBERS: list[dict[str, Any]] = [
    {"model": "small_unet"},
    {"name": "mirrored", "model": {"name": "small_unet", "tta": "flips"}},
]


@pytest.mark.parametrize("rule", ["mean", "nms", "fill"])
def test_tiles_leave_no_trace(tmp_path: Path, cmu_pixels: Any, rule: str) -> None:
    """Two members on tissue in tiles that cut hundreds of nuclei, and in one tile: the same files to the byte."""
    folder = cropped(tmp_path, part=cmu_pixels[1000:1800, 700:1500])
    for name, core_px in (("whole", 4096), ("tiled", 200)):
        config = settings(folder, name, tiling={"core_px": core_px}, ensemble={"members": MEMBERS, "rule": rule})
        assert batch.run(RunConfig.model_validate(config.model_dump())).exit_status == 0
        assert validate(folder / name) == []
    assert labels_of(folder / "tiled", "part").max() > 100
    assert contents(folder / "tiled") == contents(folder / "whole")
