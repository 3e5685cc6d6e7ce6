"""The section `measure` of the config, and what it means for one slide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator, model_validator

from slidebatch.errors import InputError
from slidebatch.measurements.stains import HAEMATOXYLIN_EOSIN, Vector, unmixing
from slidebatch.spec import Spec

Set = Literal["shape", "intensity", "ring", "neighbours", "stains"]

RING_PX = (3.0, 8.0)
"""Where a ring begins and ends if nothing is said: beyond the blur of the nucleus, within most cells."""

FARTHEST_PX = 100
"""How far from its nucleus a ring may reach."""

Reach = tuple[float, float]


class MeasureSpec(Spec):
    """What is measured of every nucleus, beside its place, box, area and score."""

    sets: tuple[Set, ...] = Field(
        default=("shape", "intensity", "ring", "neighbours", "stains"),
        description="Which sets of columns: shape, intensity, ring, neighbours, stains (of RGB images).",
    )
    channels: list[str | int] | None = Field(
        default=None,
        description="Channels to measure, by name or index; all where not given, also those not segmented.",
    )
    ring_px: Reach | None = Field(
        default=None,
        description="Where the ring around a nucleus begins and ends, in plan pixels; [3, 8] if not given.",
    )
    ring_um: Reach | None = Field(default=None, description="The same in micrometres, instead of ring_px.")
    percentiles: tuple[float, ...] = Field(
        default=(25.0, 50.0, 75.0), description="Percentiles of every channel in the nucleus and its ring."
    )
    stains: dict[str, Vector] = Field(
        default=HAEMATOXYLIN_EOSIN,
        description="Two or three stains by name with their optical densities in red, green and blue.",
    )
    white: float | None = Field(
        default=None,
        gt=0,
        description="Value of empty glass in RGB images; the largest of the pixel type if not given.",
    )

    @field_validator("ring_px", "ring_um")
    @classmethod
    def _rising(cls, ring: Reach | None) -> Reach | None:
        if ring is not None and not 0 <= ring[0] < ring[1]:
            raise ValueError(
                f"a ring from {ring[0]:g} to {ring[1]:g} holds nothing; it must begin at 0 or later and end after"
            )
        return ring

    @field_validator("percentiles")
    @classmethod
    def _within(cls, percentiles: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= p <= 100 for p in percentiles) or len(set(percentiles)) < len(percentiles):
            raise ValueError("percentiles lie between 0 and 100, each once")
        return percentiles

    @field_validator("stains")
    @classmethod
    def _apart(cls, stains: dict[str, Vector]) -> dict[str, Vector]:
        if len(stains) not in (2, 3) or any(max(v) <= 0 for v in stains.values()):
            raise ValueError("name two or three stains, each with three densities of which one at least is above 0")
        unmixing(list(stains.values()))
        return stains

    @model_validator(mode="after")
    def _one_unit(self) -> MeasureSpec:
        if self.ring_px is not None and self.ring_um is not None:
            raise ValueError("ring_px and ring_um both say where the ring is; keep one")
        return self

    def ring_of(self, slide: str, mpp_plan: float | None) -> Reach:
        """The ring in plan pixels. InputError where it is asked for in micrometres of an image without pixel size."""
        if self.ring_um is None:
            return self._near_enough(slide, self.ring_px or RING_PX)
        if mpp_plan is None:
            raise InputError(
                f"{slide}: measure.ring_um needs the size of its pixels, which nobody states; "
                "set input.mpp, or measure.ring_px instead"
            )
        # Rounded, so that 2.4 um of 0.3 um pixels reach the eighth pixel.
        return self._near_enough(slide, (round(self.ring_um[0] / mpp_plan, 6), round(self.ring_um[1] / mpp_plan, 6)))

    def _near_enough(self, slide: str, ring: Reach) -> Reach:
        if ring[1] > FARTHEST_PX:
            raise InputError(
                f"{slide}: the ring would end {ring[1]:g} plan pixels from its nucleus, expected at most "
                f"{FARTHEST_PX}; set a smaller measure.ring_px or ring_um"
            )
        return ring


@dataclass(frozen=True)
class Recipe:
    """What is measured of the nuclei of one slide.

    sets         of columns, see `MeasureSpec`
    names        of the C channels whose intensities are measured
    ring_px      a ring holds the pixels further than the first and not further than the second from its nucleus
    percentiles  of intensities
    stains       names and densities in red, green, blue; none where the image is not RGB
    white        value of empty glass; None: the largest of the pixel type, or 1 of floats
    """

    sets: tuple[Set, ...]
    names: tuple[str, ...]
    ring_px: Reach = RING_PX
    percentiles: tuple[float, ...] = ()
    stains: tuple[tuple[str, Vector], ...] = ()
    white: float | None = None

    @property
    def ring(self) -> bool:
        return "ring" in self.sets

    @property
    def shape(self) -> bool:
        return "shape" in self.sets

    @property
    def values(self) -> bool:
        """Whether intensities are needed: the ring is compared with the nucleus."""
        return bool(self.names) and ("intensity" in self.sets or self.ring)

    @property
    def reach_px(self) -> int:
        """How many whole pixels from its nucleus a ring reaches; 0 without rings."""
        return math.floor(self.ring_px[1]) if self.ring else 0

    @property
    def halo_px(self) -> int:
        """Rows of labels needed above and below those that are measured."""
        return max(2 if self.shape else 0, self.reach_px)


def recipe(spec: MeasureSpec, slide: str, names: Sequence[str], rgb: bool, mpp_plan: float | None) -> Recipe:
    """The recipe of one slide; `names` are those of its measured channels. InputError: see `MeasureSpec.ring_of`."""
    return Recipe(
        sets=spec.sets,
        names=tuple(names),
        ring_px=spec.ring_of(slide, mpp_plan),
        percentiles=spec.percentiles,
        stains=tuple(spec.stains.items()) if rgb and "stains" in spec.sets else (),
        white=spec.white,
    )
