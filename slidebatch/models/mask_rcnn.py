"""The network `mask_rcnn`: Mask R-CNN (He et al. 2017, arXiv:1703.06870) on a ResNet's feature pyramid, for nuclei.

torchvision's parts and torchvision's names of tensors, so that a checkpoint of its own networks fits. What differs:
images keep their size; anchors are small; all widths can be chosen; norms learn from nothing (no pretrained weights
are needed); limits grow with a patch's area; masks stay 28 x 28, boxes and masks agree on where pixels lie.

With `norm: batch` a network in use looks at no statistics of the patch, and near a patch's middle its answers depend on
the surroundings alone. With `norm: group` they depend on the whole patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.ops import FrozenBatchNorm2d

from slidebatch.models.proposals import UNIT_PX, FloatRPNHead, Limits, Proposals, Sampling
from slidebatch.models.rois import (
    BOX_SAMPLES,
    MASK_SAMPLES,
    AlignedPool,
    FloatMasks,
    FloatPredictor,
    Heads,
    Truth,
    group_norm,
)

Share = Annotated[float, Field(ge=0, le=1)]
Sizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": group_norm,
    "frozen": FrozenBatchNorm2d,
}
MOVES = (10.0, 10.0, 5.0, 5.0)
"""Weights of box moves in the second stage (Girshick 2015, arXiv:1504.08083)."""


@dataclass(frozen=True)
class Architecture:
    """What fixes the network's tensors and its arithmetic.

    channels         image channels
    mean, deviation  taken from and divided out of the image, in 0..1; one for all channels, or one each
    backbone         ResNet in use
    stages           of its four stages, how many; the fourth holds most of the weights of a resnet18
    finest_px        stride of the pyramid's finest level; 2 takes the features before the first pooling too
    norm             of backbone and pyramid; frozen: of a given checkpoint, unchanged, and none in the pyramid
    head_norm        of the mask head: none, or group, which looks at one nucleus at a time
    pyramid_width    features of all levels, and of the proposals' head
    box_width        features of the box head's two layers
    mask_width, mask_layers   of the mask head
    anchors_px       sides of the anchors of each level, finest first; one level more than the backbone gives
    ratios           height over width of anchors
    before, proposals   most proposals of 256 x 256 px: of each level before suppression, and in all after it; where
                     these bind, nuclei are lost, and which ones depends on the patch
    proposal_score   objectness below which a place is not proposed
    proposal_iou     of two proposals that overlap more than this, the better stays
    score_threshold  detections that score below this are dropped
    detection_iou    of two detections whose boxes overlap more than this, the better stays
    detections       most detections of 256 x 256 px
    overlap_px       thrown away at each side of a patch, at least
    """

    channels: PositiveInt = 3
    mean: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5,)
    deviation: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.25,)
    backbone: Literal["resnet18", "resnet50", "resnet101"] = "resnet50"
    stages: Annotated[int, Field(ge=2, le=4)] = 4
    finest_px: Literal[2, 4] = 4
    norm: Literal["batch", "group", "frozen"] = "batch"
    head_norm: Literal["none", "group"] = "group"
    pyramid_width: PositiveInt = 256
    box_width: PositiveInt = 1024
    mask_width: PositiveInt = 256
    mask_layers: PositiveInt = 4
    anchors_px: Annotated[tuple[Sizes, ...], Field(min_length=1)] = ((4, 12), (20, 32), (48, 64), (96, 128), (192, 256))
    ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    before: PositiveInt = 4000
    proposals: PositiveInt = 2000
    proposal_score: Share = 0.05
    proposal_iou: Share = 0.7
    score_threshold: Share = 0.05
    detection_iou: Share = 0.5
    detections: PositiveInt = 512
    overlap_px: NonNegativeInt = 64

    @property
    def levels(self) -> dict[str, str]:
        """The backbone's layers that feed the pyramid, finest first, and what they are called there."""
        first = ["relu"] if self.finest_px == 2 else []
        return {layer: str(i) for i, layer in enumerate([*first, *(f"layer{k + 1}" for k in range(self.stages))])}

    @property
    def strides_px(self) -> tuple[int, ...]:
        """Pixels between the features of each level, finest first; the last is pooled from the one before."""
        return tuple(self.finest_px * 2**k for k in range(len(self.levels) + 1))

    @property
    def stride_px(self) -> int:
        """Patches must start and end on multiples of this."""
        return self.strides_px[-1]

    @property
    def margin_px(self) -> int:
        """The stated overlap: the network looks farther, ever more faintly."""
        return self.overlap_px

    @property
    def flaw(self) -> str:
        """Why the settings contradict each other; empty where they do not."""
        levels = len(self.strides_px)
        if len(self.anchors_px) != levels:
            return f"anchors_px has {len(self.anchors_px)} levels and the pyramid {levels}"
        if len({len(sizes) for sizes in self.anchors_px}) > 1:
            return "anchors_px must have as many anchors on every level, since all levels share one head"
        wrong = [n for n in ("mean", "deviation") if len(getattr(self, n)) not in (1, self.channels)]
        return f"{' and '.join(wrong)} must have one value, or one for each channel" if wrong else ""


