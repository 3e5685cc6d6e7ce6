"""The config's section `output`: where results go and how they are stored."""

from __future__ import annotations

from math import log2
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from slidebatch.spec import Spec


class OutputSpec(Spec):
    """Where results go and how they are stored."""

    path: str = Field(description="Folder of the results; the same command on the same folder resumes.")
    image: Literal["auto", "copy", "none"] = Field(
        default="auto",
        description="Copy the image beside its labels: auto copies plates and leaves slides where they are.",
    )
    chunk_px: PositiveInt = Field(default=512, description="Side of a chunk of the label images, in pixels.")
    shard_px: PositiveInt = Field(
        default=4096, description="Side of a shard of the label images, in pixels; a power of two times chunk_px."
    )
    keep_maps: bool = Field(default=False, description="Keep the networks' class maps after the run.")

    @model_validator(mode="after")
    def _shard_of_chunks(self) -> OutputSpec:
        times = self.shard_px / self.chunk_px
        if times < 1 or times != 2 ** round(log2(times)):
            raise ValueError(
                f"shard_px {self.shard_px} is not chunk_px {self.chunk_px} times a power of two; "
                f"take {self.chunk_px * 8}, for instance"
            )
        return self

    @property
    def owned_levels(self) -> int:
        """How many lower levels of a region are whole chunks, so that who paints the region owns them too."""
        return round(log2(self.shard_px / self.chunk_px))

    def shard_at(self, level: int) -> int:
        """Side of a shard of a level, in that level's pixels: a region's, or for the coarsest levels the full one."""
        return self.shard_px >> level if level <= self.owned_levels else self.shard_px
