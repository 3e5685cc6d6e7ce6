"""A batch from start to end: plan, check, run, resume, status. The one module that drives executors."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slidebatch import executors, projection, scratch
from slidebatch.config import RunConfig
from slidebatch.deadline import Deadline, deadline
from slidebatch.earlier import recall, remember
from slidebatch.errors import ConfigError, OutOfTime
from slidebatch.events import (
    InputFailed,
    OnEvent,
    RunEnded,
    RunNote,
    RunStarted,
    StageEnded,
    StageStarted,
    TaskDone,
    ignore,
)
from slidebatch.executors import Call, Executor, Wanted
from slidebatch.executors.room import Room, room
from slidebatch.finish import Clock, Failure, finish, manifest
from slidebatch.job import Job, open_job
from slidebatch.lease import lease
from slidebatch.plan import Plan, network_of, write_plan
from slidebatch.planning import Planned, make_plan
from slidebatch.pooling import pool
from slidebatch.projection import Costs
from slidebatch.sharing import give_to_group, umask
from slidebatch.stages import Attempt, Receipt, fail
from slidebatch.store import clean_partial, disk_faults, read_json, remove, write_json

DONE, FAILED_SOME = 0, 3

REPORT_S = 30.0
"""What the report of a run may take: with less time left before the deadline it is not begun."""


@dataclass(frozen=True)
class Preview:
    """A plan with its costs, before anything starts."""

    planned: Planned
    costs: Costs

    def describe(self) -> str:
        """For people, a line per thing."""
        faults = [f"left out: {f.slide}: {f.sentence}" for f in self.planned.faults]
        notes = [f"note: {n}" for n in self.planned.notes]
        return "\n".join([projection.describe(self.planned.plan, self.costs), *notes, *faults])


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `accuracy` is there where the input is a sample with known truth."""

    done: int
    failed: int
    results: Path
    exit_status: int
    accuracy: Any | None


def plan(config: RunConfig) -> Preview:
    """Plan a run and project its costs. ConfigError or PlanError where it cannot be."""
    planned = make_plan(config, recall(config))
    memory = room(config.cluster)
    at_most = memory.shared_bytes if config.cluster.workers == "auto" else None
    workers = config.cluster.count(config.model.threads, planned.plan.device != "cpu")
    costs = projection.project(planned.plan, workers, at_most)
    costs = replace(costs, cpu_workers=_besides(config, planned.plan, costs, memory))
    projection.check(planned.plan, costs, memory)
    return Preview(planned, costs)


