"""How far a run is, read from its folder, by anyone and at any time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from slidebatch.errors import ResultsError
from slidebatch.finish import Failure
from slidebatch.job import open_job
from slidebatch.lease import held
from slidebatch.store import read_json


@dataclass(frozen=True)
class Status:
    """State of a run: "running", "interrupted" or "done"; per stage the tasks done and all, but for a done one."""

    name: str
    state: str
    stages: dict[str, tuple[int, int]]
    slides: int
    failures: tuple[Failure, ...]

    def describe(self) -> str:
        """For people."""
        again = "; give its command again to resume" if self.state == "interrupted" else ""
        lines = [f"{self.name}: {self.state}, {self.slides} slides{again}"]
        lines += [f"  {stage}: {done} of {total} tasks" for stage, (done, total) in self.stages.items()]
        return "\n".join([*lines, *(f"  failed: {f['slide']} in {f['stage']}: {f['why']}" for f in self.failures)])


def status(path: Path) -> Status:
    """How far the run in a results folder is. ResultsError if there is none."""
    results = Path(path).absolute()
    if not (results / "manifest.json").exists():
        raise ResultsError(f"{path}: no run has begun here; name the output.path of a run")
    told = read_json(results / "manifest.json")
    if told["state"] == "done":
        lines = (results / "failures.jsonl").read_text().splitlines()
        return Status(told["name"], "done", {}, len(told["slides"]), tuple(json.loads(line) for line in lines))
    state = "running" if held(results / "work") else "interrupted"
    failures = tuple(read_json(p) for p in sorted((results / "work" / "failed").glob("*.json")))
    return Status(told["name"], state, _stages(results / "work"), len(told["slides"]), failures)


def _stages(work: Path) -> dict[str, tuple[int, int]]:
    """Tasks with a receipt, and all, by stage. Receipts of an earlier plan are among them until they are redone."""
    job = open_job(str(work))
    totals = {stage: len(job.tasks(stage)) for stage in job.plan.stages}
    done = {stage: len(list((work / "receipts" / stage).glob("*.json"))) for stage in totals}
    return {stage: (min(done[stage], total), total) for stage, total in totals.items()}
