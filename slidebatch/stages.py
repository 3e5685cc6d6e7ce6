"""The task functions: what an executor calls, in any process, in any order, any number of times.

A task first asks whether its receipt proves it done. If not, it leaves an attempt file, works on its items one
after another, and writes its receipt. Faults are told apart:

* an input at fault (`InputError`) fails that slide alone: `work/failed/<slide>.json` says where and why, other
  items go on, later stages skip the slide;
* any other exception is tried again in place, then fails the slide, with its traceback; a file of the run that
  cannot be read (`ResultsError`) needs none;
* a fault of the environment (disk, memory, device) is raised and stops the run, which can be resumed;
* a worker's death leaves the attempt file behind, which blames exactly the slide that was being worked on; where
  several were, on a GPU, it blames none, and they are done one by one.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slidebatch import paint
from slidebatch.allocator import give_back_excess
from slidebatch.classmaps import create_maps, infer_maps, infer_together
from slidebatch.errors import EnvironmentFault, InputError, ResultsError
from slidebatch.geometry import Box
from slidebatch.infer import infer_detections
from slidebatch.job import Job, Made, open_job
from slidebatch.measure import measure_region, merge_table
from slidebatch.plan import Item, Task, network_of
from slidebatch.prepare import prepare_slide
from slidebatch.seams import seam_slide
from slidebatch.store import (
    digest,
    disk_faults,
    read_json,
    valid_receipt,
    write_json,
    write_receipt,
    write_shard,
)
from slidebatch.tiles import decode_tile, load_compiled

Receipt = dict[str, Any]
StageFunction = Callable[[Job, int, Box], Made]


LATE: Receipt = {"slides": {}, "failed": [], "fresh": False, "late": True}
"""The receipt of a task that was not begun, because it might not have ended in time."""


def perform(work: str, stage: str, index: int, session: str, start_by: float | None = None) -> Receipt:
    """Do task `index` of a stage unless its receipt proves it done; returns the receipt.

    `session` names the driver's run, so that a task is not blamed for a kill of the whole run. After `start_by`
    (seconds since the epoch) nothing is begun: the answer is `LATE`. The receipt's `fresh` says whether the work was
    done by this call, and `took_s` then how long it took. EnvironmentFault stops the run.
    """
    began = time.perf_counter()
    job = open_job(work)
    task: Task = job.tasks(stage)[index]
    path = job.work / "receipts" / stage / f"{index}.json"
    with disk_faults():
        print_ = fingerprint(job, task)
        done = valid_receipt(path, print_)
        if done is not None and _covers(job, task, done):
            return {**done, "fresh": False}
        if start_by is not None and time.time() > start_by:
            return LATE
        attempt = Attempt(job, stage, index, session)
        attempt.begin()
        outputs, facts = _items(job, task, attempt)
        receipt = write_receipt(path, print_, outputs, facts)
        attempt.end()
    give_back_excess(stage)
    return {**receipt, "fresh": True, "took_s": time.perf_counter() - began}


def _covers(job: Job, task: Task, receipt: Receipt) -> bool:
    """Whether a valid receipt proves all items done: none failed, none was passed over that is to be done now."""
    passed_over = {i.slide for i in task.items if job.at(i.slide).slide not in receipt["slides"]}
    return not receipt["failed"] and all(job.finished(n) for n in passed_over)


def warm(work: str, network: bool = True) -> None:
    """Load what this process will need of a run before its first task: the network if asked for, compiled code."""
    job = open_job(work)
    if network:
        _ = job.of(0).model
    for member in job.members:
        if member.plan.card.family == "dense":
            load_compiled(member.plan)


def fingerprint(job: Job, task: Task) -> str:
    """What the result of a task depends on, for all its slides."""
    return digest(task.stage, [(job.print_of(task.stage, i.slide), i.box.tuple()) for i in task.items])


def _items(job: Job, task: Task, attempt: Attempt) -> tuple[list[Path], dict[str, Any]]:
    """Work on the items one after another; files made, and numbers per slide."""
    function = stage_function(job, task.stage)
    outputs: list[Path] = []
    slides: dict[str, dict[str, Any]] = {}
    failed: list[str] = []
    wanted = [i for i in task.items if task.stage == "prepare" or not job.finished(i.slide)]
    together = _together(job, task.stage, [i for i in wanted if not job.failed(i.slide)], attempt)
    for item in wanted:
        name = job.at(item.slide).slide
        if job.failed(item.slide):
            failed.append(name)
            continue
        begun = time.perf_counter()
        made = together.pop(item, None) or _tried(job, task.stage, item, function, attempt)
        if made is None:
            failed.append(name)
            continue
        outputs += made.outputs
        facts = {
            "seconds": time.perf_counter() - begun,
            "px": item.box.area,
            "nuclei": made.nuclei,
            **made.facts,
        }
        slides[name] = _added(slides.get(name), facts)
    return outputs, {"slides": slides, "failed": sorted(set(failed))}


def _together(job: Job, stage: str, items: Sequence[Item], attempt: Attempt) -> dict[Item, Made]:
    """What a GPU made of the items at once; those that are missing had a fault, and are done alone, to be told of it.

    None is made so where a worker has died over several slides: each alone will show whose fault it was.
    """
    kind, member = network_of(stage)
    view = job.of(member)
    if kind != "infer" or view.plan.device == "cpu" or view.plan.card.family != "dense" or not items:
        return {}
    names = {job.at(i.slide).slide for i in items}
    over = names.pop() if len(names) == 1 else SEVERAL
    if attempt.deaths(over):
        return {}
    attempt.working_on(over)
    try:
        made = infer_together(view, items)
    except (EnvironmentFault, OSError, MemoryError):
        raise
    except Exception:  # whose fault it is, shows when they are done alone
        return {}
    return {item: one for item, one in zip(items, made, strict=True) if isinstance(one, Made)}


def _added(sofar: dict[str, Any] | None, facts: dict[str, Any]) -> dict[str, Any]:
    """Numbers of several items of one slide, added up."""
    return facts if sofar is None else {k: sofar.get(k, 0) + v for k, v in facts.items()}


def _tried(job: Job, stage: str, item: Item, function: StageFunction, attempt: Attempt) -> Made | None:
    """The result of one item, or None once its slide has failed."""
    name, tries = job.at(item.slide).slide, job.plan.attempts
    deaths = attempt.deaths(name)
    if deaths >= tries:
        return fail(job, name, stage, f"killed its worker {deaths} times; give workers more memory", deaths)
    attempt.working_on(name)
    for tried in range(1, tries + 1):
        try:
            return function(job, item.slide, item.box)
        except InputError as error:
            return fail(job, name, stage, str(error), deaths + tried)
        except (EnvironmentFault, OSError, MemoryError):
            raise
        except Exception as error:
            if tried == tries:
                if isinstance(error, ResultsError):
                    return fail(job, name, stage, str(error), deaths + tried)
                told = f"{type(error).__name__}: {error}"
                return fail(job, name, stage, told, deaths + tried, traceback.format_exc())
    return None


def fail(job: Job, slide: str, stage: str, why: str, attempts: int, trace: str | None = None) -> Made | None:
    """Record that a slide has failed; everything else goes on. Returns None, the result of a failed item."""
    record = {"slide": slide, "stage": stage, "why": why, "attempts": attempts}
    write_json(job.failure(slide), {**record, **({"traceback": trace} if trace else {})})
    return None


SEVERAL = ""
"""In an attempt file in place of a slide: several were being worked on, and a death is nobody's."""


