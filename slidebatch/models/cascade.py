"""The network `cascade`: region proposals, a classifier of nuclei, and a U-Net that draws each nucleus in its box.

Three networks one after the other, each of its own weights, on a grey image: proposals are boxes (Ren et al. 2015,
arXiv:1506.01497, one level); what lies in a box, resampled to 32 x 32 px, is a nucleus or not, and is drawn. A
training fits the last part in use, and the parts before it stay as they are; so three trainings, each from the weights
of the one before, make the whole. The weights file holds all three parts at any time.

In use no part looks at statistics of the patch, so near a patch's middle answers depend on the surroundings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from slidebatch.models.candidates import candidates, chosen
from slidebatch.models.cascade_parts import CROP_PX, STRIDE_PX, Backbone, CentredAnchors, Classifier, CropUNet, Head
from slidebatch.models.proposals import Limits, Proposals, Sampling
from slidebatch.models.rois import AT_ONCE, Truth, mask_targets

Share = Annotated[float, Field(ge=0, le=1)]
Widths = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]

PARTS = ("proposals", "classifier", "unet")
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601); other numbers of channels count alike."""


@dataclass(frozen=True)
class Architecture:
    """What fixes the network's tensors and its arithmetic.

    channels         image channels, of which grey is made
    last_part        of proposals, classifier and unet the last one in use, and the one that a training fits. Without a
                     classifier the score is the proposal's, without a U-Net the mask is the box
    widths           features of the backbone: first convolution, two blocks, the last two blocks
    classifier_widths   the same of the classifier's
    unet_widths      features of the U-Net at 32, 16, 8 and 4 px
    anchors_px       sides of the anchors
    ratios           height over width of anchors
    before, proposals   most proposals of 256 x 256 px, before and after suppression; where these bind, nuclei are lost
    proposal_score   objectness below which a place is not proposed
    proposal_iou     of two proposals of a patch that overlap more than this, the better stays
    score_threshold  detections that score below this are dropped
    overlap_px       thrown away at each side of a patch, at least
    """

    channels: PositiveInt = 3
    last_part: Literal["proposals", "classifier", "unet"] = "unet"
    widths: Widths = (16, 32, 64, 128)
    classifier_widths: Widths = (16, 32, 64, 128)
    unet_widths: Widths = (8, 16, 32, 64)
    anchors_px: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (8, 16, 32, 64, 128)
    ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    before: PositiveInt = 4000
    proposals: PositiveInt = 1000
    proposal_score: Share = 0.5
    proposal_iou: Share = 0.15
    score_threshold: Share = 0.05
    overlap_px: NonNegativeInt = 96

    @property
    def stride_px(self) -> int:
        """Patches must start and end on multiples of this."""
        return STRIDE_PX

    @property
    def margin_px(self) -> int:
        """The stated overlap; 84 px see to it that a box depends on pixels of its own patch alone."""
        return self.overlap_px


