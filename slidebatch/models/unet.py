"""The network `unet`: a U-Net of any widths and depth, with a choice of activation, norm and dropout.

Shape after U-Net (Ronneberger et al. 2015, arXiv:1505.04597), with 'same' padding and nearest-neighbour upsampling;
He initialisation (He et al. 2015, arXiv:1502.01852), and LeCun's with SELU (Klambauer et al. 2017, arXiv:1706.02515).
A U-Net of 2 n - 1 blocks has n widths: 9 blocks (32, 64, 128, 256, 512), 13 blocks two more.

Its answers depend on the surroundings within `half_field_px` alone, unless the norm looks at whole patches (group).
Deep ones look far: 9 blocks 107 px, 13 blocks 443 px. Such a network may state an overlap instead: less is thrown
away, and its answers then depend, a little, on where patches lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from slidebatch.models.blocks import Up, half_field_px

GROUPS = 8
"""Groups of a group norm; one per feature where the features cannot be shared out so."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "selu": lambda: nn.SELU(inplace=True),
}


@dataclass(frozen=True)
class Architecture:
    """What fixes the network's tensors and its arithmetic.

    channels    image channels
    classes     class maps, background first
    widths      features at each scale, finest first; one pooling between neighbours
    activation  after each 3 x 3 convolution (and norm)
    dropout     share of values that training leaves out, between the two convolutions of each block
    norm        after each 3 x 3 convolution: none, batch or group
    overlap_px  thrown away at each side of a patch in place of half the receptive field; None: all of that
    """

    channels: PositiveInt = 3
    classes: PositiveInt = 3
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64, 128, 256, 512)
    activation: Literal["relu", "elu", "selu"] = "relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    norm: Literal["none", "batch", "group"] = "batch"
    overlap_px: Annotated[int, Field(ge=0)] | None = None

    @property
    def stride_px(self) -> int:
        """Patches must start and end on multiples of this."""
        return 2 ** (len(self.widths) - 1)

    @property
    def margin_px(self) -> int:
        """What is thrown away at each side of a patch: the stated overlap, or half the receptive field."""
        return half_field_px(len(self.widths)) if self.overlap_px is None else self.overlap_px

    @property
    def flaw(self) -> str:
        """Why patches of this network cannot be put together seamlessly; empty where they can."""
        if self.norm != "group" or self.overlap_px is not None:
            return ""
        return (
            "a group norm looks at the whole patch, so that no margin makes patches fit together; "
            "train with norm batch or none, or state an overlap_px in the architecture"
        )


class UNet(nn.Module):
    """(N, channels, Y, X) float32 in 0..1 -> (N, classes, Y, X) logits; Y and X multiples of the stride."""

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        super().__init__()
        widths = architecture.widths
        befores = (architecture.channels, *widths[:-1])
        pairs = zip(widths[-2::-1], widths[:0:-1], strict=True)
        self.down = nn.ModuleList(
            nn.Sequential(*layers(a, b, architecture)) for a, b in zip(befores, widths, strict=True)
        )
        self.up = nn.ModuleList(Up(*layers(fine + coarse, fine, architecture)) for fine, coarse in pairs)
        self.head = nn.Conv2d(widths[0], architecture.classes, 1)
        self.apply(lambda m: initialise(m, architecture.activation))

    def forward(self, image: Tensor) -> Tensor:
        features = self.down[0](image)  # (N, widths[0], Y, X)
        skips = []
        for block in self.down[1:]:
            skips.append(features)
            features = block(functional.max_pool2d(features, 2))
        for block in self.up:
            features = block(skips.pop(), features)
        return self.head(features)


def layers(before: int, after: int, architecture: Architecture) -> list[nn.Module]:
    """Two convolutions of 3 x 3, each with its norm and activation, and dropout between them."""
    between = [nn.Dropout(architecture.dropout)] if architecture.dropout else []
    return [*_step(before, after, architecture), *between, *_step(after, after, architecture)]


def _step(before: int, after: int, architecture: Architecture) -> list[nn.Module]:
    norms: dict[str, list[nn.Module]] = {
        "none": [],
        "batch": [nn.BatchNorm2d(after)],
        "group": [nn.GroupNorm(GROUPS if after % GROUPS == 0 else after, after)],
    }
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=architecture.norm == "none")
    return [convolution, *norms[architecture.norm], ACTIVATIONS[architecture.activation]()]


def initialise(module: nn.Module, activation: str) -> None:
    """Weights that keep the variance of features from layer to layer; changes `module`."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if activation == "selu" else "relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
