"""The section `input` of the config, and what looking for the inputs gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from slidebatch.slides.source import Source
from slidebatch.spec import Spec

Preset = Literal["imagexpress", "operetta", "cellvoyager"]


class InputSpec(Spec):
    """What to segment: exactly one of path, sample and manifest. Paths start from the working folder."""

    path: str | list[str] | None = Field(default=None, description="A file, folder or glob, or a list of them.")
    sample: Literal["plate", "tissue"] | None = Field(default=None, description="A made-up input with known truth.")
    pattern: str | None = Field(
        default=None,
        description="File names with named fields, such as Channel{channel}-{image}-{row}-{column}.tif; "
        "`*` stands for anything. Fields: plate, well, row, column, field, image, channel, z, time, slide, "
        "and any other name as a fact.",
    )
    preset: Preset | None = Field(default=None, description="File names as a microscope writes them.")
    manifest: str | None = Field(
        default=None,
        description="CSV or TSV, a file a row; columns path, slide, plate, well, field, channel, mpp, facts.",
    )
    channels: list[str | int] | None = Field(
        default=None, description="Channels for the network, by name or index, in order; all where not given."
    )
    channel_names: dict[str, str] | None = Field(
        default=None,
        description="What channels are called from here on, by the name or index that files give them: "
        "{'1': GFP, '2': DNA}.",
    )
    z: int | Literal["max"] = Field(
        default="max", description="Focus plane, counted from 0 in ascending z, or the maximum of all planes."
    )
    mpp: float | None = Field(default=None, gt=0, description="Micrometres per level-0 pixel, where files do not say.")
    scale: float | None = Field(default=None, gt=0, description="Plan pixels per level-0 pixel, instead of from mpp.")
    regions: str | dict[str, str] | None = Field(
        default=None,
        description="GeoJSON with polygons to stay in: a path, which may hold {slide}, or a path per slide.",
    )
    kind: Literal["auto", "plate", "slides"] = Field(default="auto", description="What the inputs are.")
    facts: str | None = Field(default=None, description="CSV or TSV with more columns per well, image or slide.")


@dataclass(frozen=True)
class Fault:
    """An input that cannot be used: its would-be slide id, its files, and one sentence that says why."""

    slide: str
    paths: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Found:
    """All inputs: usable ones in canonical order, unusable ones by id, and whether they lie on plates."""

    sources: tuple[Source, ...]
    faults: tuple[Fault, ...]
    plate: bool
