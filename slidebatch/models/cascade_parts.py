"""What the cascade is made of: backbone, head of the proposals, nucleus classifier, U-Net of crops.

The backbone has nine convolutions on features 1, 2, 4 and 8 px apart, joined by poolings of two: so an answer belongs
to 8 x 8 pixels and looks as far in every direction. 3 x 3 kernels alone would see 100 px; dilated ones see 160 (Yu and
Koltun 2016, arXiv:1511.07122).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator

from slidebatch.models.blocks import Up

CROP_PX = 32
"""Side of the crops that classifier and U-Net look at."""

STRIDE_PX = 8
POOLED = (True, True, True, False)
"""Whether features are pooled before each of the backbone's four blocks."""

DILATIONS = ((1, 2), (1, 2), (1, 2), (2, 2))
"""Of the two convolutions of each block."""

HEAD_WIDTH = 128
KERNEL = 9
"""Side of the U-Net's kernels."""


def receptive_px() -> int:
    """Side of the square of pixels that one of the backbone's features depends on."""
    step, seen = 1, 5
    for pooled, dilations in zip(POOLED, DILATIONS, strict=True):
        if pooled:
            seen, step = seen + step, 2 * step
        seen += 2 * step * sum(dilations)
    return seen


class Backbone(nn.Sequential):
    """Grey images (N, 1, Y, X) in 0..1 -> features (N, widths[-1], Y / 8, X / 8).

    A residual network (He et al. 2015, arXiv:1512.03385); Y and X multiples of 8.

    widths  features of the first convolution, of two blocks and of the last two together
    """

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        steps: list[nn.Module] = [_step(1, widths[0], 5)]
        befores, afters = (*widths, widths[3])[:4], (*widths[1:], widths[3])
        for pooled, dilations, before, after in zip(POOLED, DILATIONS, befores, afters, strict=True):
            steps += [nn.MaxPool2d(2)] * pooled + [Residual(before, after, dilations)]
        super().__init__(*steps)
        self.apply(_initialise)


class Residual(nn.Module):
    """Two 3 x 3 convolutions, dilated, whose answer is added to what they were given."""

    def __init__(self, before: int, after: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        first, second = dilations
        self.body = nn.Sequential(
            _step(before, after, 3, first),
            nn.Conv2d(after, after, 3, padding=second, dilation=second, bias=False),
            nn.BatchNorm2d(after),
        )
        self.past: nn.Module = nn.Identity()
        if before != after:
            self.past = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.past(x) + self.body(x))


class Head(nn.Module):
    """Objectness and box moves of `anchors` at each place: 3 x 3 to 128 features, then two scores, four moves each."""

    def __init__(self, width: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, HEAD_WIDTH, 3, padding=1)
        self.scores = nn.Conv2d(HEAD_WIDTH, 2 * anchors, 1)
        self.moves = nn.Conv2d(HEAD_WIDTH, 4 * anchors, 1)
        for layer in (self.conv, self.scores, self.moves):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Features (N, C, Y, X) of each level -> logits (N, K, Y, X) and moves (N, 4 K, Y, X), float32.

        The softmax of two scores is the sigmoid of their difference.
        """
        seen = [functional.relu(self.conv(level)) for level in levels]
        scores = [self.scores(x).float().unflatten(1, (-1, 2)) for x in seen]
        return [s[:, :, 1] - s[:, :, 0] for s in scores], [self.moves(x).float() for x in seen]


class CentredAnchors(AnchorGenerator):
    """torchvision's anchors, but around the middle of the pixels that a feature stands for, not around their corner."""

    def forward(self, image_list: object, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors (A, 4) xyxy of each image."""
        return [anchors + STRIDE_PX / 2 for anchors in super().forward(image_list, feature_maps)]


class Classifier(nn.Sequential):
    """Crops (R, 1, 32, 32) -> logits (R,) float32 of being a nucleus: a backbone and a fully connected layer."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        side = CROP_PX // STRIDE_PX
        super().__init__(Backbone(widths), nn.Flatten(), nn.Linear(widths[3] * side * side, 1))

    def forward(self, crops: Tensor) -> Tensor:
        return super().forward(crops).float()[:, 0]


class CropUNet(nn.Module):
    """Crops (R, 1, 32, 32) -> mask logits (R, 32, 32) float32: eight layers of 9 x 9 (after arXiv:1505.04597)."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(_step(a, b, KERNEL) for a, b in pairwise((1, *widths)))
        pairs = list(pairwise(widths))[::-1]
        self.up = nn.ModuleList(Up(*_step(fine + coarse, fine, KERNEL)) for fine, coarse in pairs)
        self.head = nn.Conv2d(widths[0], 1, KERNEL, padding=KERNEL // 2)
        self.apply(_initialise)

    def forward(self, crops: Tensor) -> Tensor:
        features = self.down[0](crops)
        skips = []
        for step in self.down[1:]:
            skips.append(features)
            features = step(functional.max_pool2d(features, 2))
        for step in self.up:
            features = step(skips.pop(), features)
        drawn: Tensor = self.head(features).float()[:, 0]
        return drawn


def _step(before: int, after: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, its norm and its activation."""
    reach = dilation * (kernel // 2)
    convolution = nn.Conv2d(before, after, kernel, padding=reach, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _initialise(module: nn.Module) -> None:
    """Weights that keep the variance of features from layer to layer (He et al. 2015, arXiv:1502.01852)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            with torch.no_grad():
                module.bias.zero_()
