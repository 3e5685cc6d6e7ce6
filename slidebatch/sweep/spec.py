"""What `conf/sweep/*.yaml` may say: which points, how each is run, and what scores it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from slidebatch.spec import Spec

Settings = dict[str, Any]
"""Dotted keys of the base config, and their values; a value takes the place of all that was there, as `--set`'s."""

Kind = Literal["train", "run", "decode", "call"]


class Span(Spec):
    """Numbers from `least` to `most`, both included; either may be left out."""

    least: float | None = None
    most: float | None = None


Condition = dict[str, Any]
"""Parameters and what they must be for a rule to hold: a value, a list of values, or {least: , most: }."""


class Follow(Spec):
    """Settings that follow from parameters."""

    when: Condition = Field(default={}, description="What the parameters must be; empty: always.")
    set: Settings = Field(description="Settings of the points for which that holds.")


class Draw(Spec):
    """How one parameter is drawn: exactly one of its keys."""

    uniform: tuple[float, float] | None = Field(default=None, description="Evenly from a number to another.")
    log: tuple[float, float] | None = Field(default=None, description="Evenly in the logarithm, above 0.")
    integer: tuple[int, int] | None = Field(default=None, description="A whole number, both ends included.")
    choice: Annotated[list[Any], Field(min_length=1)] | None = Field(default=None, description="One of a list.")

    @model_validator(mode="after")
    def _one(self) -> Draw:
        given = [name for name in ("uniform", "log", "integer", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'nothing'}; give one of uniform, log, integer, choice")
        span = self.uniform or self.log or self.integer
        if span is not None and not (all(map(math.isfinite, span)) and span[0] < span[1]):
            raise ValueError(f"{given[0]}: the range {list(span)} is empty; write the smaller number first")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError(f"log: the range {list(self.log)} begins at or below 0; begin above it")
        return self


class Random(Spec):
    """Points drawn at random; all are different."""

    n: PositiveInt = Field(description="Points.")
    seed: NonNegativeInt = 0
    ranges: Annotated[dict[str, Draw], Field(min_length=1)] = Field(description="Parameters and how they are drawn.")


class Named(Spec):
    """One point that is written out."""

    name: str = Field(min_length=1, description="Its name in tables.")
    set: Settings = Field(default={}, description="Its settings.")


class ScoreSpec(Spec):
    """What a point is worth."""

    measure: str | None = Field(
        default=None, description="The metric that reports rank by; none: dsb, else excluded, else held_out."
    )
    largest: bool = Field(default=True, description="Whether more of it is better.")
    truth: str | None = Field(
        default=None, description="True nuclei, as for `slidebatch evaluate`; none: those of a sample, where it is one."
    )
    subset: str | None = Field(default=None, description="File of the ids to judge, one a line.")
    run: str | None = Field(default=None, description="train: config of a run with the weights, which `truth` judges.")
    set: Settings = Field(default={}, description="train: settings of that run.")


class SweepOutput(Spec):
    """Where a sweep goes."""

    path: str = Field(description="Folder of the sweep; the same command on the same folder resumes.")
    keep: bool = Field(default=True, description="Keep what points leave (weights, results) beside their figures.")


class SweepSpec(Spec):
    """A sweep: a base config and the points at which it is run."""

    name: str = Field(default="sweep", min_length=1, description="Name of the sweep, for people.")
    kind: Kind = Field(
        description="train: a training a point; run: a run a point; decode: runs that differ in the section decode, "
        "scored on class maps that are made once; call: a Python function of your own."
    )
    base: str = Field(
        description="The config that all points start from (for call: package.module.function, which is called with "
        "the settings and the point's folder and returns metrics by name)."
    )
    set: Settings = Field(default={}, description="Settings of all points, over the base config.")
    labels: tuple[str, ...] = Field(
        default=(), description="Parameters that are no settings; `follow` says what they stand for."
    )
    grid: dict[str, Any] | None = Field(default=None, description="Lists of values by dotted key: every combination.")
    random: Random | None = Field(default=None, description="Points drawn at random.")
    points: Annotated[list[Named], Field(min_length=1)] | None = Field(default=None, description="Points written out.")
    exclude: list[Condition] = Field(default=[], description="Combinations left out: those for which a rule holds.")
    follow: list[Follow] = Field(default=[], description="Settings that follow from parameters, in this order.")
    score: ScoreSpec = ScoreSpec()
    sample: Literal["plate", "tissue", "training"] | None = Field(
        default=None, description="Sample images that points read; written to sample/ before the first one."
    )
    output: SweepOutput
    points_per_job: PositiveInt = Field(default=1, description="Points that a job (an array's task) runs in turn.")
    retries: NonNegativeInt = Field(default=1, description="How often a point that failed is tried again.")
    deaths: PositiveInt = Field(
        default=5, description="How often a point's process may be killed before the point counts as failed."
    )

    @model_validator(mode="after")
    def _one_kind_of_points(self) -> SweepSpec:
        given = [name for name in ("grid", "random", "points") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none'} of grid, random, points; give exactly one of them")
        if self.score.run is not None and self.kind != "train":
            raise ValueError(f"score.run is for kind train, not {self.kind}; take it away")
        if self.score.run is not None and self.score.truth is None:
            raise ValueError("score.run is given without score.truth; name the truth of its images")
        return self