def _besides(config: RunConfig, plan: Plan, costs: Costs, memory: Room) -> int:
    """Workers besides those with a GPU; auto: no more than there is memory for."""
    wanted = config.cluster.cpu_count(plan.device != "cpu")
    if config.cluster.cpu_workers != "auto" or memory.shared_bytes is None:
        return wanted
    left_bytes = memory.shared_bytes - costs.workers * costs.worker.peak
    return max(0, min(wanted, left_bytes // costs.worker.peak_besides))


def run(config: RunConfig, on_event: OnEvent = ignore) -> Outcome:
    """Run a batch, or go on with it: the same config on the same folder resumes where it stopped.

    Raises ConfigError, PlanError, LeaseError before anything starts; EnvironmentFault where the disk, the memory
    or the workers fail (resumable). Inputs that fail are quarantined and told in the outcome.
    """
    results = Path(config.output.path).absolute()
    _refuse_foreign(results)
    limit = deadline(config.cluster.walltime_s)
    with disk_faults(), umask(config.cluster.umask):
        preview = plan(config)
        give_to_group(results, config.cluster.group)
        with lease(results / "work"):
            return Driver(results / "work", preview, config, on_event, limit).run()


def _refuse_foreign(results: Path) -> None:
    """A folder with other things in it is never written to."""
    ours = any((results / name).exists() for name in ("work", "manifest.json"))
    if results.is_dir() and any(results.iterdir()) and not ours:
        raise ConfigError(
            f"{results} holds files that are not a slidebatch run; set output.path to an empty or new folder"
        )


@dataclass
class Driver:
    """One start of a run: goes through the stages and keeps the ledger."""

    work: Path
    preview: Preview
    config: RunConfig
    on_event: OnEvent
    deadline: Deadline
    session: str = field(default_factory=lambda: uuid.uuid4().hex)
    ledger: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    told: set[str] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)
    inherited: bool = False
    begun: float = field(default_factory=time.perf_counter)

    @property
    def planned(self) -> Planned:
        return self.preview.planned

    @property
    def plan(self) -> Plan:
        return self.planned.plan

    @property
    def job(self) -> Job:
        return open_job(str(self.work))

    def run(self) -> Outcome:
        """All stages, then the end."""
        vanished = self._vanished()
        self._start()
        executor = executors.start(self._wanted())
        try:
            executor.warm(str(self.work))
            self.on_event(
                RunStarted(self.plan.name, str(self.work.parent), tuple(self.plan.stages), executor.dashboard)
            )
            for note in (*self.planned.notes, *vanished):
                self.on_event(RunNote(note))
            self._tell_failures()
            for stage in self.plan.stages:
                self._stage(executor, stage)
                if stage == "prepare":
                    pool(self.job)
                    self._unmark()
                    self._tell_failures()
            if self.plan.scratch is not None:
                executor.everywhere(scratch.clear, self.plan.scratch, str(self.work))
        finally:
            executor.close()
        outcome = self._finish()
        self._report()
        self.on_event(RunEnded(outcome.done, outcome.failed, self._nuclei(), time.perf_counter() - self.begun))
        return outcome

    def _wanted(self) -> Wanted:
        """What is asked of the executor."""
        costs, gpu = self.preview.costs, self.plan.device != "cpu"
        return Wanted(self.config.cluster, costs.workers, self.work, self.deadline.at, gpu, costs.cpu_workers)

    def _vanished(self) -> list[str]:
        """A note on slides that an earlier start finished and that are no longer among the inputs."""
        try:
            told = read_json(self.work.parent / "manifest.json")
        except (FileNotFoundError, ValueError):
            return []
        here = {*self.plan.numbers, *(f.slide for f in self.planned.faults)}
        gone = [s["slide"] for s in told["slides"] if s["state"] == "done" and s["slide"] not in here]
        shown = ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else "")
        return [f"{shown}: no longer among the inputs; their results will be removed"] if gone else []

    def _start(self) -> None:
        """Store the plan, forget old failures (they are tried again), clean what kills left."""
        clean_partial(self.work.parent)
        remove(self.work / "failed")
        remove(self.work / "attempts")
        write_plan(self.work, self.plan)
        remember(self.work, self.config, self.plan)
        for fault in self.planned.faults:
            fail(self.job, fault.slide, "plan", fault.sentence, attempts=1)
        self._write_manifest("running")

    def _write_manifest(self, state: str) -> None:
        told = manifest(self.job, state, self.config.model_dump(mode="json"), self._failures())
        write_json(self.work.parent / "manifest.json", told, durable=True)

    def _stage(self, executor: Executor, stage: str) -> None:
        """Run one stage to its end."""
        begun = time.perf_counter()
        tasks = self._open_tasks(stage)
        total = len(self.job.tasks(stage))
        self.on_event(StageStarted(stage, total, total - len(tasks)))
        done = 0
        for receipt in executor.run(self._calls(stage, tasks)):
            if not receipt.get("late"):
                self._note(stage, receipt)
                done += 1
        if done < len(tasks):
            raise OutOfTime(self.deadline.sentence(stage))
        self.on_event(StageEnded(stage, total, total, time.perf_counter() - begun))

    def _calls(self, stage: str, tasks: Sequence[int]) -> Iterator[Call]:
        """The calls of a stage, one by one, until there is no time for another."""
        for task in tasks:
            if self.deadline.passed(stage):
                return
            longest_s = self.deadline.longest_s(stage)
            yield Call(str(self.work), stage, task, self.session, self.deadline.start_by(stage), longest_s)

    def _open_tasks(self, stage: str) -> list[int]:
        """Numbers of the tasks that any unfinished slide needs."""
        job = self.job
        if stage == "prepare":
            return list(range(len(job.tasks(stage))))
        return [i for i, t in enumerate(job.tasks(stage)) if not all(item.slide in self.closed for item in t.items)]

    def _note(self, stage: str, receipt: Receipt) -> None:
        """Book a receipt and tell about it."""
        self.deadline.saw(stage, receipt.get("took_s", sum(s["seconds"] for s in receipt["slides"].values())))
        self.inherited |= not receipt["fresh"]
        mm2, nuclei, seconds = 0.0, 0, 0.0
        for slide, numbers in receipt["slides"].items():
            plan = self.plan.slides[self.plan.numbers[slide]]
            mm2 += numbers["px"] * (plan.mpp_plan or 0.0) ** 2 / 1e6
            nuclei += numbers["nuclei"]
            seconds += numbers["seconds"]
            if numbers.get("batch_halvings"):
                note = "a GPU's memory ran out: a worker halved its batch and goes on; a smaller model.batch avoids it"
                self.on_event(RunNote(f"{slide}: {note}"))
            self._book(slide, stage, numbers)
        self.on_event(TaskDone(stage, tuple(receipt["slides"]), nuclei, mm2, seconds))
        self._tell(read_json(self.job.failure(slide)) for slide in receipt["failed"] if slide not in self.told)

    def _book(self, slide: str, stage: str, numbers: dict[str, float]) -> None:
        """Add a receipt's numbers of one slide to the ledger."""
        row = self.ledger[slide]
        kind = "pyramid" if stage.startswith("pyramid") else network_of(stage)[0]
        row[f"seconds_{kind}"] = row.get(f"seconds_{kind}", 0.0) + numbers["seconds"]
        for name, value in numbers.items():
            if name not in {"seconds", "px", "nuclei"}:
                row[name] = row.get(name, 0) + value

    def _unmark(self) -> None:
        """Take the markers of slides that must be done again, so that they do not count once half of it is done.

        The others stay finished until the run's end: no later stage works on them.
        """
        job = self.job
        numbers = range(len(self.plan.slides))
        self.closed = {n for n in numbers if job.finished(n)}
        self.inherited |= bool(self.closed)
        for number in set(numbers) - self.closed:
            remove(job.marker(number))

    def _tell_failures(self) -> None:
        self._tell(self._failures())

    def _tell(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            if failure["slide"] not in self.told:
                self.told.add(failure["slide"])
                self.on_event(InputFailed(failure["slide"], failure["stage"], failure["why"]))

    def _failures(self) -> list[Failure]:
        return [read_json(p) for p in sorted((self.work / "failed").glob("*.json"))]

    def _finish(self) -> Outcome:
        """The manifest stage, with its attempt file like any other."""
        failures = self._failures()
        attempt = Attempt(self.job, "manifest", 0, self.session)
        attempt.begin()
        attempt.working_on(None)
        clean_partial(self.work.parent)  # of workers that died in this start
        finish(self.job, self.config.model_dump(mode="json"), failures, dict(self.ledger), self._clock())
        attempt.end()
        failed = {f["slide"] for f in failures}
        done = sum(s.slide not in failed for s in self.plan.slides)
        return Outcome(done, len(failed), self.work.parent, FAILED_SOME if failed else DONE, self._accuracy())

    def _clock(self) -> Clock | None:
        """How long this start took; None where an earlier one had done a part."""
        if self.inherited:
            return None
        costs = self.preview.costs
        return {"seconds": time.perf_counter() - self.begun, "workers": costs.workers + costs.cpu_workers}

    def _report(self) -> None:
        """The page to look at. The results are whole by now: what goes wrong here is told and does not fail the run."""
        results = self.work.parent
        again = f"slidebatch report {results} writes it"
        if not self.config.report.enabled:
            return
        if self.deadline.left_s() < REPORT_S:
            self.on_event(RunNote(f"no time was left for the report; {again}"))
            return
        try:
            from slidebatch.report import write_report

            write_report(results)
        except Exception as error:
            what = " ".join(str(error).split()) or type(error).__name__
            self.on_event(RunNote(f"the results are whole, but their report could not be written ({what}); {again}"))

    def _nuclei(self) -> int:
        told = read_json(self.work.parent / "manifest.json")
        return sum(s.get("nuclei") or 0 for s in told["slides"])

    def _accuracy(self) -> Any | None:
        if self.planned.truth is None:
            return None
        from slidebatch.evaluate import evaluate

        return evaluate(self.work.parent, self.planned.truth)
