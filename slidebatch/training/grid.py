"""A fixed set of patches: images, changed copies of them, and a grid cut through each.

A copy, too, is a pure function of the seed and its number; so is the order of the patches in each epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slidebatch.errors import ConfigError
from slidebatch.training import warp
from slidebatch.training.colour import recolour
from slidebatch.training.crops import Crop, finished
from slidebatch.training.dataset import Example, by_modality
from slidebatch.training.spec import GridSpec, TrainSpec

log = logging.getLogger(__name__)

Kept = tuple[Tensor, npt.NDArray[np.int32]]


class Grid:
    """Patch by number: epochs one after the other, each in an order of its own."""

    def __init__(self, examples: Sequence[Example], spec: TrainSpec, channels: int) -> None:
        assert isinstance(spec.sampling, GridSpec)
        self.spec = spec
        self.grid = spec.sampling
        self.channels = channels
        self.examples = _chosen(examples, spec)
        self.size = _patch(self.grid)
        self._copies: dict[int, Kept] = {}
        self.places = [p for i in range(self.grid.images) for p in self._places(i)]
        if not self.places:
            raise ConfigError("sampling: all patches are blank; keep blank ones, or choose other images.")

    def __len__(self) -> int:
        """Patches in an epoch: all of them, or as many as the steps take."""
        steps = self.spec.steps_per_epoch
        return len(self.places) if steps is None else steps * self.spec.batch

    def __getitem__(self, number: int) -> Crop:
        epoch, at = divmod(number, len(self.places))
        i, y, x = self.places[_order(len(self.places), self.spec.seed, epoch)[at]]
        image, labels = self.copy(i)
        inside = np.s_[y : y + self.size[0], x : x + self.size[1]]
        return finished(image[(slice(None), *inside)], labels[inside], self.spec, self.channels)

    def _places(self, i: int) -> list[tuple[int, int, int]]:
        """Corners of the patches of copy `i`, without blank ones where these are not kept."""
        labels = self.copy(i)[1]
        height, width = self.size
        corners = [(y, x) for y in range(0, labels.shape[0], height) for x in range(0, labels.shape[1], width)]
        return [(i, y, x) for y, x in corners if self.grid.blank or (labels[y : y + height, x : x + width] > 0).any()]

    def copy(self, i: int) -> Kept:
        """Image (C, Y, X) float32 and labels of copy `i`: the images as they are first, then changed ones in turn."""
        if i not in self._copies:
            self._copies[i] = self._made(i)
        return self._copies[i]

    def _made(self, i: int) -> Kept:
        example = self.examples[i % len(self.examples)]
        centre = np.array(example.labels.shape) / 2
        if i < len(self.examples):
            whole = warp.Warp(self.grid.image_px, np.eye(2))
            return warp.sample(example.image, example.labels, whole, np.floor(centre) + np.array(whole.size) % 2 / 2)
        rng = np.random.default_rng([self.spec.seed, i])
        drawn = warp.draw(self.grid.image_px, self.spec.augment, rng)
        image, labels = warp.sample(
            example.image, example.labels, drawn, warp.anywhere(example.labels.shape, drawn, rng)
        )
        return recolour(image, self.spec.augment, example.colour, rng), labels


def _chosen(examples: Sequence[Example], spec: TrainSpec) -> list[Example]:
    """The first images large enough, in the order of their ids, of the modalities wanted."""
    assert isinstance(spec.sampling, GridSpec)
    grid = spec.sampling
    rows = sorted(i for of in by_modality(examples, spec.data.mix).values() for i in of)
    large = [
        examples[i] for i in rows if all(n >= m for n, m in zip(examples[i].labels.shape, grid.image_px, strict=True))
    ]
    if not large:
        raise ConfigError(f"sampling.image_px: no image has {grid.image_px} px (y, x); make it smaller.")
    if small := len(rows) - len(large):
        log.warning("%d images smaller than sampling.image_px %s are left out", small, grid.image_px)
    return large[: grid.most]


def _patch(grid: GridSpec) -> tuple[int, int]:
    """(y, x) of a patch. ConfigError where the image is no whole number of patches."""
    height, width = grid.image_px
    if height % grid.divisions or width % grid.divisions:
        raise ConfigError(f"sampling: images of {grid.image_px} px cannot be cut into {grid.divisions} a side.")
    return height // grid.divisions, width // grid.divisions


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).numpy()
