"""Synthetic label images and the class maps from which the decoder finds exactly those labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Labels = npt.NDArray[np.int32]


def touching_field(shape: tuple[int, int], spacing_px: float, rng: np.random.Generator, gap: float = 0.1) -> Labels:
    """A dense field of touching cells: the Voronoi cells of jittered grid points, a share `gap` left empty."""
    rows, columns = int(np.ceil(shape[0] / spacing_px)) + 1, int(np.ceil(shape[1] / spacing_px)) + 1
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    points = (grid + rng.uniform(-0.35, 0.35, grid.shape)) * spacing_px
    seeds = np.ones(shape, bool)
    at = np.round(points).astype(int)
    inside = ((at >= 0) & (at < shape)).all(axis=1)
    at = at[inside]
    seeds[at[:, 0], at[:, 1]] = False
    nearest = ndimage.distance_transform_edt(seeds, return_distances=False, return_indices=True)
    number = np.zeros(shape, np.int32)
    number[at[:, 0], at[:, 1]] = rng.permutation(len(at)) + 1
    labels = number[nearest[0], nearest[1]]
    return np.where(np.isin(labels, np.flatnonzero(rng.random(len(at) + 1) < gap)), 0, labels).astype(np.int32)


def maps_of(labels: Labels, rim_px: int = 1) -> npt.NDArray[np.uint8]:
    """Class maps (nucleus, contour): the contour is what lies within `rim_px` of another label."""
    size = 2 * rim_px + 1
    same = ndimage.minimum_filter(labels, size) == ndimage.maximum_filter(labels, size)
    inner = (labels > 0) & same
    return np.stack([np.where(inner, 255, 0), np.where((labels > 0) & ~inner, 255, 0)]).astype(np.uint8)


def random_maps(shape: tuple[int, int], rng: np.random.Generator, sigma_px: float = 3.0) -> npt.NDArray[np.uint8]:
    """Class maps of no particular sense: smooth noise, with seeds and foreground of every shape and size."""

    def smooth() -> npt.NDArray[np.float64]:
        noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma_px)
        return noise / max(float(noise.std()), 1e-9)

    nucleus = np.clip(127 + 90 * smooth(), 0, 255)
    return np.stack([nucleus, np.clip(60 + 60 * smooth(), 0, 255 - nucleus)]).astype(np.uint8)
