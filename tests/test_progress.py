"""What a run shows while it goes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slidebatch.events import (
    Event,
    InputFailed,
    RunEnded,
    RunNote,
    RunStarted,
    StageEnded,
    StageStarted,
    TaskDone,
)
from slidebatch.progress import Plain, Tally, advance, display, duration, line

RUN: list[Event] = [
    RunStarted("plate", "results/plate", ("infer", "decode"), "http://127.0.0.1:8787/status"),
    RunNote("two workers"),
    StageStarted("infer", 5, 2),
    TaskDone("infer", ("A01",), 0, 0.5, 1.0),
    InputFailed("A02", "infer", "the file is broken; replace it"),
    TaskDone("infer", ("A03",), 0, 0.5, 1.0),
    TaskDone("infer", ("A04",), 0, 0.5, 1.0),
    StageEnded("infer", 5, 5, 3.0),
    StageStarted("decode", 2, 0),
    TaskDone("decode", ("A01",), 1200, 0.5, 1.0),
    TaskDone("decode", ("A03",), 34, 0.5, 1.0),
    StageEnded("decode", 2, 2, 2.0),
    RunEnded(2, 1, 1234, 5.0),
]


class Clock:
    """A clock that moves by `step_s` at every look."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def _shown(step_s: float) -> list[str]:
    stream = io.StringIO()
    with Plain(stream, clock=Clock(step_s)) as listen:
        for event in RUN:
            listen(event)
    return stream.getvalue().splitlines()


def test_plain_lines_say_everything_once() -> None:
    """Without a terminal every start, failure, note and stage's end is one line, in order."""
    lines = _shown(step_s=0.01)
    assert lines == [
        "run plate: results in results/plate; dashboard http://127.0.0.1:8787/status",
        "two workers",
        "failed: A02 in infer: the file is broken; replace it",
        "infer done: 5/5 in 3 s",
        "decode done: 2/2 in 2 s",
        "2 slides done, 1 failed, 1,234 nuclei in 5 s",
    ]


def test_plain_lines_come_at_most_every_few_seconds() -> None:
    """A slow stage says where it stands, a fast one does not."""
    assert any(text.startswith("infer 3/5") for text in _shown(step_s=6.0))
    assert not any(text.startswith("infer 3/5") for text in _shown(step_s=0.01))


@given(tasks=st.lists(st.tuples(st.integers(0, 999), st.floats(0, 9)), max_size=20), before=st.integers(0, 5))
def test_tally_adds_up(tasks: list[tuple[int, float]], before: int) -> None:
    """Done, nuclei and area are the sums over the tasks, whatever came before; time left shrinks to nothing."""
    tally = advance(Tally(nuclei=7, failed=2), StageStarted("seams", before + len(tasks), before), 0.0)
    for nuclei, mm2 in tasks:
        tally = advance(tally, TaskDone("seams", ("s",), nuclei, mm2, 1.0), 1.0)
    assert (tally.done, tally.total) == (before + len(tasks), before + len(tasks))
    assert tally.nuclei == sum(n for n, _ in tasks)
    assert tally.mm2 == pytest.approx(sum(a for _, a in tasks))
    assert tally.failed == 2
    assert tally.left_s(10.0) == (0.0 if tasks else None)


def test_inherited_tasks_do_not_count_as_speed() -> None:
    """After a resume, time left comes from this run's tasks only."""
    tally = advance(Tally(), StageStarted("infer", 100, 90), 0.0)
    assert tally.left_s(10.0) is None
    tally = advance(tally, TaskDone("infer", ("s",), 0, 0.0, 1.0), 10.0)
    assert tally.left_s(10.0) == pytest.approx(90.0)


def test_live_display_shows_the_last_word() -> None:
    """On a terminal failures and the end scroll above the bar."""
    stream = io.StringIO()
    with display(stream, live=True) as listen:
        for event in RUN:
            listen(event)
    assert "failed: A02 in infer" in stream.getvalue()
    assert "1,234 nuclei" in stream.getvalue()


def test_a_stream_that_is_no_terminal_gets_plain_lines() -> None:
    """The display is chosen by the stream."""
    assert isinstance(display(io.StringIO()), Plain)


def test_line_leaves_out_what_is_not_known() -> None:
    """Nothing is shown of speed before there is any, and nothing of area without pixel size."""
    assert line(Tally("infer", 8), 3.0) == "infer 0/8"
    assert duration(3599.7) == "1 h 0 min"
