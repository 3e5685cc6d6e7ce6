"""The network `simple_conv`: a few 3 x 3 convolutions in a row at full resolution; the least that could work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn


@dataclass(frozen=True)
class Architecture:
    """What fixes the network's tensors.

    channels  image channels
    classes   class maps, background first
    widths    features of each convolution
    dropout   share of features that training leaves out after each convolution
    """

    channels: PositiveInt = 3
    classes: PositiveInt = 3
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 32, 16)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def stride_px(self) -> int:
        """Patches may start and end anywhere."""
        return 1

    @property
    def margin_px(self) -> int:
        """Half the receptive field in pixels: one for each convolution."""
        return len(self.widths)


class SimpleConv(nn.Module):
    """(N, channels, Y, X) float32 in 0..1 -> (N, classes, Y, X) logits; Y and X any."""

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        super().__init__()
        before = (architecture.channels, *architecture.widths[:-1])
        steps: list[nn.Module] = []
        for a, b in zip(before, architecture.widths, strict=True):
            steps += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout2d(architecture.dropout)]
        self.body = nn.Sequential(*steps)
        self.head = nn.Conv2d(architecture.widths[-1], architecture.classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image))