class Cascade(nn.Module):
    """(N, channels, Y, X) in 0..1 -> detections of each image; with truth, losses of the last part by name."""

    filled: tuple[str, ...] = ()
    """Limits that the last answer reached: there may be more nuclei than it tells."""

    def __init__(self, architecture: Architecture = Architecture()) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.proposals = Proposer(a)
        self.classifier = Classifier(a.classifier_widths)
        self.unet = CropUNet(a.unet_widths)
        self.sample(Sampling())

    def sample(self, how: Sampling) -> None:
        """Learn from so many anchors or regions from now on; only the last part has gradients."""
        self.sampling = how
        self.proposals.rpn.sample(how)
        self.regions = BalancedPositiveNegativeSampler(how.regions, how.regions_positive)
        for name in PARTS:
            self.get_submodule(name).requires_grad_(name == self.architecture.last_part)

    def shift_masks(self, shift: float) -> None:
        """Add to the logits of all masks. Changes the network."""
        with torch.no_grad():
            self.unet.head.bias.add_(shift)  # type: ignore[union-attr]

    def forward(self, images: Tensor, truths: Sequence[Truth] | None = None) -> Any:
        """Detections of each image (boxes (R, 4) xyxy, scores (R,), masks (R, 32, 32) in 0..1, best first), or losses.

        Y and X must be multiples of the stride.
        """
        image = grey(images)
        if truths is not None and self.architecture.last_part == "proposals":
            return self.proposals(image, truths)[1]
        if truths is not None:
            self.proposals.eval()  # norms too: what is not fitted stays as it is
        with torch.no_grad():
            boxes, _ = self.proposals(image)
        if truths is not None:
            return self._losses(image, boxes, truths)
        rpn = self.proposals.rpn
        most = rpn.limits.of((image.shape[2], image.shape[3]))[1]
        self.filled = ("proposals",) if max(map(len, boxes)) >= most else ()
        each = zip(image.split(1), boxes, rpn.objectness, strict=True)
        return [self._found(one, places, scores) for one, places, scores in each]

    def _found(self, image: Tensor, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        """The detections of one image. Crops go through the networks some at a time, which bounds memory."""
        if self.architecture.last_part != "proposals":
            logits = [self.classifier(cut(image, [part])) for part in boxes.split(AT_ONCE)]
            scores = torch.cat(logits).sigmoid()
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] >= self.architecture.score_threshold]
        boxes, scores = boxes[order], scores[order]
        if self.architecture.last_part == "unet":
            masks = torch.cat([self.unet(cut(image, [part])) for part in boxes.split(AT_ONCE)]).sigmoid()
        else:
            masks = boxes.new_ones((len(boxes), CROP_PX, CROP_PX))
        return {"boxes": boxes, "scores": scores, "masks": masks}

    def _losses(self, image: Tensor, proposals: list[Tensor], truths: Sequence[Truth]) -> dict[str, Tensor]:
        """Of the classifier: entropy of nucleus or not. Of the U-Net: entropy of each pixel of boxes on nuclei."""
        near = [candidates(p, t) for p, t in zip(proposals, truths, strict=True)]
        picked = [chosen(b, t, self.regions, self.sampling.region_iou) for b, t in zip(near, truths, strict=True)]
        if self.architecture.last_part == "classifier":
            logits = self.classifier(cut(image, [p.boxes for p in picked]))
            wanted = torch.cat([p.nucleus for p in picked]).float()
            return {"region_class": functional.binary_cross_entropy_with_logits(logits, wanted)}
        on = [p.on_nuclei() for p in picked]
        masks = torch.cat([mask_targets(t, p.boxes, p.rows, CROP_PX) for t, p in zip(truths, on, strict=True)])
        if not len(masks):  # a sum over none, so that every weight has a gradient; norms have nothing to look at
            return {"mask": 0.0 * torch.stack([w.sum() for w in self.unet.parameters()]).sum()}
        drawn = self.unet(cut(image, [p.boxes for p in on]))
        return {"mask": functional.binary_cross_entropy_with_logits(drawn, masks)}


class Proposer(nn.Module):
    """Grey images (N, 1, Y, X) -> proposals (P_i, 4) xyxy of each, best first; with truth, losses by name too."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        anchors = CentredAnchors((a.anchors_px,), (a.ratios,))
        self.backbone = Backbone(a.widths)
        self.rpn = Proposals(
            anchors,
            Head(a.widths[3], anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.1,
            batch_size_per_image=100,
            positive_fraction=0.5,
            pre_nms_top_n={},
            post_nms_top_n={},
            nms_thresh=a.proposal_iou,
            score_thresh=a.proposal_score,
        )
        self.rpn.limits, self.rpn.crossing = Limits(a.before, a.proposals), False

    def forward(self, image: Tensor, truths: Sequence[Truth] | None = None) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Y and X must be multiples of the stride."""
        features = {"0": self.backbone(image).float()}
        shapes = [(int(image.shape[2]), int(image.shape[3]))] * len(image)
        boxes, losses = self.rpn(ImageList(image, shapes), features, truths)
        return boxes, losses


def grey(images: Tensor) -> Tensor:
    """Images (N, C, Y, X) in 0..1 as grey ones (N, 1, Y, X)."""
    shares = images.new_tensor(GREY) if images.shape[1] == len(GREY) else images.new_ones(images.shape[1])
    return (images * (shares / shares.sum())[:, None, None]).sum(dim=1, keepdim=True)


def cut(image: Tensor, boxes: list[Tensor]) -> Tensor:
    """What lies in boxes (R_i, 4) xyxy of images (N, 1, Y, X), each resampled to 32 x 32 px: (sum R_i, 1, 32, 32).

    Bilinear means at points no farther apart than pixels; pixel i reaches from i to i + 1, as boxes do.
    """
    return roi_align(image, boxes, CROP_PX, 1.0, 0, aligned=True)
