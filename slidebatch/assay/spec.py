"""The section `assay` of the config: which measurement is the readout, and which facts say what a well is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt

from slidebatch.spec import Spec


class AssaySpec(Spec):
    """How a plate is judged as an assay. Nothing of this changes what a run computes."""

    column: str | None = Field(default=None, description="The readout: a column of the table, nucleus_to_ring_GFP.")
    statistic: Literal["median", "mean"] = Field(default="median", description="Of a well's nuclei.")
    control: str | None = Field(
        default=None, description="Fact that tells controls; the one with control in its name where not given."
    )
    negative: str | None = Field(default=None, description="Its value for negative controls; -1 or negative.")
    positive: str | None = Field(default=None, description="Its value for positive controls; 1 or positive.")
    dose: str | None = Field(
        default=None, description="Fact that tells doses; the one with dose or conc in its name where not given."
    )
    resamples: NonNegativeInt = Field(default=2000, description="Bootstrap draws of wells; 0: no intervals.")
    seed: NonNegativeInt = Field(default=0, description="Of the draws.")
