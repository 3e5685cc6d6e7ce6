"""Boxes that the later parts of the cascade learn from: proposals, nuclei well and badly placed, and background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image, remove_small_boxes

from slidebatch.models.rois import Truth, counting

WELL, BADLY = 0.1, 0.5
"""How far a nucleus's box is moved and stretched, as a share of its sides: standard deviations."""

LEAST_PX = 4.0
BACKGROUND = 64
"""Boxes laid anywhere in a crop."""

SIDES_PX = (8.0, 64.0)
"""Their sides where a crop has no nuclei to take them from."""

Sampler = Callable[[list[Tensor]], tuple[list[Tensor], list[Tensor]]]


@dataclass(frozen=True)
class Chosen:
    """Boxes (R, 4) xyxy of one crop, which of them are on nuclei (R,) bool, and the row (R,) of the nearest nucleus."""

    boxes: Tensor
    nucleus: Tensor
    rows: Tensor

    def on_nuclei(self) -> Chosen:
        """Those that are on nuclei."""
        return Chosen(*(getattr(self, name)[self.nucleus] for name in ("boxes", "nucleus", "rows")))


def candidates(proposals: Tensor, truth: Truth) -> Tensor:
    """Boxes (B, 4) xyxy to choose from, inside the crop, none with a side below `LEAST_PX`.

    The proposals (P, 4) themselves; each nucleus's box as it is, a little off, and badly placed; and boxes of the
    nuclei's sizes anywhere. Drawn from torch's generator.
    """
    nuclei = truth.boxes
    made = torch.cat([proposals, nuclei, moved(nuclei, WELL), moved(nuclei, BADLY), anywhere(truth)])
    made = clip_boxes_to_image(made, (truth.image.shape[0], truth.image.shape[1]))
    return made[remove_small_boxes(made, LEAST_PX)]


def moved(boxes: Tensor, far: float) -> Tensor:
    """Boxes (N, 4) moved and stretched at random by `far` of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + torch.randn_like(sides) * sides * far
    half = sides * (torch.randn_like(sides) * far).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def anywhere(truth: Truth) -> Tensor:
    """`BACKGROUND` boxes (B, 4) anywhere in a crop, of the sizes of its nuclei."""
    size = truth.boxes.new_tensor(truth.image.shape[::-1])
    if len(truth.boxes):
        drawn = torch.randint(len(truth.boxes), (BACKGROUND,), device=size.device)
        sides = truth.boxes[drawn, 2:] - truth.boxes[drawn, :2]
    else:
        low, high = SIDES_PX
        sides = low * (high / low) ** torch.rand((BACKGROUND, 2), device=size.device)
    corner = torch.rand_like(sides) * (size - sides).clamp(min=0)
    return torch.cat([corner, corner + sides], dim=1)


def chosen(boxes: Tensor, truth: Truth, sampler: Sampler, least_iou: float) -> Chosen:
    """So many of the boxes (B, 4) as a sampler takes; a box is on a nucleus that it overlaps by `least_iou`."""
    boxes = boxes[counting(boxes, truth)]
    near = box_iou(boxes, truth.boxes) if len(truth.boxes) else boxes.new_zeros((len(boxes), 1))
    overlap, rows = near.max(dim=1)
    nucleus = overlap >= least_iou
    on, off = (part[0] for part in sampler([nucleus.long()]))
    taken = (on | off).bool()
    return Chosen(boxes[taken], nucleus[taken], rows[taken])
