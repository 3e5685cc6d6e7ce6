"""One run of the shipped network over real slides, good and bad ones together, shared by several tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tifffile

from slidebatch import batch
from slidebatch.config import RunConfig

CMU = "CMU-1-Small-Region"
TCGA = "tcga-cr-7395-01a-01-ts1"
CROP_PX = (800, 1100, 800, 1400)
"""The crop of the CMU slide: rows y0..y1 and columns x0..x1 (300 x 600 pixels, full of tissue)."""


def slides_config(realdata: Path, folder: Path, **sections: Any) -> RunConfig:
    """All SVS slides and `folder`/crop.tif with the shipped network, maps kept, serial, into `folder`/results."""
    values: dict[str, Any] = {
        "name": "slides",
        "input": {"path": [str(realdata / "slides" / "*.svs"), str(folder / "crop.tif")]},
        "output": {"path": str(folder / "results"), "keep_maps": True, "chunk_px": 256, "shard_px": 1024},
        "cluster": {"kind": "serial"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return RunConfig.model_validate(values)


@pytest.fixture(scope="session")
def cmu_pixels(realdata: Path) -> Any:
    """The CMU slide whole: (Y, X, 3) uint8."""
    return tifffile.imread(realdata / "slides" / f"{CMU}.svs", key=0)


@pytest.fixture(scope="session")
def slides_run(realdata: Path, cmu_pixels: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, batch.Outcome]:
    """The folder of the run over the slides, and how the run ended."""
    folder = tmp_path_factory.mktemp("slides")
    y0, y1, x0, x1 = CROP_PX
    tifffile.imwrite(folder / "crop.tif", cmu_pixels[y0:y1, x0:x1], photometric="rgb")
    return folder, batch.run(slides_config(realdata, folder))
