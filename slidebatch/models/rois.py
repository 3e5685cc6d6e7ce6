"""Regions of interest: pooled from the pyramid, classified, refined, and given a mask of 28 x 28.

torchvision's heads with three differences. Pooling and mask targets take pixel i to reach from i to i + 1, as boxes do:
half a pixel's error would cost a nucleus of 16 px a tenth of its overlap. Mask targets are read from the crop's label
image at the very points between which the engine later pastes masks (`slidebatch.paste`). And regions that do not
count, such as crowds, are not taken for background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, box_area, box_iou, roi_align

MASK_PX = 28
BOX_SAMPLES, MASK_SAMPLES = 7, 14
"""Samples a side that the box head and the mask head see of a region."""

CELLS = 14
"""Fewest features a side of the level that a region is pooled from, but for the finest (Lin et al. 2017,
arXiv:1612.03144: 224 px from a stride of 16)."""


AT_ONCE = 128
"""Regions of an image that go through a head together, in use."""


@dataclass(frozen=True)
class Truth:
    """The nuclei of one crop.

    boxes    (N, 4) float32 xyxy, outer edges of pixels, at least a pixel a side
    names    (N,) int32: the value of each nucleus in `image`
    image    (Y, X) int32 label image
    ignored  (M, 4) float32 xyxy: boxes of what is neither nucleus nor background
    """

    boxes: Tensor
    names: Tensor
    image: Tensor
    ignored: Tensor

    def to(self, device: torch.device) -> Truth:
        """The same on a device."""
        return Truth(*(getattr(self, name).to(device, non_blocking=True) for name in vars(self)))

    def target(self) -> dict[str, Tensor]:
        """What torchvision's heads want: boxes, and labels (N,) int64, 1 for each nucleus."""
        return {"boxes": self.boxes, "labels": torch.ones_like(self.names, dtype=torch.int64)}


class AlignedPool(MultiScaleRoIAlign):
    """RoIAlign over a pyramid (He et al. 2017, arXiv:1703.06870), pixel centres at half indices."""

    def __init__(self, levels: Sequence[str], strides_px: Sequence[int], side: int) -> None:
        super().__init__(list(levels), side, sampling_ratio=2)
        self.strides_px = tuple(strides_px)

    def forward(self, x: Mapping[str, Tensor], boxes: list[Tensor], image_shapes: Any = None) -> Tensor:
        """Features (N, C, Y, X) float32 by level and boxes (R_i, 4) of each image -> (sum R_i, C, side, side)."""
        level = self.level(torch.cat(boxes))
        rois = torch.cat([functional.pad(b, (1, 0), value=float(i)) for i, b in enumerate(boxes)])
        features = [x[name] for name in self.featmap_names]
        found = features[0].new_zeros((len(rois), features[0].shape[1], *self.output_size))
        for k, (feature, stride) in enumerate(zip(features, self.strides_px, strict=True)):
            rows = torch.where(level == k)[0]
            pooled = roi_align(feature, rois[rows], self.output_size, 1 / stride, self.sampling_ratio, aligned=True)
            found = found.index_put((rows,), pooled)
        return found

    def level(self, boxes: Tensor) -> Tensor:
        """The level (R,) that each box (R, 4) is pooled from: the coarsest on which it has `CELLS` features a side."""
        cells = box_area(boxes).clamp(min=1).sqrt() / (self.strides_px[0] * CELLS)
        return cells.log2().floor().clamp(0, len(self.strides_px) - 1).long()


class FloatPredictor(FastRCNNPredictor):
    """Class logits (R, 2) and box moves (R, 8), in float32 whatever it computes in."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (R, W) of each region."""
        logits, moves = super().forward(x)
        return logits.float(), moves.float()


class FloatMasks(MaskRCNNPredictor):
    """Mask logits (R, 2, 28, 28), in float32 whatever it computes in."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (R, W, 14, 14) of each region."""
        logits: Tensor = super().forward(x).float()
        return logits