class MaskRCNN(nn.Module):
    """(N, channels, Y, X) in 0..1 -> detections of each image; with truth, losses by name."""

    mean: Tensor
    deviation: Tensor
    filled: tuple[str, ...] = ()
    """Limits that the last answer reached: there may be more nuclei than it tells."""

    def __init__(self, architecture: Architecture, sampling: Sampling | None = None) -> None:
        super().__init__()
        a = self.architecture = architecture
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(a.mean).view(shape), persistent=False)
        self.register_buffer("deviation", torch.tensor(a.deviation).view(shape), persistent=False)
        self.backbone = _backbone(a)
        self.rpn = _proposals(a)
        self.roi_heads = _heads(a)
        self.sample(sampling or Sampling())

    def sample(self, how: Sampling) -> None:
        """Learn from so many anchors and regions from now on."""
        self.rpn.sample(how)
        self.roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(how.regions, how.regions_positive)
        self.roi_heads.proposal_matcher = Matcher(how.region_iou, how.region_iou, allow_low_quality_matches=False)

    def shift_masks(self, shift: float) -> None:
        """Add to the logits of all masks. Changes the network."""
        with torch.no_grad():
            self.roi_heads.mask_predictor.mask_fcn_logits.bias[1] += shift

    def forward(self, images: Tensor, truths: Sequence[Truth] | None = None) -> Any:
        """Detections of each image (boxes (R, 4) xyxy, scores (R,), masks (R, 28, 28) in 0..1, best first), or losses.

        Y and X must be multiples of the stride.
        """
        shape = (int(images.shape[2]), int(images.shape[3]))
        features = self.backbone((images - self.mean) / self.deviation)
        features = {name: feature.float() for name, feature in features.items()}
        shapes = [shape] * len(images)
        proposals, first = self.rpn(ImageList(images, shapes), features, truths)
        most = max(1, round(self.architecture.detections * shape[0] * shape[1] / UNIT_PX))
        self.roi_heads.detections_per_img = most
        found, second = self.roi_heads(features, proposals, shapes, truths)
        if truths is not None:
            return first | second
        full = {"proposals": max(map(len, proposals)) >= self.rpn.limits.of(shape)[1]}
        full |= {"detections": max(len(f["scores"]) for f in found) >= most}
        self.filled = tuple(name for name, reached in full.items() if reached)
        return found


def _backbone(a: Architecture) -> BackboneWithFPN:
    body = getattr(resnet, a.backbone)(weights=None, norm_layer=NORMS[a.norm])
    if a.channels != 3:
        body.conv1 = nn.Conv2d(a.channels, 64, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    widths = {"relu": 64} | {f"layer{k}": body.inplanes // 2 ** (4 - k) for k in range(1, 5)}
    norm = None if a.norm == "frozen" else NORMS[a.norm]
    return BackboneWithFPN(body, a.levels, [widths[name] for name in a.levels], a.pyramid_width, norm_layer=norm)


def _proposals(a: Architecture) -> Proposals:
    anchors = AnchorGenerator(a.anchors_px, (a.ratios,) * len(a.anchors_px))
    made = Proposals(
        anchors,
        FloatRPNHead(a.pyramid_width, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={},
        post_nms_top_n={},
        nms_thresh=a.proposal_iou,
        score_thresh=a.proposal_score,
    )
    made.limits = Limits(a.before, a.proposals)
    return made


def _heads(a: Architecture) -> Heads:
    levels, strides = list(a.levels.values()), a.strides_px[:-1]
    norm = group_norm if a.head_norm == "group" else None
    return Heads(
        AlignedPool(levels, strides, BOX_SAMPLES),
        TwoMLPHead(a.pyramid_width * BOX_SAMPLES**2, a.box_width),
        FloatPredictor(a.box_width, 2),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=128,
        positive_fraction=0.25,
        bbox_reg_weights=MOVES,
        score_thresh=a.score_threshold,
        nms_thresh=a.detection_iou,
        detections_per_img=a.detections,
        mask_roi_pool=AlignedPool(levels, strides, MASK_SAMPLES),
        mask_head=MaskRCNNHeads(a.pyramid_width, [a.mask_width] * a.mask_layers, 1, norm),
        mask_predictor=FloatMasks(a.mask_width, a.mask_width, 2),
    )
