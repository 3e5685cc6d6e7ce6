"""The time that a run has: when it must be over, and whether another task can still be done in it.

A scheduler kills a job at its time limit without asking. So a run that knows its limit begins no task that would not
end before it, going by the longest task of that stage so far, and leaves in good order. A training does the same with
its epochs.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field

from slidebatch.errors import ConfigError

VARIABLE = "SLIDEBATCH_DEADLINE"
"""Environment variable: seconds since the epoch at which the run must be over."""

LEAVING_S = 5.0
"""What a run needs for leaving, kept free before the deadline."""


@dataclass
class Deadline:
    """`at`: seconds since the epoch, None for a run that has all the time in the world."""

    at: float | None
    _longest_s: dict[str, float] = field(default_factory=dict)

    def saw(self, stage: str, seconds: float) -> None:
        """A task of a stage took so long."""
        self._longest_s[stage] = max(self._longest_s.get(stage, 0.0), seconds)

    def start_by(self, *stages: str) -> float | None:
        """Seconds since the epoch by which a task of a stage, or one of each in turn, must begin; None: any time."""
        return None if self.at is None else self.at - LEAVING_S - self.longest_s(*stages)

    def longest_s(self, *stages: str) -> float:
        """Seconds of the longest task of a stage so far; of several stages their sum."""
        return sum(self._longest_s.get(stage, 0.0) for stage in stages)

    def passed(self, *stages: str) -> bool:
        """Whether it is too late to begin another task of a stage, or one of each in turn."""
        start_by = self.start_by(*stages)
        return start_by is not None and time.time() > start_by

    def left_s(self) -> float:
        """Seconds that are left; infinite without a limit."""
        return math.inf if self.at is None else max(0.0, self.at - time.time())

    def sentence(self, stage: str) -> str:
        """Why a run stops before a stage is done."""
        return (
            f"stopped in stage {stage}: {self.left_s():.0f} s are left before the time limit, and a task has taken up "
            f"to {self.longest_s(stage):.1f} s; the run is resumable: give the same command again"
        )


def deadline(walltime_s: float | None) -> Deadline:
    """The earlier of `walltime_s` from now and the environment's. ConfigError where that is no number."""
    limits = [] if walltime_s is None else [time.time() + walltime_s]
    told = os.environ.get(VARIABLE, "").strip()
    if told:
        try:
            limits.append(float(told))
        except ValueError as error:
            raise ConfigError(
                f"{VARIABLE} is {told!r}; expected seconds since the epoch, such as $(($(date +%s) + 3600))"
            ) from error
    return Deadline(min(limits, default=None))
