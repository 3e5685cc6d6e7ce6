"""The section `report` of the config: what the page of a run holds. Nothing of it changes what a run computes."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat

from slidebatch.spec import Spec


class ReportSpec(Spec):
    """What report/index.html holds."""

    enabled: bool = Field(default=True, description="Write the report at the end of the run.")
    thumbnails: int = Field(default=12, ge=0, le=48, description="Pieces of images that are shown, at most.")
    thumbnail_px: int = Field(
        default=256, ge=64, le=512, description="Their side, in pixels of the labels; they are never shrunk."
    )
    seam_slides: NonNegativeInt = Field(default=24, description="Slides whose seams are looked at, at most.")
    seam_ratio: PositiveFloat = Field(
        default=1.5, description="Straight borders along seams over those between them: beyond this, seams have failed."
    )
