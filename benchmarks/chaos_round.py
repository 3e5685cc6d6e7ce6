"""One round of `chaos.py`: a run that is disturbed again and again, each time proved, until it ends."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos_place import LOOK_S, PATIENCE_S, Cluster, InFlight, Log, Place, Process, in_flight, signalled, write_settings
from timing import WORKERS

FULL = "No space left on device"
RESUME = "give the same command again"

Event = dict[str, Any]


def stage_of(task: str) -> str:
    """The stage of a task that is named as its attempt file is."""
    return task.rsplit("-", 1)[0]


class Broken(Exception):
    """A promise of the engine that did not hold."""


@dataclass
class Round:
    """A run under disturbance.

    stages  of the plan, in order, with the driver's own last
    took    seconds of a typical task of each stage: how long after a task's beginning a disturbance may come
    old     sessions of earlier starts, whose attempt files say nothing any more
    torn    whether a file was cut while the run went on: it may then stop, to be given again
    at_rest what is to be done before the run is started again; it says whether it could be done
    """

    place: Place
    settings: Mapping[str, Any]
    stages: list[str]
    took: Mapping[str, float]
    random: random.Random
    existing: bool
    events: list[Event] = field(default_factory=list)
    old: frozenset[str] = frozenset()
    torn: bool = False
    at_rest: Callable[[str], bool] | None = None
    starts: int = 0
    cluster: Cluster | None = None
    run: Process = field(init=False)
    log: Log = field(init=False)

    def begin(self) -> None:
        """A fresh folder, and the first start."""
        self.place.clear()
        self.log = Log(self.place.log)
        cluster: dict[str, Any] = {"kind": "local", "workers": WORKERS}
        if self.existing:
            self.cluster = Cluster.begin(self.place, WORKERS)
            cluster = {"kind": "existing", "scheduler_file": str(self.place.scheduler_file), "wait_s": PATIENCE_S}
        write_settings(self.place.folder / "run.yaml", {**self.settings, "cluster": cluster})
        self.start()

    def start(self) -> None:
        """The command of a user, the same each time."""
        self.starts, self.torn = self.starts + 1, False
        self.old = frozenset(line["session"] for line in self.log() if "session" in line)
        self.run = self.place.start("run", ["slidebatch", "run", str(self.place.folder / "run.yaml")])

    def again(self, stage: str) -> None:
        """Start once more, after what is to be done while nothing runs."""
        if self.at_rest is not None and self.at_rest(stage):
            self.at_rest = None
        self.start()

    def said(self) -> str:
        return (self.place.folder / "run.log").read_text()

    def book(self, fault: str, stage: str, **more: Any) -> None:
        self.events.append({"fault": fault, "stage": stage, **more})

    # Catching a task in flight

    def catch(self, stage: str, stop: Callable[[InFlight], bool], most_deaths: int = 1) -> InFlight | None:
        """Stop processes at a random moment while a task of the stage is in flight: which; None: it has passed.

        The moment is drawn from the time that such a task takes; each one that came too late is halved. What `stop`
        stopped can no more end a task between the look and what follows.
        """
        wait_s = self.random.uniform(0, self.took.get(stage, 0.01))
        while not self._passed(stage):
            if in_flight(self.place.work, stage, self.old):
                time.sleep(wait_s)
                wait_s /= 2
                one = self._stopped(stage, stop, most_deaths)
                if one is not None:
                    return one
            time.sleep(LOOK_S)
        return None

    def _stopped(self, stage: str, stop: Callable[[InFlight], bool], most_deaths: int) -> InFlight | None:
        found = [f for f in in_flight(self.place.work, stage, self.old) if f.deaths <= most_deaths]
        one = self.random.choice(found) if found else None
        if one is None or not stop(one):
            return None
        if one in in_flight(self.place.work, stage, self.old):
            return one
        self.go_on(one)
        return None

    def stop_worker(self, one: InFlight) -> bool:
        return signalled(one.process, signal.SIGSTOP)

    def stop_all(self, one: InFlight) -> bool:
        """The driver, and the process of the task."""
        stopped = signalled(self.run.pid, signal.SIGSTOP) and self.stop_worker(one)
        if not stopped:
            self.go_on(one)
        return stopped

    def go_on(self, one: InFlight) -> None:
        for process in (one.process, self.run.pid):
            signalled(process, signal.SIGCONT)

    def _passed(self, stage: str) -> bool:
        """Whether no more task of the stage can come; a run that stopped over a torn file is given again."""
        if self.run.poll() is not None:
            return not self._again()
        begun = [one for one in self.log() if one["what"] == "begin" and one["session"] not in self.old]
        return bool(begun) and self.stages.index(stage_of(begun[-1]["task"])) > self.stages.index(stage)

    # Ends of the run

    def _again(self) -> bool:
        """Whether the run that ended was started again: it stopped over a torn file, with a clear sentence."""
        status, said = self.run.returncode, self.said()
        if status == 0:
            return False
        if not self.torn or status not in (1, 3) or "Traceback" in said:
            raise Broken(f"the run ended with {status}: {said[-2000:]}")
        why = self.sentences(status)
        if len(why) != 1 or RESUME not in why[0]:
            raise Broken(f"after a file was cut the run ended with {status}, and said {why}")
        if status == 3:
            self.log.tell(what="tidied", failed=[f["slide"] for f in self.failures()])
        self.book("stopped over a cut file", "", status=status, sentence=why[0])
        self.start()
        return True

    def sentences(self, status: int) -> list[str]:
        """What the run gave as its reasons, each once."""
        told = [line.removeprefix("error: ") for line in self.said().splitlines() if line.startswith("error: ")]
        return told if status != 3 else sorted({f["why"] for f in self.failures()})

    def failures(self) -> list[dict[str, Any]]:
        path = self.place.results / "failures.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def ended(self) -> int:
        """Wait for the run's end; its status."""
        return self.run.wait(PATIENCE_S)

    def finish(self) -> None:
        """Let the run end well."""
        while self.ended():
            self._again()
        if self.cluster is not None:
            self.cluster.stop()

    def ended_resumable(self, words: str) -> bool:
        """Whether the run ended over what was done to it: with status 1 and one sentence with these words.

        False: it ended well, or over a torn file, and was then given again. Broken otherwise.
        """
        status, said = self.ended(), self.said()
        told = self.sentences(status)
        if status == 1 and len(told) == 1 and words in told[0] and RESUME in told[0] and "Traceback" not in said:
            return True
        self._again()
        return False
