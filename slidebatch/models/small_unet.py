"""The network `small_unet`: a U-Net of 0.5 M parameters with three poolings, for nucleus, contour, background.

It owns the layers and their arithmetic only; `models.dense` runs it, `training` fits it, `blocks.ready` makes it fast.

Every layer is exactly equivariant to shifts by the stride (8 px): convolutions, 2 x 2 max pooling and
nearest-neighbour upsampling, nothing that looks at the patch's size or ends. So a pixel's answer depends on
the pixels within half a receptive field around it, and on nothing else of the patch. Shape after U-Net
(Ronneberger et al. 2015, arXiv:1505.04597), with 'same' padding instead of valid convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from slidebatch.models.blocks import Up, half_field_px


@dataclass(frozen=True)
class Architecture:
    """What fixes the network's tensors: the card stores it, the weights must fit it.

    channels  image channels
    classes   class maps, background first
    widths    features at each scale, finest first; one pooling between neighbours
    """

    channels: PositiveInt = 3
    classes: PositiveInt = 3
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64, 128)

    @property
    def stride_px(self) -> int:
        """Patches must start and end on multiples of this."""
        return 2 ** (len(self.widths) - 1)

    @property
    def margin_px(self) -> int:
        """Half the receptive field in pixels: the farthest pixel that an output pixel can depend on."""
        return half_field_px(len(self.widths))


def layers(before: int, after: int) -> list[nn.Module]:
    """Two 3 x 3 convolutions, each with batch norm and ReLU."""
    return [
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]


class SmallUNet(nn.Module):
    """(N, channels, Y, X) float32 in 0..1 -> (N, classes, Y, X) logits; Y and X multiples of the stride."""

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        super().__init__()
        widths = architecture.widths
        self.down = nn.ModuleList(
            nn.Sequential(*layers(before, after))
            for before, after in zip((architecture.channels, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(
            Up(*layers(fine + coarse, fine)) for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], architecture.classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.down[0](image)  # (N, widths[0], Y, X)
        skips = []
        for block in self.down[1:]:
            skips.append(features)
            features = block(functional.max_pool2d(features, 2))  # halves Y and X
        for block in self.up:
            features = block(skips.pop(), features)
        return self.head(features)


@torch.inference_mode()
def class_maps(network: nn.Module, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(N, C, Y, X) float32 in 0..1 -> all classes but background (N, K, Y, X) uint8 = round(255 softmax)."""
    device = next(network.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(patches)).to(device).contiguous(memory_format=torch.channels_last)
    chance = network(image).softmax(dim=1)[:, 1:]
    return (chance * 255).round().to(torch.uint8).contiguous().cpu().numpy()
