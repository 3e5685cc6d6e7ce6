"""Truth for oracles: label fields made of a few rules, written as the oracles read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from slidebatch.models.spec import ModelSpec

Labels = npt.NDArray[np.int32]


def write_truth(folder: Path, slide: str, labels: npt.NDArray[np.integer]) -> Path:
    """Write a label image as `<slide>.tif` where an oracle with `truth: folder` finds it; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slide}.tif"
    tifffile.imwrite(path, labels.astype(np.uint32))
    return path


def oracle_spec(folder: Path, name: str = "oracle", **settings: float) -> ModelSpec:
    """The config of an oracle over a folder of truth."""
    return ModelSpec(name=name, settings={"truth": str(folder), **settings})


def bricks(shape: tuple[int, int], height: int = 9, width: int = 12, gap: int = 0) -> Labels:
    """Bricks in running bond, each its own label, touching (gap 0) or `gap` px apart; (Y, X) int32."""
    y, x = np.indices(shape)
    row = y // (height + gap)
    shifted = x + (row % 2) * ((width + gap) // 2)
    column = shifted // (width + gap)
    solid = (y % (height + gap) < height) & (shifted % (width + gap) < width)
    labels = row * (int(column.max()) + 1) + column + 1
    return np.where(solid, labels, 0).astype(np.int32)


def disks(shape: tuple[int, int], seed: int = 0, step_px: int = 22) -> Labels:
    """Disks of radius 6-9 px around a jittered lattice, many of them touching, cut where two meet; int32."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    labels, nearest = np.zeros(shape, np.int32), np.full(shape, np.inf)
    centres = [
        (cy, cx) for cy in range(12, shape[0] - 11, step_px) for cx in range(12, shape[1] - 11, step_px // 2 + 4)
    ]
    for i, (cy, cx) in enumerate(centres, 1):
        dy, dx = rng.integers(-2, 3, 2)
        away = np.hypot(y - cy - dy, x - cx - dx) - rng.uniform(6, 9)
        mine = (away < 0) & (away < nearest)
        labels[mine], nearest[mine] = i, away[mine]
    return labels
