"""Shows how a run goes: a live display on a terminal, plain lines elsewhere.

Owns the arithmetic of progress (`Tally`, a pure fold over events) and its two displays. A display is a
context manager whose value is the callable that `batch.run` gives its events to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TextIO

from slidebatch.events import (
    Event,
    InputFailed,
    OnEvent,
    RunEnded,
    RunNote,
    RunStarted,
    StageEnded,
    StageStarted,
    TaskDone,
)

PLAIN_EVERY_S = 5.0
"""Least time between two plain lines of one stage."""


class Progress(Protocol):
    """A display: enter it to get the listener; leaving it restores the terminal."""

    def __enter__(self) -> OnEvent: ...

    def __exit__(self, *exception: object) -> bool | None: ...


@dataclass(frozen=True)
class Tally:
    """Where a stage stands.

    stage        its name, "" before the first
    total, done  tasks
    inherited    of `done`, those that an earlier run did (they say nothing about speed)
    nuclei, mm2  counted since the stage began
    failed       inputs quarantined since the run began
    began_s      clock at the stage's start, seconds
    """

    stage: str = ""
    total: int = 0
    done: int = 0
    inherited: int = 0
    nuclei: int = 0
    mm2: float = 0.0
    failed: int = 0
    began_s: float = 0.0

    def left_s(self, now_s: float) -> float | None:
        """Seconds to the stage's end at the speed so far; None before the first task of this run."""
        fresh = self.done - self.inherited
        return None if fresh <= 0 else (now_s - self.began_s) / fresh * (self.total - self.done)


def advance(tally: Tally, event: Event, now_s: float) -> Tally:
    """The tally after one event."""
    match event:
        case StageStarted():
            return Tally(event.stage, event.total, event.done, event.done, failed=tally.failed, began_s=now_s)
        case TaskDone():
            return replace(tally, done=tally.done + 1, nuclei=tally.nuclei + event.nuclei, mm2=tally.mm2 + event.mm2)
        case InputFailed():
            return replace(tally, failed=tally.failed + 1)
        case _:
            return tally


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(7), duration(754), duration(36120)
    ('7 s', '12 min 34 s', '10 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def line(tally: Tally, now_s: float) -> str:
    """One line: stage, tasks, nuclei, mm2/s, time left, failures; what is not known is left out.

    >>> line(Tally("infer", 8, 4, 0, mm2=2.0, began_s=0.0), 10.0)
    'infer 4/8, 0.2 mm2/s, 10 s left'
    """
    spent_s, left_s = now_s - tally.began_s, tally.left_s(now_s)
    parts = [f"{tally.stage} {tally.done}/{tally.total}"]
    if tally.nuclei:
        parts.append(f"{tally.nuclei:,} nuclei")
    if tally.mm2 and spent_s > 0:
        parts.append(f"{tally.mm2 / spent_s:.3g} mm2/s")
    if left_s is not None and tally.done < tally.total:
        parts.append(f"{duration(left_s)} left")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    return ", ".join(parts)


def sentence(event: Event) -> str | None:
    """What is said once about an event; None for those that only move the tally."""
    match event:
        case RunStarted():
            board = f"; dashboard {event.dashboard}" if event.dashboard else ""
            return f"run {event.name}: results in {event.results}{board}"
        case InputFailed():
            return f"failed: {event.slide} in {event.stage}: {event.sentence}"
        case RunNote():
            return event.text
        case StageEnded():
            return f"{event.stage} done: {event.done}/{event.total} in {duration(event.seconds)}"
        case RunEnded():
            failed = f", {event.failed} failed" if event.failed else ""
            return f"{event.done} slides done{failed}, {event.nuclei:,} nuclei in {duration(event.seconds)}"
        case _:
            return None


@dataclass
class Plain:
    """Plain lines on a stream: sentences at once, the tally at most every `every_s` seconds."""

    stream: TextIO
    every_s: float = PLAIN_EVERY_S
    clock: Callable[[], float] = time.monotonic
    tally: Tally = field(default_factory=Tally)
    said_s: float = 0.0

    def __enter__(self) -> OnEvent:
        return self.listen

    def __exit__(self, *exception: object) -> None:
        self.stream.flush()

    def listen(self, event: Event) -> None:
        now_s = self.clock()
        self.tally = advance(self.tally, event, now_s)
        text = sentence(event)
        if isinstance(event, StageStarted):
            self.said_s = now_s
        if text is not None:
            self._say(text)
        elif isinstance(event, TaskDone) and now_s - self.said_s >= self.every_s:
            self.said_s = now_s
            self._say(line(self.tally, now_s))

    def _say(self, text: str) -> None:
        self.stream.write(text + "\n")
        self.stream.flush()


@contextmanager
def _live(stream: TextIO) -> Iterator[OnEvent]:
    """A bar with the tally's line on a terminal; sentences scroll above it."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(file=stream)
    columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
    tally = Tally()
    with Bars(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("planning", total=None)

        def listen(event: Event) -> None:
            nonlocal tally
            now_s = time.monotonic()
            tally = advance(tally, event, now_s)
            text = sentence(event)
            if text is not None:
                console.print(text, markup=False, highlight=False, soft_wrap=True)
            if tally.stage:
                bars.update(bar, total=tally.total, completed=tally.done, description=line(tally, now_s))

        yield listen


def display(stream: TextIO, live: bool | None = None) -> AbstractContextManager[OnEvent]:
    """The display for a stream: live on a terminal, plain lines elsewhere; `live` decides where given."""
    wanted = stream.isatty() if live is None else live
    return _live(stream) if wanted else Plain(stream)
