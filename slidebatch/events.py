"""What a run tells while it goes: frozen values that `batch` gives to a callable, `on_event(event)`.

A run emits `RunStarted`, then per stage `StageStarted`, any number of `TaskDone`, `InputFailed` and
`RunNote`, and `StageEnded`; last of all `RunEnded`. Events carry counts only, never pixels; whoever
listens (a terminal, a log, a test) cannot change the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The plan is accepted and the lease is held.

    name       the run's name
    results    the results folder
    stages     the stages to come, in order
    dashboard  address of the scheduler's dashboard (localhost), None without one
    """

    name: str
    results: str
    stages: tuple[str, ...]
    dashboard: str | None = None


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins: `total` tasks, of which `done` were done by an earlier run."""

    stage: str
    total: int
    done: int


@dataclass(frozen=True, slots=True)
class TaskDone:
    """One task is done.

    stage    the stage's name
    slides   ids of the slides (or fields) that the task worked on
    nuclei   nuclei that it found or wrote, 0 where the stage counts none
    mm2      area that it worked on, square millimetres; 0.0 where the pixel size is not known
    seconds  time on the worker
    """

    stage: str
    slides: tuple[str, ...]
    nuclei: int
    mm2: float
    seconds: float


@dataclass(frozen=True, slots=True)
class InputFailed:
    """An input is quarantined; the rest goes on. `sentence`: what was found, expected, and to do."""

    slide: str
    stage: str
    sentence: str


@dataclass(frozen=True, slots=True)
class RunNote:
    """A sentence for whoever watches."""

    text: str


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage is over: `done` tasks of its `total` in `seconds` of wall time."""

    stage: str
    total: int
    done: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over: `done` slides finished, `failed` quarantined, `nuclei` found, in `seconds`."""

    done: int
    failed: int
    nuclei: int
    seconds: float


Event = RunStarted | StageStarted | TaskDone | InputFailed | RunNote | StageEnded | RunEnded
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that does nothing."""
