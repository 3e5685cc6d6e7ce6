"""What a driver and an executor tell each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from slidebatch.release import release
from slidebatch.stages import Receipt


@dataclass(frozen=True)
class Call:
    """One task to be done, as it travels to a worker: the arguments of `stages.perform`.

    start_by   seconds since the epoch after which it must not be begun, or None
    longest_s  how long the longest task of its stage has taken so far
    release    the driver's slidebatch: a worker with another one would give another answer
    """

    work: str
    stage: str
    task: int
    session: str
    start_by: float | None = None
    longest_s: float = 0.0
    release: str = field(default_factory=release)

    @property
    def arguments(self) -> tuple[str, str, int, str, float | None]:
        return self.work, self.stage, self.task, self.session, self.start_by


class Executor(Protocol):
    """Does calls."""

    def warm(self, work: str) -> None:
        """Have the workers that are there load what the run needs; before this a run has not begun."""

    @property
    def dashboard(self) -> str | None:
        """Address of a live dashboard on this machine, or None."""

    def run(self, calls: Iterable[Call]) -> Iterator[Receipt]:
        """Receipts of calls, in any order; the next call is taken when there is room. EnvironmentFault stops it."""

    def everywhere(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function in every worker that is there, for its effect; what a dying worker leaves out is left out."""

    def close(self) -> None:
        """Let the workers go."""
