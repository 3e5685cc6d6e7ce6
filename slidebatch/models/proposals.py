"""Region proposals: anchors over a feature pyramid, scored and moved.

torchvision's network with the limits of a patch in proportion to its area, so that a larger patch finds no fewer
nuclei per area, and with anchors in ignored regions left out of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from slidebatch.models.rois import Truth, covered

UNIT_PX = 256 * 256
"""Area that limits are told for."""


@dataclass(frozen=True)
class Limits:
    """How many proposals are kept of 256 x 256 px.

    before  of each level, before suppression
    after   in all, after it
    """

    before: int
    after: int

    def of(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The same for a patch (y, x), at least one."""
        share = shape[0] * shape[1] / UNIT_PX
        return max(1, round(self.before * share)), max(1, round(self.after * share))


@dataclass(frozen=True)
class Sampling:
    """What one step learns from, of each crop.

    anchors, anchors_positive   anchors in the loss, and the largest share of them that lie on nuclei
    anchor_iou                  (background below, nucleus above): between them an anchor does not count
    best_anchor                 whether a nucleus's best anchor counts as that nucleus however little they overlap
    regions, regions_positive   proposals in the loss, and the largest share of them that lie on nuclei
    region_iou                  a proposal that overlaps a nucleus more than this is that nucleus
    before, proposals           most proposals of 256 x 256 px while training, as in an `Architecture`
    """

    anchors: int = 256
    anchors_positive: float = 0.5
    anchor_iou: tuple[float, float] = (0.3, 0.7)
    best_anchor: bool = True
    regions: int = 128
    regions_positive: float = 0.25
    region_iou: float = 0.5
    before: int = 500
    proposals: int = 500


class FloatRPNHead(RPNHead):
    """Objectness and box moves by level, in float32 whatever it computes in: boxes need every bit."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Features (N, C, Y, X) of each level."""
        scores, moves = super().forward(x)
        return [s.float() for s in scores], [m.float() for m in moves]


class Proposals(RegionProposalNetwork):
    """The first stage. `limits` and `score_thresh` count in use, `learning` while training, which takes any score.

    crossing    whether anchors that reach beyond the crop are learned from
    objectness  (P_i,) of the proposals of each image of the last answer
    """

    limits: Limits
    learning: Limits
    score_thresh: float
    crossing: bool = True
    objectness: tuple[Tensor, ...] = ()

    def sample(self, how: Sampling) -> None:
        """Learn from so many anchors from now on."""
        self.fg_bg_sampler = BalancedPositiveNegativeSampler(how.anchors, how.anchors_positive)
        self.proposal_matcher = Matcher(how.anchor_iou[1], how.anchor_iou[0], how.best_anchor)
        self.learning = Limits(how.before, how.proposals)

    def filter_proposals(
        self, proposals: Tensor, objectness: Tensor, image_shapes: Any, num_anchors_per_level: Any
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The best proposals of each image, as many as its area allows."""
        before, after = (self.learning if self.training else self.limits).of(image_shapes[0])
        self._pre_nms_top_n = dict.fromkeys(("training", "testing"), before)
        self._post_nms_top_n = dict.fromkeys(("training", "testing"), after)
        threshold, self.score_thresh = self.score_thresh, 0.0 if self.training else self.score_thresh
        try:
            found: tuple[list[Tensor], list[Tensor]] = super().filter_proposals(
                proposals, objectness, image_shapes, num_anchors_per_level
            )
        finally:
            self.score_thresh = threshold
        self.objectness = tuple(found[1])
        return found

    def forward(
        self, images: Any, features: Any, targets: Sequence[Truth] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals (P_i, 4) xyxy of each image, and with truth losses by name."""
        self.training, self._truths = targets is not None, targets
        told = None if targets is None else [t.target() for t in targets]
        boxes, losses = super().forward(images, features, told)
        names = {"loss_objectness": "rpn_class", "loss_rpn_box_reg": "rpn_box"}
        return boxes, {names[k]: v for k, v in losses.items()}

    def assign_targets_to_anchors(self, anchors: Any, targets: Any) -> tuple[list[Tensor], list[Tensor]]:
        """1 for nuclei, 0 for background, -1 for what does not count; and the box that each anchor should take."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, truth in zip(labels, anchors, self._truths or (), strict=True):
            if len(truth.ignored):
                label[(label == 0) & (covered(anchor, truth.ignored) > 0.5)] = -1
            if not self.crossing:
                label[beyond(anchor, truth.image.shape)] = -1
        return labels, boxes


def beyond(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Which boxes (N, 4) xyxy reach beyond an image of (y, x) px: (N,) bool."""
    size = boxes.new_tensor([shape[1], shape[0]])
    return ((boxes[:, :2] < 0) | (boxes[:, 2:] > size)).any(dim=1)
