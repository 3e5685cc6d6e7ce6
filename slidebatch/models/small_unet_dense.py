"""The network `small_unet_dense`: a small U-Net whose coarsest scale is fully connected.

Every pixel of a patch may matter to every other, so the network has one patch size and no receptive-field margin.
It answers larger images on a grid of its own patches, anchored at the image's corner: neighbours overlap by twice
`overlap_px`, and of each the cell in its middle is kept. Beyond the image there are zeros, as around a convolution.
So a pixel's answer depends on the patch of its cell alone, and the network is exactly equivariant to shifts by whole
cells: to the engine it is a network with that stride and a margin of a cell and the overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from slidebatch.models.blocks import Up
from slidebatch.models.small_unet import layers


@dataclass(frozen=True)
class Architecture:
    """What fixes the network's tensors and its grid.

    channels    image channels
    classes     class maps, background first
    widths      features at each scale, finest first; one pooling between neighbours
    patch_px    (y, x) size of a patch, multiples of 2 to the number of poolings
    overlap_px  what is thrown away at each side of a patch; the cell that is left is a multiple of the same
    squeezed    features of the coarsest scale that are fully connected
    hidden      values that the whole patch is squeezed through
    dropout     share of the hidden values that training leaves out
    """

    channels: PositiveInt = 3
    classes: PositiveInt = 3
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (16, 32, 64, 128)
    patch_px: tuple[PositiveInt, PositiveInt] = (64, 80)
    overlap_px: Annotated[int, Field(ge=0)] = 8
    squeezed: PositiveInt = 16
    hidden: PositiveInt = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3

    def __post_init__(self) -> None:
        step = 2 ** (len(self.widths) - 1)
        if min(self.cell_px) < 1 or any(side % step for side in self.patch_px):
            raise ValueError(
                f"patches of {self.patch_px} px with an overlap of {self.overlap_px} px do not work: sides must be "
                f"multiples of {step} px and larger than twice the overlap"
            )

    @property
    def cell_px(self) -> tuple[int, int]:
        """(y, x) size of what is kept of a patch."""
        return self.patch_px[0] - 2 * self.overlap_px, self.patch_px[1] - 2 * self.overlap_px

    @property
    def stride_px(self) -> int:
        """Images must start and end on multiples of this: whole cells both ways."""
        return math.lcm(*self.cell_px)

    @property
    def margin_px(self) -> int:
        """The farthest pixel that an output pixel can depend on: the far end of its cell's patch."""
        return max(self.cell_px) - 1 + self.overlap_px

    @property
    def unrolled(self) -> bool:
        """Whether the network loops over its own patches, which exported graphs cannot."""
        return True


class SmallUNetDense(nn.Module):
    """(N, channels, Y, X) float32 in 0..1 -> (N, classes, Y, X) logits.

    Y and X are one patch (then nothing is cut: for training), or multiples of the cell.
    """

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        super().__init__()
        self.architecture = architecture
        widths = architecture.widths
        befores = (architecture.channels, *widths[:-1])
        pairs = zip(widths[-2::-1], widths[:0:-1], strict=True)
        self.down = nn.ModuleList(nn.Sequential(*layers(a, b)) for a, b in zip(befores, widths, strict=True))
        self.connect = Connected(architecture)
        self.up = nn.ModuleList(Up(*layers(fine + coarse, fine)) for fine, coarse in pairs)
        self.head = nn.Conv2d(widths[0], architecture.classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        if tuple(image.shape[2:]) == self.architecture.patch_px:
            return self._patch(image)
        patches, grid = cut(image, self.architecture)
        if torch.is_grad_enabled():
            return joined(self._patch(patches), grid, self.architecture.overlap_px)
        # One patch at a time where bits count: a matrix product's depend on how many rows it has.
        answers = torch.cat([self._patch(p[None]) for p in patches])
        return joined(answers, grid, self.architecture.overlap_px)

    def _patch(self, image: Tensor) -> Tensor:
        features = self.down[0](image)
        skips = []
        for block in self.down[1:]:
            skips.append(features)
            features = block(functional.max_pool2d(features, 2))
        features = self.connect(features)
        for block in self.up:
            features = block(skips.pop(), features)
        return self.head(features)


class Connected(nn.Module):
    """The coarsest scale through a fully connected bottleneck, added to what it was (an extra path around)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        step = 2 ** (len(architecture.widths) - 1)
        sides = (architecture.patch_px[0] // step, architecture.patch_px[1] // step)
        shape = (architecture.squeezed, *sides)
        self.squeeze = nn.Conv2d(architecture.widths[-1], architecture.squeezed, 1)
        self.inner = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), architecture.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(architecture.dropout),
            nn.Linear(architecture.hidden, math.prod(shape)),
            nn.Unflatten(1, shape),
        )
        self.widen = nn.Conv2d(architecture.squeezed, architecture.widths[-1], 1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.widen(self.inner(self.squeeze(features)))


def cut(image: Tensor, architecture: Architecture) -> tuple[Tensor, tuple[int, int, int]]:
    """The patches (N * rows * columns, C, y, x) of images (N, C, Y, X) in raster order, and (N, rows, columns).

    ValueError where the images are no whole number of cells.
    """
    cell, overlap, patch = architecture.cell_px, architecture.overlap_px, architecture.patch_px
    if any(side % c for side, c in zip(image.shape[2:], cell, strict=True)):
        raise ValueError(f"image of {tuple(image.shape[2:])} px is no patch of {patch} and no whole cells of {cell}")
    wide = functional.pad(image, (overlap,) * 4)
    pieces = wide.unfold(2, patch[0], cell[0]).unfold(3, patch[1], cell[1])  # (N, C, rows, columns, y, x)
    grid = (pieces.shape[0], pieces.shape[2], pieces.shape[3])
    return pieces.permute(0, 2, 3, 1, 4, 5).reshape(-1, image.shape[1], *patch), grid


def joined(answers: Tensor, grid: tuple[int, int, int], overlap_px: int) -> Tensor:
    """The answers of patches without their overlaps, put side by side: (N, classes, Y, X)."""
    height, width = (side - 2 * overlap_px for side in answers.shape[2:])
    kept = answers[:, :, overlap_px : overlap_px + height, overlap_px : overlap_px + width]
    count, rows, columns = grid
    kept = kept.reshape(count, rows, columns, -1, height, width)
    return kept.permute(0, 3, 1, 4, 2, 5).reshape(count, -1, rows * height, columns * width)
