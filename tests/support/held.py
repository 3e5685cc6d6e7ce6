"""Runs whose networks wait at a gate in two tasks, so that who is at work can be seen, killed, and let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from slidebatch import batch
from slidebatch.store import read_json
from tests.support.fields import touching_field
from tests.support.jobs import until
from tests.support.runs import config, contents, run, write_slides
from tests.test_kills import write_config

LARGE: dict[str, Any] = {
    "tiling": {"patch_px": 256, "core_px": 384},
    "output": {"chunk_px": 128, "shard_px": 512},
}
"""Larger patches, tiles and chunks than other tests have: a few tasks of each stage, and little to do in them."""


def write_calm(folder: Path) -> Path:
    """Slides that make several tasks of the networks' stage, and their undisturbed run as folder/calm."""
    rng = np.random.default_rng(61)
    truths = {name: touching_field((1150, 1000), 24, rng) for name in ("a", "b", "c")}
    write_slides(folder, {**truths, "d": touching_field((200, 220), 20, rng)})
    assert run(config(folder, "calm", **LARGE)).exit_status == 0
    return folder


@dataclass(frozen=True)
class Held:
    """A run of the slides that `write_calm` wrote, which waits in tasks 0 and 1 of stage infer.

    times   how often each of the two waits: once an attempt
    """

    folder: Path
    name: str
    times: int = 1

    @property
    def output(self) -> Path:
        return self.folder / self.name

    @cached_property
    def places(self) -> list[str]:
        """The first patch of the two tasks, as the faulty oracle names it."""
        plan = batch.plan(config(self.folder, self.name, **LARGE)).planned.plan
        items = [task.items[0] for task in plan.tasks("infer")]
        assert len(items) >= 3, "too few tasks for two workers to share"
        return [f"{plan.slides[i.slide].slide}:{i.box.y0}:{i.box.x0}" for i in items[:2]]

    def write(self, **sections: Any) -> Path:
        """Its config."""
        schedule = {place: ["hold"] * self.times for place in self.places}
        told = {"truth": self.folder / "truth", "gate": self._gate, "counts": self._counts}
        settings = {"schedule": schedule, **{key: str(path) for key, path in told.items()}}
        model = {"name": "tests.support.faulty_oracle", "settings": settings}
        sections["cluster"] = {"wait_s": 600.0, **sections.get("cluster", {})}
        return write_config(self.folder, self.name, model=model, **LARGE, **sections)

    @property
    def _gate(self) -> Path:
        return self.folder / f"{self.name}.gate"

    @property
    def _counts(self) -> Path:
        return self.folder / f"{self.name}.counts"

    def until_held(self, first: int = 1, second: int = 1, told: Callable[[], str] = str) -> tuple[int, int]:
        """The two processes that wait in the tasks, once these have begun for that many times; they live."""
        until(lambda: self._held(first, second) is not None, 600, told)
        found = self._held(first, second)
        assert found is not None, told()
        return found

    def _held(self, *times: int) -> tuple[int, int] | None:
        found = []
        for task, count in enumerate(times):
            begun = self._counts / self.places[task].replace(":", "_")
            attempt = self.output / "work" / "attempts" / f"infer-{task}.json"
            try:
                process = int(read_json(attempt)["process"])
                if begun.stat().st_size != count or psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                    return None
            except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
                return None
            found.append(process)
        return (found[0], found[1]) if found[0] != found[1] else None

    def open(self) -> None:
        """Let all go on, now and later."""
        self._gate.touch()

    def is_calm(self) -> bool:
        """Whether the results are the undisturbed run's to the byte, and no input failed."""
        failures = (self.output / "failures.jsonl").read_text()
        return not failures and contents(self.output) == contents(self.folder / "calm")


def processes_of(word: str) -> list[str]:
    """Command lines of living processes that hold a word, such as a folder's name."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        found += [line] if word in line else []
    return found


def processes_with(**variables: str) -> list[psutil.Process]:
    """Living processes in whose environment all these variables have these values."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        found += [process] if variables.items() <= environment.items() else []
    return found
