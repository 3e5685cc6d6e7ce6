"""Layers that the dense networks share, and the same networks made ready to answer.

For inference a network is changed into one that computes the same function with less work (`ready`):

* every batch norm is folded into the convolution before it; dropout is left out;
* a convolution of finer features joined with upsampled coarser ones is parted in two. A 3 x 3 convolution after
  nearest-neighbour upsampling is one transposed 4 x 4 convolution with stride 2 of the coarse features, whose taps
  are sums of the nine: four products instead of nine for every output pixel, and no joined copy.

Both are exact but for rounding, at the patch's ends too, where zeros are put around.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)

UPSAMPLED = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Taps of the transposed convolution (4) as sums of the taps of a convolution (3) after upsampling by two, on a
line: output 2 i + t - 1 gets coarse pixel i times tap t."""


class Up(nn.Sequential):
    """Layers on the finer features joined with the coarser ones, upsampled by two; the first is a convolution."""

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:  # type: ignore[override]
        """(N, F, 2Y, 2X) and (N, G, Y, X) -> (N, H, 2Y, 2X)."""
        wide = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        features = torch.cat([fine, wide], dim=1)
        for layer in self:
            features = layer(features)
        return features


class PartedUp(nn.Module):
    """What `Up` computes, without joining: a convolution of each input, added; `fine` is the first one's features."""

    def __init__(self, up: Up) -> None:
        super().__init__()
        joint = up[0]
        assert isinstance(joint, nn.Conv2d)
        assert joint.kernel_size == (3, 3)
        self.fine, self.coarse = parted(joint)
        self.rest = nn.Sequential(*up[1:])

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.rest(self.fine(fine).add_(self.coarse(coarse)))


def parted(joint: nn.Conv2d) -> tuple[nn.Conv2d, nn.ConvTranspose2d]:
    """A convolution of (fine, upsampled coarse) features as one of each; as many fine features as it gives out."""
    weight = joint.weight.detach()
    features = weight.shape[0]
    fine = nn.Conv2d(features, features, 3, padding=1)
    coarse = nn.ConvTranspose2d(weight.shape[1] - features, features, 4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        fine.weight.copy_(weight[:, :features])
        assert fine.bias is not None
        fine.bias.copy_(torch.zeros(features) if joint.bias is None else joint.bias)
        coarse.weight.copy_(torch.einsum("ak,bl,oikl->ioab", UPSAMPLED, UPSAMPLED, weight[:, features:]))
    return fine, coarse


def ready(network: nn.Module) -> nn.Module:
    """A copy of a network that computes what it does in eval mode, faster; it cannot be trained."""
    made = fold_batch_norm(copy.deepcopy(network))
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Sequential) and not isinstance(child, Up):
                setattr(module, name, nn.Sequential(*(c for c in child if not _idle(c))))
            elif isinstance(child, Up):
                setattr(module, name, PartedUp(Up(*(c for c in child if not _idle(c)))))
    return made.eval().requires_grad_(False)


def _idle(layer: nn.Module) -> bool:
    """Whether a layer passes on what it gets, in eval mode."""
    return isinstance(layer, nn.Identity | nn.Dropout2d | nn.Dropout | nn.AlphaDropout)


def fold_batch_norm(network: M) -> M:
    """The same function in eval mode with every batch norm folded into its convolution; changes `network`."""
    network.eval()
    for block in network.modules():
        if isinstance(block, nn.Sequential):
            _fold(block)
    return network


def _fold(block: nn.Sequential) -> None:
    for i in range(len(block) - 1):
        convolution, norm = block[i], block[i + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block[i], block[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()


def half_field_px(scales: int) -> int:
    """Half the receptive field of a U-Net with two 3 x 3 convolutions a scale, in pixels: its margin.

    The convolutions reach 2 pixels of their scale, once on the way down and, but for the coarsest scale, once on the
    way up; each pooling adds up to one fine pixel more for the output's place in its block.
    """
    sizes = [2**i for i in range(scales)]
    return 2 * sum(sizes) + 2 * sum(sizes[:-1]) + sizes[-1] - 1
