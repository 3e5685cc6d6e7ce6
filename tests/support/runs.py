"""Small real runs for tests: files on disk, a config, a run, and its results read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from slidebatch import batch
from slidebatch.config import RunConfig
from slidebatch.events import OnEvent, ignore

COARSE: dict[str, Any] = {
    "tiling": {"patch_px": 160, "core_px": 256},
    "output": {"chunk_px": 128, "shard_px": 256},
}
"""For slides of a thousand pixels, of which the small tiles of `config` would make thousands of files."""


def write_slides(folder: Path, truths: dict[str, npt.NDArray[Any]]) -> Path:
    """Images (bright nuclei on dark) and their truth, as folder/images and folder/truth."""
    for name in ("images", "truth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for slide, truth in truths.items():
        noise = np.random.default_rng(len(slide)).integers(0, 20, truth.shape)
        image = np.where(truth > 0, 150, 20) + noise
        tifffile.imwrite(folder / "images" / f"{slide}.tif", image.astype(np.uint8), tile=(64, 64))
        tifffile.imwrite(folder / "truth" / f"{slide}.tif", truth.astype(np.int32))
    return folder


def config(folder: Path, output: str, /, **sections: Any) -> RunConfig:
    """A config for slides written by `write_slides`: the dense oracle, serial, small tiles."""
    values: dict[str, Any] = {
        "name": "test",
        "input": {"path": str(folder / "images")},
        "model": {"name": "oracle", "settings": {"truth": str(folder / "truth")}},
        "tissue": {"enabled": "off"},
        "tiling": {"patch_px": 64, "core_px": 96, "largest_px": 32},
        "decode": {"min_area_px": 1, "min_seed_px": 1, "fill_holes": False},
        "output": {"path": str(folder / output), "chunk_px": 64, "shard_px": 128},
        "cluster": {"kind": "serial"},
    }
    for name, section in sections.items():
        base = values.get(name)
        values[name] = {**base, **section} if isinstance(base, dict) and isinstance(section, dict) else section
    return RunConfig.model_validate(values)


def run(settings: RunConfig, on_event: OnEvent = ignore) -> batch.Outcome:
    """Run and return the outcome."""
    return batch.run(settings, on_event)


def labels_of(results: Path, slide: str, level: int = 0) -> npt.NDArray[np.uint32]:
    """The label image of a slide that was stored without its image."""
    return np.asarray(zarr.open_array(str(results / "labels.zarr" / slide / str(level)), mode="r")[:])


def contents(results: Path) -> dict[str, bytes]:
    """Bytes of every file of the results that does not tell the time: labels and tables."""
    kept = [p for p in results.rglob("*") if p.is_file() and "work" not in p.relative_to(results).parts]
    return {
        str(p.relative_to(results)): p.read_bytes()
        for p in sorted(kept)
        if p.name not in {"manifest.json", "summary.parquet"}
    }
