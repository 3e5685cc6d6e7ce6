"""The faults of `chaos.py`: each waits for its moment in a stage, does its harm, proves it, and books it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from chaos_place import Cluster, gone
from chaos_round import FULL, Broken, Round, stage_of
from chaos_worker import TAKEN
from timing import WORKERS

from slidebatch.plan import Plan
from slidebatch.store import checksum

AT_REST, IN_STAGE = "cut at rest", "cut in a stage"

FILL_S = 0.02
SPARE_BYTES = 40_000
"""A full disk has this much room at most: some of what a task writes may still find place."""


def kill_worker(chaos: Round, stage: str) -> None:
    """SIGKILL of one worker inside a task."""
    one = chaos.catch(stage, chaos.stop_worker)
    if one is None:
        return
    os.kill(one.process, signal.SIGKILL)
    if chaos.cluster is not None:
        chaos.cluster.replace(one.process)
    gone([one.process])
    chaos.book("worker", stage, task=one.task)


def kill_driver(chaos: Round, stage: str) -> None:
    """SIGKILL of the run's process, or of its whole group, with a task in flight; then the same command again."""
    one = chaos.catch(stage, chaos.stop_all)
    if one is None:
        return
    own = [p.pid for p in psutil.Process(chaos.run.pid).children(recursive=True)]
    if chaos.random.random() < 0.5:
        os.killpg(chaos.run.pid, signal.SIGKILL)
    else:
        os.kill(chaos.run.pid, signal.SIGKILL)
    chaos.run.wait()
    chaos.go_on(one)
    if not gone(own):
        raise Broken(f"processes of a run that was killed outlived it: {own}")
    chaos.book("driver", stage, task=one.task)
    chaos.again(stage)


def kill_scheduler(chaos: Round, stage: str) -> None:
    """SIGKILL of the scheduler with a task in flight: the run ends resumable; another cluster, the same command."""
    one = chaos.catch(stage, chaos.stop_worker)
    if one is None or chaos.cluster is None:
        return
    if chaos.torn:  # a run that is about to stop over a cut file proves nothing of schedulers
        chaos.go_on(one)
        return
    chaos.cluster.scheduler.kill()
    chaos.go_on(one)
    if not chaos.ended_resumable("scheduler"):
        raise Broken(f"a run outlived its scheduler: {chaos.said()[-2000:]}")
    chaos.book("scheduler", stage, task=one.task)
    chaos.cluster = Cluster.begin(chaos.place, WORKERS, [*chaos.cluster.left, *chaos.cluster.workers])
    chaos.again(stage)


def fill_disk(chaos: Round, stage: str) -> None:
    """A full disk while a task is in flight: the run ends resumable; room, the same command."""
    if chaos.catch(stage, lambda _: True) is None:
        return
    spare = chaos.random.randrange(SPARE_BYTES)
    while chaos.run.poll() is None:
        chaos.place.fill(spare)
        time.sleep(FILL_S)
    chaos.place.free()
    if chaos.ended_resumable(FULL):  # or else it needed no more room than there was
        chaos.book("disk", stage)
        chaos.again(stage)


def cut_shard(chaos: Round, fault: str, stage: str) -> bool:
    """Cut a file that a finished task has made, anywhere from its first byte to its last; False: there is none."""
    made = _finished_files(chaos)
    if not made:
        return False
    task, path = chaos.random.choice(made[chaos.random.choice(sorted(made))])
    size = path.stat().st_size
    kept = chaos.random.choice([0, chaos.random.randrange(size)])
    os.truncate(path, kept)
    chaos.log.tell(what="cut", task=task, at_rest=fault == AT_REST)
    name = str(path.relative_to(chaos.place.results))
    chaos.book(fault, stage, file=name, of_bytes=size, kept_bytes=kept, maker=stage_of(task))
    return True


def _finished_files(chaos: Round) -> dict[str, list[tuple[str, Path]]]:
    """Files of tasks whose receipts prove them, by stage: the task and the file. None once slides are finished."""
    found: dict[str, list[tuple[str, Path]]] = {}
    if list((chaos.place.work / "finished").glob("*.json")):
        return found
    for receipt in sorted((chaos.place.work / "receipts").glob("*/*.json")):
        stage = receipt.parent.name
        for name, told in json.loads(receipt.read_bytes())["outputs"].items():
            path = receipt.parent / name
            if told and told[0] and checksum(path) == told:
                found.setdefault(stage, []).append((f"{stage}-{receipt.stem}", path))
    return found


def cut_in_stage(chaos: Round, stage: str) -> None:
    """Cut a finished file while a task is in flight."""
    one = chaos.catch(stage, chaos.stop_all)
    if one is None:
        return
    chaos.torn = cut_shard(chaos, IN_STAGE, stage) or chaos.torn
    chaos.go_on(one)


def cut_at_rest(chaos: Round, stage: str) -> None:
    """Cut a finished file between the next end of the run and the start after it."""
    chaos.at_rest = lambda stage: cut_shard(chaos, AT_REST, stage)


def schedule_exceptions(chaos: Round, plan: Plan, stages: Sequence[str]) -> None:
    """For each stage named, an exception in the function of one of its tasks, at the first attempt or the first two."""
    for stage in stages:
        item = chaos.random.choice([i for t in plan.tasks(stage) for i in t.items])
        name = f"{stage}-{item.slide}-{item.box.y0}-{item.box.x0}"
        number = len(list(chaos.place.schedule.glob(f"{name}.*")))
        if number < plan.attempts - 1:  # one more would be the input's fault
            (chaos.place.schedule / f"{name}.{number}").write_text(chaos.random.choice(["before", "after"]))


def book_exceptions(chaos: Round) -> None:
    """Those that came."""
    for path in sorted(chaos.place.schedule.glob(f"*{TAKEN}")):
        chaos.book("exception", path.name.split("-")[0], item=path.name.removesuffix(TAKEN))


FAULTS: dict[str, Callable[[Round, str], None]] = {
    "worker": kill_worker,
    "scheduler": kill_scheduler,
    "driver": kill_driver,
    AT_REST: cut_at_rest,
    IN_STAGE: cut_in_stage,
    "disk": fill_disk,
}
"""What is done by name in a stage; exceptions are scheduled before the run begins."""
