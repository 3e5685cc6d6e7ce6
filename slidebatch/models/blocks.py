"""Layers that the dense networks share, and the same networks made ready to answer.

For inference a network is changed into one that computes the same function with less work (`ready`): every batch norm
is folded into the convolution before it; dropout is left out. A convolution of upsampled features could be parted and
done before the upsampling, as a transposed one, a fifth faster; but the sums of oneDNN's transposed convolution
depend on the image's size, and so would a pixel's answer.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)


class Up(nn.Sequential):
    """Layers on the finer features joined with the coarser ones, upsampled by two; the first is a convolution."""

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:  # type: ignore[override]
        """(N, F, 2Y, 2X) and (N, G, Y, X) -> (N, H, 2Y, 2X)."""
        wide = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        features = torch.cat([fine, wide], dim=1)
        for layer in self:
            features = layer(features)
        return features


def ready(network: nn.Module) -> nn.Module:
    """A copy of a network that computes what it does in eval mode, faster; it cannot be trained."""
    made = fold_batch_norm(copy.deepcopy(network))
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Sequential):
                setattr(module, name, type(child)(*(c for c in child if not _idle(c))))
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
