"""How the members of an ensemble become one: the config's section `ensemble`, and the rules that join nuclei.

Rules on class maps (`mean`, `maximum`) act before decoding, pixel by pixel. Rules on nuclei (`nms`, `fill`) act on what
each member found. They never reach beyond a group of overlapping nuclei, so a tile fuses the groups that it alone can
judge, the seam stage all others, once; the result equals one pass over the whole slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt, model_validator

from ensemble import blend, groups, iou, maps, nms
from slidebatch.decode import DecodeSpec
from slidebatch.instances import Instances
from slidebatch.models.spec import ModelSpec
from slidebatch.settle import disjoint
from slidebatch.spec import Spec
from slidebatch.tiling import PatchSide

Rule = Literal["mean", "maximum", "nms", "fill"]
ON_MAPS = ("mean", "maximum")


class FusionSpec(Spec):
    """How the members of an ensemble become one."""

    rule: Rule = Field(
        default="mean",
        description="mean: of class maps, by weight (maximum: for comparison); nms: of nuclei that overlap the best "
        "stays; fill: each member in turn adds what those before it missed.",
    )
    iou_threshold: float = Field(
        default=0.5, ge=0, le=1, description="nms: nuclei of members that overlap more than this are the same nucleus."
    )
    fill_threshold: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="fill: a nucleus of which more than this share lies in one that is kept was not missed (or the "
        "other way round).",
    )
    min_votes: PositiveInt = Field(default=1, description="Nuclei that fewer members found are dropped.")
    masks: Literal["best", "majority", "weighted"] = Field(
        default="best",
        description="Pixels of a nucleus that several found: those of the best one, of most members, or of most of "
        "their scores.",
    )
    scores: Literal["best", "agreement", "mean"] = Field(
        default="agreement",
        description="Its score: the best one's, the chance that not all of them err (noisy or), or the mean over "
        "all members, who score 0 where they found nothing.",
    )
    least_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A nucleus that keeps less than this of its pixels to better ones is dropped.",
    )

    @property
    def on_maps(self) -> bool:
        """Whether the rule acts on class maps."""
        return self.rule in ON_MAPS


class MemberSpec(Spec):
    """A network of an ensemble. Its device is that of `model.device`, which all members share."""

    name: str | None = Field(default=None, description="What the ensemble calls it; none: its network's name.")
    model: ModelSpec = Field(description="The network; one word is its name.")
    patch_px: PatchSide = Field(default="auto", description="Side of its patches, as tiling.patch_px.")
    weight: PositiveInt = Field(default=1, le=1000, description="In means of maps, and in votes on pixels and scores.")
    decode: DecodeSpec = Field(
        default_factory=lambda: DecodeSpec.model_validate({}),
        description="How its own maps or detections become nuclei, where the rule joins nuclei.",
    )
    calibrate: bool = Field(
        default=True, description="Compare by calibrated scores, where its weights have a calibration beside them."
    )


class EnsembleSpec(FusionSpec):
    """Several networks as one, in place of `model`."""

    members: tuple[MemberSpec, ...] = Field(min_length=2, max_length=64, description="The networks, in order.")

    @model_validator(mode="after")
    def _votes_can_be_had(self) -> EnsembleSpec:
        if self.min_votes > len(self.members):
            raise ValueError(f"min_votes is {self.min_votes} of {len(self.members)} members; ask for fewer")
        return self

    @property
    def fusion(self) -> FusionSpec:
        """Without the members."""
        return FusionSpec.model_validate(self.model_dump(exclude={"members"}))


def joined_maps(
    found: Sequence[npt.NDArray[np.uint8]], weight: Sequence[int], spec: FusionSpec
) -> npt.NDArray[np.uint8]:
    """The class maps (K, Y, X) uint8 of an ensemble from those of its members."""
    return maps.mean_maps(found, np.array(weight, np.int64)) if spec.rule == "mean" else maps.max_maps(found)


def fuse(found: Instances, weight: Sequence[int], spec: FusionSpec) -> Instances:
    """What a rule on nuclei makes of all members' nuclei, disjoint, best first; `votes` says how many agreed.

    found   whole nuclei in any order; `member` places them in `weight`; a member's own nuclei are settled already
    """
    if not len(found):
        return found
    leader, order = _led(found, spec)
    voice = groups.voices(leader, order, found.member)
    vote = groups.votes(leader, voice)
    lead = np.flatnonzero(groups.agreed(leader, vote, spec.min_votes))
    raised = replace(
        found,
        score=_scores(found, (leader, voice), weight, spec).astype(np.uint16),
        votes=vote.astype(np.uint8),
        cut=np.zeros(len(found), np.uint8),
    )
    kept = raised.take(lead) if spec.masks == "best" else _blended(raised, found, (leader, voice), lead, weight, spec)
    return disjoint(kept, spec.least_share)


Groups = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""Leader of each row, and whether the row speaks for its member."""


def _led(found: Instances, spec: FusionSpec) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The leader of each row's group, and the order from the best row to the worst."""
    packed = found.box, found.offset, found.bits
    order = nms.total_order(found.score, found.box, iou.mask_area(*packed), found.offset, found.bits, found.member)
    if spec.rule == "fill":
        return groups.fill(found.member, order, nms.mask_conflicts(*packed, spec.fill_threshold, "over_smaller")), order
    pairs = nms.mask_conflicts(*packed, spec.iou_threshold)
    return nms.leaders(order, pairs, np.ones(len(pairs), bool)), order


def _scores(found: Instances, some: Groups, weight: Sequence[int], spec: FusionSpec) -> npt.NDArray[np.int64]:
    if spec.scores == "agreement":
        return groups.noisy_or(*some, found.score)
    if spec.scores == "mean":
        return groups.member_mean(*some, found.score, found.member, np.array(weight, np.int64))
    return found.score.astype(np.int64)


def _blended(
    raised: Instances,
    found: Instances,
    some: Groups,
    lead: npt.NDArray[np.int64],
    weight: Sequence[int],
    spec: FusionSpec,
) -> Instances:
    """The leaders with masks that their groups voted on."""
    leader, voice = some
    says = np.array(weight, np.int64)[found.member] * voice
    if spec.masks == "weighted":
        says = says * np.maximum(found.score.astype(np.int64), 1)
    made = blend.fuse_masks(leader, says, (found.box, found.offset, found.bits))
    rows = np.flatnonzero(np.isin(made.row, lead) & (made.area > 0))
    columns = raised.take(made.row)
    whole = replace(columns, box=made.box.astype(np.int32), offset=made.offset, bits=made.bits)
    return whole.take(rows)
