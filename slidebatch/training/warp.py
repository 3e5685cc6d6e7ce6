"""Other positions and shapes of the same nuclei: one sampling grid for image and labels, read once.

Enlargement, turning, mirroring and elastic distortion are put together into one grid of source positions, so that
an image is interpolated once whatever happens to it, and labels lie exactly where the image does. Elastic: random
shifts of control points, smoothly interpolated (after Simard et al. 2003, "Best practices for convolutional neural
networks").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from slidebatch.training.spec import AugmentSpec

Floats = npt.NDArray[np.float32]
KNOT_PX = 32
"""Distance of the control points of an elastic distortion."""


@dataclass(frozen=True)
class Warp:
    """Where the pixels of a crop come from.

    size     (y, x) of the crop
    matrix   (2, 2) source shift (y, x) per shift in the crop: enlargement, turning and mirroring
    elastic  (2, m, n) shifts of control points in source pixels, or None
    """

    size: tuple[int, int]
    matrix: npt.NDArray[np.float64]
    elastic: Floats | None = None

    def reach(self) -> npt.NDArray[np.float64]:
        """How far from its centre, in y and x, a crop looks into the source."""
        half = np.abs(self.matrix) @ (np.array(self.size) / 2)
        return half + (0 if self.elastic is None else float(np.abs(self.elastic).max()))


def draw(size: tuple[int, int], spec: AugmentSpec, rng: np.random.Generator) -> Warp:
    """A random warp; mirroring and quarter turns are exact where nothing else happens."""
    scale = math.exp(rng.uniform(*np.log(spec.scale)))
    turn = rng.uniform(-math.pi, math.pi) if rng.random() < spec.rotate_chance else 0.0
    if spec.flips and not turn:
        turn = int(rng.integers(4)) * math.pi / 2
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) / scale
    if spec.flips and rng.integers(2):
        matrix = matrix @ np.diag([-1.0, 1.0])
    elastic = None
    if rng.random() < spec.elastic_chance:
        knots = [side // KNOT_PX + 3 for side in size]
        elastic = rng.uniform(-spec.elastic_px, spec.elastic_px, (2, *knots)).astype(np.float32)
    return Warp(size, matrix, elastic)


def anywhere(shape: tuple[int, int], warp: Warp, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random centre (y, x) of a crop in an image (Y, X), such that it looks out of it no more than it must."""
    reach = np.minimum(warp.reach(), np.array(shape) / 2)
    return rng.uniform(reach, np.maximum(np.array(shape) - reach, reach + 1e-9))


def sample(
    image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32], warp: Warp, centre: npt.NDArray[np.float64]
) -> tuple[Tensor, npt.NDArray[np.int32]]:
    """The crop at a centre (y, x): image (C, y, x) float32 in 0..1 by lines between pixels, labels by the nearest.

    Beyond the image it is mirrored.
    """
    reach = warp.reach() + 2 + (0 if warp.elastic is None else float(np.abs(warp.elastic).max()))  # cubics overshoot
    low = np.floor(np.clip(centre - reach, 0, None)).astype(int)
    high = np.minimum(np.ceil(centre + reach), labels.shape).astype(int)
    inside = np.s_[low[0] : high[0], low[1] : high[1]]
    pixels = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *inside)])).float().div_(255)
    ids = torch.from_numpy(np.ascontiguousarray(labels[inside])).float()
    grid = _grid(warp, centre - low, tuple(high - low))
    found = functional.grid_sample(pixels[None], grid, "bilinear", "reflection", align_corners=False)
    names = functional.grid_sample(ids[None, None], grid, "nearest", "reflection", align_corners=False)
    return found[0], names[0, 0].to(torch.int32).numpy()


def _grid(warp: Warp, centre: npt.NDArray[np.float64], shape: tuple[int, ...]) -> Tensor:
    """Source positions (1, y, x, 2) as (x, y) in -1..1 across a source of `shape`, as torch wants them."""
    height, width = warp.size
    y = torch.arange(height, dtype=torch.float32)[:, None] + 0.5 - height / 2
    x = torch.arange(width, dtype=torch.float32)[None, :] + 0.5 - width / 2
    matrix = warp.matrix.astype(np.float32)
    at_y = float(centre[0]) + float(matrix[0, 0]) * y + float(matrix[0, 1]) * x
    at_x = float(centre[1]) + float(matrix[1, 0]) * y + float(matrix[1, 1]) * x
    if warp.elastic is not None:
        shift = functional.interpolate(torch.from_numpy(warp.elastic)[None], warp.size, mode="bicubic")[0]
        at_y, at_x = at_y + shift[0], at_x + shift[1]
    return torch.stack([at_x * (2 / shape[1]) - 1, at_y * (2 / shape[0]) - 1], dim=-1)[None]
