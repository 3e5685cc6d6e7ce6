"""How far a sweep is, read from its folder, by anyone and at any time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from slidebatch.lease import held
from slidebatch.sweep.folder import Sweep, open_sweep
from slidebatch.sweep.ledger import result_of
from slidebatch.sweep.ranges import compress

SHOWN = 10
"""Failures that are told one by one."""


@dataclass(frozen=True)
class Counts:
    """Points by state: done, failed for good, running now, killed (begun, and nobody at it), and to do."""

    done: int = 0
    failed: int = 0
    running: int = 0
    killed: int = 0
    waiting: int = 0

    @property
    def points(self) -> int:
        return self.done + self.failed + self.running + self.killed + self.waiting

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.done + self.failed == self.points

    def describe(self) -> str:
        """On one line, without states that no point is in."""
        told = [f"{n} {name}" for name, n in vars(self).items() if n and name != "done"]
        return f"{self.done} of {self.points} points done" + "".join(f", {part}" for part in told)


@dataclass(frozen=True)
class Status:
    """A sweep's counts, the sentences of its failures by point, and the jobs with points to do, as ranges."""

    name: str
    counts: Counts
    failures: tuple[tuple[str, str], ...]
    missing: str

    def describe(self) -> str:
        """For people."""
        lines = [f"{self.name}: {self.counts.describe()}"]
        lines += [f"  failed: {point}: {why}" for point, why in self.failures[:SHOWN]]
        if len(self.failures) > SHOWN:
            lines.append(f"  and {len(self.failures) - SHOWN} more; results/ has them with their tracebacks")
        if self.missing:
            lines.append(f"  jobs with points to do: {self.missing}")
        return "\n".join(lines)


def status(folder: str | Path) -> Status:
    """How far the sweep in a folder is. ResultsError: there is none."""
    sweep = open_sweep(folder)
    states, failures = _states(sweep), []
    for point, state in zip(sweep.points, states, strict=True):
        if state == "failed":
            found = result_of(sweep, point) or {"error": "its result has just gone"}
            failures.append((point.key, str(found["error"]).splitlines()[0]))
    size = sweep.spec.points_per_job
    open_jobs = {p.number // size for p, s in zip(sweep.points, states, strict=True) if s not in ("done", "failed")}
    return Status(sweep.spec.name, Counts(**Counter(states)), tuple(failures), compress(open_jobs))


def counts(sweep: Sweep) -> Counts:
    """Points by state now."""
    return Counts(**Counter(_states(sweep)))


def _states(sweep: Sweep) -> list[str]:
    """The state of each point in order."""
    places = sweep.folder / "points"
    begun = {p.name for p in places.iterdir()} if places.is_dir() else set()
    found = []
    for point in sweep.points:
        result = result_of(sweep, point)
        if result is not None:
            found.append(str(result["state"]))
        elif point.key in begun:
            found.append("running" if held(sweep.place(point)) else "killed")
        else:
            found.append("waiting")
    return found