class Attempt:
    """The file that a task leaves while it works: a task that finds one was left by a dead worker."""

    def __init__(self, job: Job, stage: str, index: int, session: str) -> None:
        self.path = job.work / "attempts" / f"{stage}-{index}.json"
        self.session = session
        self._deaths: dict[str, int] = {}

    def begin(self) -> None:
        """Count the deaths that earlier attempts of this session left behind, and take their file over."""
        try:
            left = read_json(self.path)
        except FileNotFoundError:
            return
        except ValueError:
            left = {}
        if left.get("session") == self.session:
            self._deaths = left["deaths"]
            victim = left["slide"]
            if victim is not None:
                self._deaths[victim] = self._deaths.get(victim, 0) + 1
        self._write(None)

    def deaths(self, slide: str) -> int:
        """How many workers have died over a slide in this task."""
        return self._deaths.get(slide, 0)

    def working_on(self, slide: str | None) -> None:
        """Leave the file, which blames this slide for a death from now on; None: no slide."""
        self._write(slide)

    def end(self) -> None:
        self.path.unlink(missing_ok=True)

    def _write(self, slide: str | None) -> None:
        """Not synced: it must outlive this process, not the machine."""
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(f".{os.getpid()}.partial")
        record = {"session": self.session, "slide": slide, "deaths": self._deaths, "process": os.getpid()}
        aside.write_text(json.dumps(record))
        os.replace(aside, self.path)


def stage_function(job: Job, stage: str) -> StageFunction:
    """The function of a stage."""
    kind, member = network_of(stage)
    if kind in {"maps", "infer"}:
        return _of_network(job.of(member), kind)
    if stage.startswith("pyramid"):
        level = int(stage.removeprefix("pyramid"))
        return lambda job, number, box: paint.pyramid_region(job, number, box, level)
    functions: dict[str, StageFunction] = {
        "prepare": lambda job, number, _: prepare_slide(job, number),
        "decode": decode_tile,
        "seams": _seams,
        "paint": paint.paint_region,
        "measure": measure_region,
        "table": _table,
    }
    return functions[stage]


def _of_network(view: Job, kind: str) -> StageFunction:
    """A stage of one network, which sees the run as its own."""
    infer = infer_maps if view.plan.card.family == "dense" else infer_detections
    function = create_maps if kind == "maps" else infer
    return lambda _, number, box: function(view, number, box)


def _seams(job: Job, number: int, _: Box) -> Made:
    seamed = seam_slide(job, number)
    write_shard(job.seams(number), seamed.arrays(), job.plan.card.digest)
    laid = paint.lay_out(job, number)
    return Made((job.seams(number), *laid), nuclei=len(seamed.box), facts=dict(seamed.counts))


def _table(job: Job, number: int, _: Box) -> Made:
    return merge_table(job, number, job.plan.boxes("measure", job.at(number)))