class Heads(RoIHeads):
    """The second stage: what proposals become, or with truth what they cost."""

    def forward(
        self, features: Any, proposals: Any, image_shapes: Any, targets: Sequence[Truth] | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections of each image (boxes (R, 4), scores (R,), masks (R, 28, 28) in 0..1), or losses by name.

        features   float32 (N, C, Y, X) by level
        proposals  (P_i, 4) of each image
        """
        if targets is not None:
            return [], self._losses(features, proposals, targets)
        found = []
        for i, (near, shape) in enumerate(zip(proposals, image_shapes, strict=True)):
            found.append(self._found({k: v[i : i + 1] for k, v in features.items()}, near, shape))
        return found, {}

    def _found(self, features: Any, proposals: Tensor, shape: tuple[int, int]) -> dict[str, Tensor]:
        """The detections of one image. Regions go through the heads some at a time, which bounds memory."""
        answers = [self._classified(features, [part]) for part in proposals.split(AT_ONCE)]
        logits, moves = (torch.cat(parts) for parts in zip(*answers, strict=True))
        boxes, scores, _ = self.postprocess_detections(logits, moves, [proposals], [shape])
        masks = [self._mask_logits(features, [part])[:, 1].sigmoid() for part in boxes[0].split(AT_ONCE)]
        return {"boxes": boxes[0], "scores": scores[0], "masks": torch.cat(masks)}

    def _classified(self, features: Any, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (R, 2) and moves (R, 8) of regions (R_i, 4) of each image."""
        logits, moves = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes)))
        return logits, moves

    def check_targets(self, targets: Any) -> None:
        """Nothing: a `Truth` has all that is needed, but no masks as torchvision wants them."""

    def _losses(self, features: Any, proposals: list[Tensor], truths: Sequence[Truth]) -> dict[str, Tensor]:
        proposals = [p[counting(p, t)] for p, t in zip(proposals, truths, strict=True)]
        chosen, matched, labels, wanted = self.select_training_samples(proposals, [t.target() for t in truths])
        logits, moves = self._classified(features, chosen)
        by_class, by_box = fastrcnn_loss(logits, moves, labels, wanted)
        positive = [torch.where(found > 0)[0] for found in labels]
        boxes = [c[rows] for c, rows in zip(chosen, positive, strict=True)]
        names = [m[rows] for m, rows in zip(matched, positive, strict=True)]
        masks = torch.cat([mask_targets(t, b, n) for t, b, n in zip(truths, boxes, names, strict=True)])
        drawn = self._mask_logits(features, boxes)[:, 1]
        # A sum over none, so that every weight has a gradient where there is no nucleus.
        by_mask = functional.binary_cross_entropy_with_logits(drawn, masks, reduction="sum") / max(masks.numel(), 1)
        return {"region_class": by_class, "region_box": by_box, "mask": by_mask}

    def _mask_logits(self, features: Any, boxes: list[Tensor]) -> Tensor:
        """(R, 2, 28, 28): background, which means nothing, and nucleus."""
        logits: Tensor = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes)))
        return logits


def covered(boxes: Tensor, by: Tensor) -> Tensor:
    """The largest share (N,) of each box (N, 4) that lies in one of other boxes (M, 4); 0 where there are none."""
    if not len(by):
        return boxes.new_zeros(len(boxes))
    low = torch.maximum(boxes[:, None, :2], by[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], by[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    return shared.amax(dim=1) / box_area(boxes).clamp(min=1e-6)


def counting(proposals: Tensor, truth: Truth) -> Tensor:
    """Which proposals (P, 4) to learn from: all but those in what is ignored that are no nucleus's: (P,) bool."""
    if not len(truth.ignored):
        return torch.ones(len(proposals), dtype=torch.bool, device=proposals.device)
    near = box_iou(proposals, truth.boxes).amax(dim=1) if len(truth.boxes) else proposals.new_zeros(len(proposals))
    return (covered(proposals, truth.ignored) <= 0.5) | (near >= 0.5)


def mask_targets(truth: Truth, boxes: Tensor, rows: Tensor, side: int = MASK_PX) -> Tensor:
    """What masks should be: (R, side, side) float32 in 0..1.

    boxes  (R, 4) xyxy
    rows   (R,) int64, the nucleus of each box
    side   samples along each side of a box

    A sample is the bilinear mean of the nucleus's pixels around a point, pixel centres at half indices, beyond the
    crop as at its edge. The points lie where `paste` will take the samples to be, evenly over the box.
    """
    height, width = truth.image.shape
    part = (torch.arange(side, device=boxes.device) + 0.5) / side
    y = boxes[:, 1, None] + (boxes[:, 3] - boxes[:, 1])[:, None] * part - 0.5
    x = boxes[:, 0, None] + (boxes[:, 2] - boxes[:, 0])[:, None] * part - 0.5
    names = truth.names[rows, None, None]
    (top, bottom, down), (left, right, along) = _taps(y, height), _taps(x, width)
    down, along = down[:, :, None], along[:, None, :]

    def of(v: Tensor, u: Tensor) -> Tensor:
        return (truth.image[v[:, :, None], u[:, None, :]] == names).float()

    above = of(top, left) * (1 - along) + of(top, right) * along
    below = of(bottom, left) * (1 - along) + of(bottom, right) * along
    return above * (1 - down) + below * down


def _taps(at: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels around each place of a side of `size` pixels, and how near the second is (0..1)."""
    at = at.clamp(0, size - 1)
    first = at.floor()
    return first.long(), (first.long() + 1).clamp(max=size - 1), at - first


def group_norm(features: int) -> nn.Module:
    """A norm over one region or image at a time, in groups of at least 4 features; batch mates do not matter."""
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if features % g == 0 and (features // g >= 4 or g == 1))
    return nn.GroupNorm(groups, features)
