"""What is tuned on what, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slidebatch.errors import ConfigError
from slidebatch.tuning.space import NAMES
from slidebatch.tuning.trial import MEASURES

if TYPE_CHECKING:  # workers import this package, and need not read images
    from slidebatch.evaluate.tables import Column


@dataclass(frozen=True)
class Choice:
    """Which images are used.

    subset      file of ids, one a line; None: all that have maps and truth
    groups      table of headings, under which scores are shown (default column: modality)
    clusters    table of groups that belong together in a fold and in a bootstrap draw (default column: group);
                None: each image is its own group
    shapes      table of shapes for a truth that is a CSV
    """

    subset: Path | None = None
    groups: Column | None = None
    clusters: Column | None = None
    shapes: Path | None = None


@dataclass(frozen=True)
class TuneSpec:
    """How settings are searched.

    measure    that is made as large as can be, as its mean over images
    settings   names of the settings that are searched, None: all that the run has; the others stay as they are.
               Of an ensemble `weight.2` is the second member's, `weight` that of every member
    sampler    "optuna" (its TPE sampler), "grid", or "auto": optuna where it is installed
    trials     settings that optuna tries in each search
    folds      parts that the groups are dealt into
    seed       of folds, sampler and bootstrap
    resamples  bootstrap draws
    workers    processes; "auto": as many as there are cores
    """

    measure: str = "dsb"
    settings: tuple[str, ...] | None = None
    sampler: Literal["auto", "optuna", "grid"] = "auto"
    trials: int = 60
    folds: int = 5
    seed: int = 0
    resamples: int = 2000
    workers: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ConfigError(f"measure {self.measure}: expected one of {', '.join(MEASURES)}.")
        unknown = [name for name in self.settings or () if name.partition(".")[0] not in NAMES]
        if unknown or self.settings == ():
            raise ConfigError(f"settings {', '.join(unknown) or 'none'}: expected some of {', '.join(NAMES)}.")
        if self.folds < 2 or self.trials < 1:
            raise ConfigError(f"folds {self.folds}, trials {self.trials}: expected at least 2 folds and 1 trial.")
        if self.workers != "auto" and self.workers < 1:
            raise ConfigError(f"workers {self.workers}: expected auto or a whole number above 0.")
